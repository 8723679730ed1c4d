"""What a validator and a peer add to the bare model's work, and what a round costs as peers become more."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.measurement import Row, smallest
from benchmarks.subject import PEERS, Subject

from gauntlet_jax.build.simulation import build_simulation
from gauntlet_jax.config import Config, DataConfig, PeerConfig
from gauntlet_jax.nodes.aggregation import combine_sent
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.training.model import DecoderConfig


def evaluation_rows(subject: Subject, *, repeats: int = 3) -> Iterator[Row]:
    """One peer's primary evaluation against the forward passes in it; what all peers share is done before."""
    steps, params, tokens = subject.steps, subject.task.params, _tokens(subject)
    arrays, _ = steps.peer.encode(steps.peer.init(params), subject.gradient)
    sent = steps.validator.inspect(arrays)[0]
    shared = steps.loss(params, tokens)

    def evaluate() -> object:
        return steps.validator.evaluate(params, sent, None, tokens, tokens, shared, np.float32(1e-3))

    def forward() -> object:
        return [steps.loss(params, tokens) for _ in range(3)]

    seconds, bare = smallest(evaluate, forward, repeats=repeats)
    yield Row(
        "a peer's evaluation against its 3 forward passes (+ 1 a round, shared)",
        f"{seconds:.2f} s; {bare:.2f}: {seconds / bare:.3f} x",
        seconds / bare,
        1.15,
    )


def round_rows(subject: Subject, *, repeats: int = 3) -> Iterator[Row]:
    """A peer's whole round (gradient, encoding, reading and aggregating it, step) against a gradient and a step."""
    steps, tokens, rate = subject.steps, _tokens(subject), np.float32(1e-4)
    demo = {
        "residual": steps.peer.init(subject.task.params),
        "params": jax.tree.map(jnp.copy, subject.task.params),
    }
    plain = {"params": jax.tree.map(jnp.copy, subject.task.params)}

    def whole_round() -> object:
        gradient, _ = steps.peer.training.run(
            demo["params"], steps.peer.training.init(demo["params"]), [tokens]
        )
        arrays, demo["residual"] = steps.peer.encode(demo["residual"], gradient)
        sent = [lambda: steps.validator.inspect(arrays)[0]]
        update = combine_sent(steps.validator.combine, sent, divisor=1, places=PEERS)
        demo["params"] = steps.apply(demo["params"], update, rate)
        return demo["params"]

    def plain_step() -> object:
        gradient = steps.gradient.gradient(plain["params"], tokens)
        plain["params"] = steps.apply(plain["params"], gradient, rate)
        return plain["params"]

    seconds, bare = smallest(whole_round, plain_step, repeats=repeats)
    yield Row(
        f"a DeMo round against a gradient step, {tokens[:, 1:].size:,} tokens, {subject.parameters / 1e6:.1f}M parameters",
        f"{seconds:.2f} s; {bare:.2f}: {seconds / bare:.3f} x",
        seconds / bare,
        1.10,
    )


def peers_rows(*, counts: tuple[int, ...] = (8, 32, 128), rounds: int = 4) -> Iterator[Row]:
    """Simulated rounds, seconds a peer: everything a round does is in them, and all of G = 8 are aggregated."""
    with contextlib.ExitStack() as stack:
        simulations = []
        for count in counts:
            config = Config(
                name="many",
                peers=tuple(PeerConfig(f"P{number}") for number in range(count)),
                rounds=rounds + 1,
                model=DecoderConfig(width=64, layers=2, heads=2, kv_heads=1, intermediate=192),
                data=DataConfig(max_bytes=4_000_000, length=32, batch=8, capacity=1, heldout=16),
                validator=ValidatorRules(top_g=min(8, *counts)),
                store="memory",
                heldout_every=100,
            )
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            simulation = stack.enter_context(contextlib.closing(build_simulation(config, folder)))
            simulation.compile()
            simulations.append(simulation)
        times = smallest(*(simulation.run_round for simulation in simulations), repeats=rounds)
    each = [seconds / count for seconds, count in zip(times, counts, strict=True)]
    yield Row(
        f"seconds a round a simulated peer: {', '.join(map(str, counts))} peers",
        ", ".join(f"{1e3 * one:.1f}" for one in each) + " ms",
        max(each) / min(each),
        1.10,
        "x the fastest",
    )


def _tokens(subject: Subject) -> np.ndarray:
    data = subject.config.data
    shape = (data.batch, data.length + 1)
    return np.random.default_rng(0).integers(0, subject.config.model.vocabulary, shape).astype(np.int32)
