"""Encoding, and decoding and aggregating fifteen peers, against a plain form in JAX and against the public PyTorch code."""

import contextlib
import json
import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from benchmarks import plain_form
from benchmarks.measurement import Row, smallest
from benchmarks.subject import PEERS, Subject

from gauntlet_jax import compression
from gauntlet_jax.compression.index_coding import index_code
from gauntlet_jax.nodes.aggregation import combine_sent


class Reference:
    """The public PyTorch code in a process of its own (see ``reference.py``)."""

    def __init__(self, path: Path, python: str, subject: Subject):
        """Starts it, and waits until it is ready.

        Args:
          path: a checkout.
          python: a Python that has torch.
          subject: whose tensors it is to encode, each layer for itself.
        """
        shapes = [
            layout.shape[layout.stack :]
            for layout in subject.task.compressor.format.leaves()
            for _ in range(math.prod(layout.shape[: layout.stack]))
        ]
        command = [python, str(Path(__file__).with_name("reference.py")), str(path), json.dumps(shapes)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._expect("ready")

    def __call__(self, act: str) -> None:
        """Does "encode" or "aggregate" once."""
        assert self._process.stdin is not None
        self._process.stdin.write(act + "\n")
        self._expect("done")

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.strip() == word:
                return
        raise SystemExit(f"--reference: the PyTorch code ended with exit code {self._process.wait()}")


def encode_rows(
    subject: Subject, reference: Callable[[str], None] | None, *, repeats: int = 9
) -> Iterator[Row]:
    """A peer's gradient to bytes: DCT, top 32 of 4096, 8 bits, packing, residual."""
    steps, fmt = subject.steps, subject.task.compressor.format
    beta = subject.config.compression.beta
    init = jax.jit(subject.task.compressor.init)
    fast, plain = {"residual": steps.peer.init(subject.task.params)}, {"residual": init(subject.task.params)}
    plainly = jax.jit(
        lambda residual, gradient: plain_form.encode(fmt, beta, residual, gradient), donate_argnums=0
    )

    def encode() -> None:
        _, fast["residual"] = steps.peer.encode(fast["residual"], subject.gradient)

    def encode_plainly() -> object:
        packed, plain["residual"] = plainly(plain["residual"], subject.gradient)
        return packed, plain["residual"]

    yield from _compared(
        "encode", "encode", subject, encode, encode_plainly, reference, most=1.0, repeats=repeats
    )


def aggregate_rows(
    subject: Subject, reference: Callable[[str], None] | None, *, repeats: int = 5
) -> Iterator[Row]:
    """Fifteen peers' bytes to one update, each read and checked when it is its turn, as every node does it."""
    steps, fmt = subject.steps, subject.task.compressor.format
    arrays, _ = steps.peer.encode(steps.peer.init(subject.task.params), subject.gradient)
    packed = steps.payload.cut(steps.payload.take(arrays))
    peers = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * PEERS), packed)
    plainly = jax.jit(lambda peers: plain_form.aggregate(fmt, peers))

    def aggregate() -> object:
        sent = [lambda: steps.validator.inspect(arrays)[0]] * PEERS
        return combine_sent(steps.validator.combine, sent, divisor=PEERS, places=PEERS)

    def aggregate_plainly() -> object:
        return plainly(peers)

    what = f"decode + aggregate {PEERS} peers"
    yield from _compared(
        "aggregate", what, subject, aggregate, aggregate_plainly, reference, most=0.35, repeats=repeats
    )


def bits_rows() -> Iterator[Row]:
    """Counted, not timed."""
    for k in (32, 64):
        bits, least = 8 * index_code(4096, k).bytes / k, math.log2(math.comb(4096, k)) / k
        yield Row(
            f"bits an index, k = {k} of 4096",
            f"{bits:.2f} where {least:.2f} are the least: {bits / least:.3f} x",
            bits / least,
            1.09,
        )
    params = {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32)}
    size = compression.sizes(compression.sparseloco(params, k=64, bits=2).format)
    bits = 8 * size.code_bytes / size.values
    yield Row("bits of a 2-bit value", f"{bits:.2f}", bits, 2, "bits")


def _compared(
    name: str,
    what: str,
    subject: Subject,
    act: Callable[[], object],
    plainly: Callable[[], object],
    reference: Callable[[str], None] | None,
    *,
    most: float,
    repeats: int,
) -> Iterator[Row]:
    copy = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1.0, tree))
    acts = [act, plainly, lambda: copy(subject.gradient)]
    if reference is not None:
        acts.append(lambda: reference(name))
    seconds, plain, copying, *theirs = smallest(*acts, repeats=repeats, burst=3)
    each = 1e9 / subject.parameters
    told = f"{each * seconds:.1f} ns a parameter ({seconds / copying:.1f} x a pass over the model)"
    yield Row(
        f"{what}, against plain JAX",
        f"{told}; {each * plain:.1f}: {seconds / plain:.2f} x",
        seconds / plain,
        1.0,
    )
    for other in theirs:
        yield Row(
            f"{what}, against PyTorch",
            f"{each * seconds:.1f} ns a parameter; {each * other:.1f}: {seconds / other:.2f} x",
            seconds / other,
            most,
        )


def started(
    path: Path | None, python: str, subject: Subject
) -> contextlib.AbstractContextManager[Reference | None]:
    """The reference, ended in the end; None where no checkout is given."""
    return contextlib.nullcontext() if path is None else contextlib.closing(Reference(path, python, subject))
