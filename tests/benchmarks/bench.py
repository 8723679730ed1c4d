"""The numbers that this project lives by, as one table of ratios measured in one run.

    python tests/benchmarks/bench.py [--only ROW] [--reference PATH --reference-python PYTHON]

Machines are shared and noisy: every row compares two things that were timed in turn, and takes the smallest of several times of each.
With --reference, a checkout of the public PyTorch system (github.com/tplr-ai/templar), whose own code is timed in a process of its own,
with PYTHON, where torch is installed.
"""

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from gauntlet_jax import compression, scoring
from gauntlet_jax.build import build_simulation
from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import make_task
from gauntlet_jax.cli import libraries
from gauntlet_jax.compression.index_coding import index_code
from gauntlet_jax.config import CompressionConfig, Config, DataConfig, PeerConfig
from gauntlet_jax.nodes.aggregation import combine_sent
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.training.model import DecoderConfig, parameter_count

PEERS = 15


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      what: was measured.
      measured: as text.
      bound: what must be reached, as text.
      good: whether it is; None where there is nothing to compare with here.
    """

    what: str
    measured: str
    bound: str
    good: bool | None


class Reference(NamedTuple):
    """Nanoseconds a parameter of the public PyTorch code on the same tensors; None where it was not given."""

    encode: float | None
    aggregate: float | None


def smallest(*acts: Callable[[], object], repeats: int = 7) -> list[float]:
    """The smallest time of each, seconds, taken in turn."""
    times = [math.inf] * len(acts)
    for number in range(repeats + 1):
        for at, act in enumerate(acts):
            start = time.perf_counter()
            jax.block_until_ready(act())
            if number:  # the first time compiles
                times[at] = min(times[at], time.perf_counter() - start)
    return times


def large_model(batch: int = 64, length: int = 128) -> tuple[Config, Steps, object]:
    """Ten million parameters, and 8,192 tokens a batch."""
    config = Config(
        name="bench",
        peers=(PeerConfig("P1"),),
        model=DecoderConfig(
            vocabulary=4096, width=320, layers=6, heads=5, kv_heads=5, intermediate=832, scan=True
        ),
        data=DataConfig(length=length, batch=batch),
        compression=CompressionConfig(beta=0.999, k=32, bits=8),
        validator=ValidatorRules(top_g=1),
    )
    task = make_task(config, SimpleNamespace(vocabulary=4096))
    return config, Steps(config, task), task


def tensors(scale: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The matrices that encoding is timed on: 10.5 million parameters at scale 1."""
    shapes = {"a": (8, 512, 512), "b": (8, 512, 1024), "c": (8, 1024, 512)}
    return {
        name: jax.ShapeDtypeStruct((max(1, n // scale), *rest), jnp.float32)
        for name, (n, *rest) in shapes.items()
    }


def compression_rows(reference: Reference, scale: int = 1) -> Iterator[Row]:
    """Encoding, and decoding and adding up fifteen peers."""
    params = tensors(scale)
    count = parameter_count(params)
    compressor = compression.demo(params, k=32, bits=8)
    fmt, rng = compressor.format, np.random.default_rng(0)
    gradient = {name: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for name, p in params.items()}

    def encode(residual, gradient):
        sent, residual = compressor.update(residual, gradient)
        return compression.pack(fmt, sent), residual

    jitted = jax.jit(encode, donate_argnums=0)
    state = {"residual": compressor.init(params)}

    def step():
        packed, state["residual"] = jitted(state["residual"], gradient)
        return packed

    copy = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1.0, tree))
    seconds, copying = smallest(step, lambda: copy(gradient))
    yield _against("encode, ns a parameter", seconds / count, reference.encode, 1.0, copying / count)

    aggregator, packed = compression.signed_mean(fmt), step()
    unpack = jax.jit(lambda packed: compression.unpack(fmt, packed)[0])
    add, start, finish = (
        jax.jit(aggregator.add, donate_argnums=0),
        jax.jit(aggregator.start),
        jax.jit(aggregator.finish),
    )

    def aggregate():
        total = start()
        for _ in range(PEERS):
            total = add(total, unpack(packed), np.float32(1 / PEERS))
        return finish(total)

    seconds, copying = smallest(aggregate, lambda: copy(gradient), repeats=4)
    yield _against(
        f"decode + aggregate {PEERS} peers, ns a parameter",
        seconds / count,
        reference.aggregate,
        0.35,
        copying / count,
    )


def evaluation_rows(batch: int = 64) -> Iterator[Row]:
    """A peer's primary evaluation and a whole round of training against the bare model's work on the same tokens."""
    config, steps, task = large_model(batch)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4096, (batch, config.data.length + 1)).astype(np.int32)
    params = task.params
    noise = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(0), leaf.shape), params)
    arrays, residual = steps.peer.encode(steps.peer.init(params), noise)
    sent = steps.validator.inspect(arrays)[0]
    shared = steps.loss(params, tokens)

    def evaluate():
        return steps.validator.evaluate(params, sent, None, tokens, tokens, shared, np.float32(1e-3))

    def forward():
        return [steps.loss(params, tokens) for _ in range(3)]

    seconds, bare = smallest(evaluate, forward, repeats=3)
    yield Row(
        "a peer's evaluation against its 3 forward passes (+ 1 shared a round)",
        f"{seconds / bare:.2f} x",
        "<= 1.15 x",
        seconds / bare <= 1.15,
    )

    state = {
        "residual": residual,
        "params": jax.tree.map(jnp.copy, params),
        "plain": jax.tree.map(jnp.copy, params),
    }

    def round_of_demo():
        gradient = steps.gradient.gradient(state["params"], tokens)
        made, state["residual"] = steps.peer.encode(state["residual"], gradient)
        update = combine_sent(
            steps.validator.combine, [lambda: steps.validator.inspect(made)[0]], divisor=1, places=1
        )
        state["params"] = steps.apply(state["params"], update, np.float32(1e-4))
        return state["params"]

    def plain_step():
        gradient = steps.gradient.gradient(state["plain"], tokens)
        state["plain"] = steps.apply(state["plain"], gradient, np.float32(1e-4))
        return state["plain"]

    seconds, bare = smallest(round_of_demo, plain_step, repeats=3)
    what = f"a DeMo round against a gradient step, {tokens[:, 1:].size:,} tokens, {parameter_count(params) / 1e6:.1f}M parameters"
    yield Row(what, f"{seconds / bare:.2f} x", "<= 1.10 x", seconds / bare <= 1.10)


