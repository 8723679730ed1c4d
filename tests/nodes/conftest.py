"""A run so small that a round takes a tenth of a second, and one with all behaviors for several files."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from gauntlet_jax.build import build_simulation
from gauntlet_jax.config import CompressionConfig, Config, DataConfig, PeerConfig, ScheduleConfig
from gauntlet_jax.nodes.attacks import BEHAVIORS
from gauntlet_jax.nodes.record import RoundRecord
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.nodes.simulation import Simulation
from gauntlet_jax.rewards.rules import RewardRules
from gauntlet_jax.training.model import DecoderConfig

_TINY = Config(
    name="tiny",
    peers=tuple(PeerConfig(name) for name in ("ada", "ben", "cleo", "dov")),
    rounds=10,
    model=DecoderConfig(width=16, layers=1, heads=2, kv_heads=1, intermediate=32),
    data=DataConfig(max_bytes=400_000, length=16, batch=8, capacity=2, heldout=64),
    compression=CompressionConfig(beta=0.9, k=8),
    learning_rate=ScheduleConfig(peak=4e-3, warmup_rounds=2, schedule_rounds=20),
    validator=ValidatorRules(top_g=3, max_sync_score=1.5),
    store="memory",
)


class FinishedRun(NamedTuple):
    """A run with one peer of every behavior (named after it) and three honest ones.

    Attributes:
      config: with which it was built.
      simulation: after its last round, still open.
      records: of all rounds.
      heads: the ledger's head after each round.
    """

    config: Config
    simulation: Simulation
    records: list[RoundRecord]
    heads: list[str]


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Config]:
    """``(**changes) -> Config``: four honest peers, a few thousand parameters."""
    return lambda **changes: dataclasses.replace(_TINY, **changes)


@pytest.fixture(scope="session")
def everyone(tiny: Callable[..., Config]) -> Config:
    """All behaviors beside three honest peers, with the baseline, artifacts in files."""
    names = ["ada", "ben", "honest", *(name for name in BEHAVIORS if name != "honest")]
    return tiny(
        peers=tuple(PeerConfig(name, name if name in BEHAVIORS else "honest") for name in names),
        baseline="adamw",
        rewards=RewardRules(payable_after=3),
        heldout_every=2,
        checkpoints_kept=3,
        store="file",
    )


@pytest.fixture(scope="session")
def finished(everyone: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    with closing(build_simulation(everyone, tmp_path_factory.mktemp("everyone"))) as simulation:
        simulation.compile()
        records, heads = [], []
        while simulation.round < simulation.rounds:
            records.append(simulation.run_round())
            heads.append(simulation._ledger.head())
        yield FinishedRun(everyone, simulation, records, heads)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[Config], Simulation]]:
    """``config -> simulation`` in a folder of the test's own, closed at its end."""
    opened = []

    def start(config: Config) -> Simulation:
        simulation = build_simulation(config, tmp_path)
        opened.append(simulation)
        return simulation

    yield start
    for simulation in opened:
        simulation.close()