def size_rows() -> Iterator[Row]:
    """Bits: counted, not timed."""
    for k, most in ((32, 9.1), (64, 8.0)):
        bits, bound = 8 * index_code(4096, k).bytes / k, math.log2(math.comb(4096, k)) / k
        good = bits <= most and bits / bound <= 1.09
        yield Row(
            f"index bits a value, k = {k}, against the bound of {bound:.2f}",
            f"{bits:.2f}, {bits / bound:.3f} x",
            "<= 1.09 x",
            good,
        )
    params = {"w": jax.ShapeDtypeStruct((64, 64), jnp.float32)}
    size = compression.sizes(compression.sparseloco(params, k=64, bits=2).format)
    bits = 8 * size.code_bytes / size.values
    yield Row("bits of a 2-bit value", f"{bits:.2f}", "2", bits == 2)


def rating_rows(peers: int = 256) -> Iterator[Row]:
    """One Plackett-Luce match."""
    ratings = scoring.Rating(jnp.full(peers, 25.0), jnp.full(peers, 25.0 / 3))
    rate = jax.jit(scoring.rate)
    ranks, played = np.arange(peers), np.ones(peers, bool)
    (seconds,) = smallest(lambda: rate(ratings, ranks, played), repeats=30)
    yield Row(f"rating update of {peers} peers", f"{1e3 * seconds:.2f} ms", "<= 1 ms", seconds <= 1e-3)


def memory_rows(sizes: tuple[int, ...] = (4, 16, 64), side: int = 2048) -> Iterator[Row]:
    """The peak of aggregation in processes of their own, beyond that of one peer, in copies of the model."""
    program = (
        "import resource, sys; import jax, numpy as np, jax.numpy as jnp; from gauntlet_jax import compression as c\n"
        "side, peers = int(sys.argv[1]), int(sys.argv[2])\n"
        "params = {'w': jax.ShapeDtypeStruct((side, side), jnp.float32)}\n"
        "fmt = c.demo(params).format; agg = c.signed_mean(fmt)\n"
        "packed = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), c.packed_shapes(fmt))\n"
        "add = jax.jit(lambda t, p: agg.add(t, c.unpack(fmt, p)[0], np.float32(0.1)), donate_argnums=0)\n"
        "total = jax.jit(agg.start)()\n"
        "for _ in range(peers): total = add(total, packed)\n"
        "jax.block_until_ready(jax.jit(agg.finish)(total))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
    )
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", program, str(side), str(peers)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for peers in sizes
    ]
    growth = (max(peaks) - peaks[0]) / (4 * side * side)
    yield Row(
        f"peak memory of aggregation, {sizes[-1]} peers against {sizes[0]}",
        f"+{growth:.2f} of a model",
        "< 1 model",
        growth < 1,
    )


def simulation_rows(counts: tuple[int, ...] = (8, 32, 128), rounds: int = 3) -> Iterator[Row]:
    """A simulated round, seconds a peer, as peers become more; the commands of a round are the same for each."""
    seconds = []
    for count in counts:
        config = Config(
            name="many",
            peers=tuple(PeerConfig(f"P{number}") for number in range(count)),
            rounds=rounds + 1,
            model=DecoderConfig(width=64, layers=2, heads=2, kv_heads=1, intermediate=192),
            data=DataConfig(max_bytes=4_000_000, length=32, batch=8, capacity=1, heldout=16),
            validator=ValidatorRules(top_g=min(count, PEERS)),
            store="memory",
            heldout_every=100,
        )
        with tempfile.TemporaryDirectory() as folder:
            simulation = build_simulation(config, Path(folder))
            simulation.compile()
            simulation.run_round()  # the first compiles the rest
            times = []
            for _ in range(rounds):
                start = time.perf_counter()
                simulation.run_round()
                times.append((time.perf_counter() - start) / count)
            simulation.close()
            seconds.append(min(times))
    spread = max(seconds) / min(seconds) - 1
    told = ", ".join(f"{1e3 * one:.1f}" for one in seconds)
    yield Row(
        f"ms a round a simulated peer, {', '.join(map(str, counts))} peers",
        told,
        "constant within 10 %",
        spread <= 0.10,
    )


ROWS: dict[str, Callable[..., Iterator[Row]]] = {
    "compression": compression_rows,
    "evaluation": evaluation_rows,
    "sizes": size_rows,
    "rating": rating_rows,
    "memory": memory_rows,
    "simulation": simulation_rows,
}


def _against(what: str, seconds: float, reference: float | None, bound: float, copying: float) -> Row:
    told = f"{1e9 * seconds:.1f} ({seconds / copying:.1f} x a pass over the model)"
    if reference is None:
        return Row(what, told, f"<= {bound} x the PyTorch code (give --reference)", None)
    ratio = 1e9 * seconds / reference
    return Row(what, f"{told}; PyTorch {reference:.1f}: {ratio:.2f} x", f"<= {bound} x", ratio <= bound)


def measure_reference(path: Path | None, python: str) -> Reference:
    """Runs ``reference.py`` beside this file over a checkout."""
    if path is None:
        return Reference(None, None)
    script = Path(__file__).with_name("reference.py")
    found = subprocess.run([python, str(script), str(path)], capture_output=True, text=True, check=True)
    encode, aggregate = map(float, found.stdout.split()[-2:])
    return Reference(encode, aggregate)


def show(rows: list[Row], console: Console) -> int:
    """Prints the table; returns how many rows miss their bound."""
    table = Table("what", "measured", "must reach", "")
    for row in rows:
        table.add_row(row.what, row.measured, row.bound, {True: "ok", False: "MISSED", None: ""}[row.good])
    console.print(table)
    return sum(row.good is False for row in rows)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=sorted(ROWS), help="one group of rows")
    parser.add_argument("--reference", type=Path, help="a checkout of the public PyTorch system")
    parser.add_argument("--reference-python", default=sys.executable, help="a Python that has torch")
    given = parser.parse_args()
    libraries.quiet()
    reference, rows = measure_reference(given.reference, given.reference_python), []
    for name, measure in ROWS.items():
        if given.only in (None, name):
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            rows += measure(reference) if name == "compression" else measure()
    return int(show(rows, Console(width=None if sys.stdout.isatty() else 150)) > 0)


if __name__ == "__main__":
    sys.exit(main())
