"""Figure 2 of the paper: does the rating tell a peer with more data, a normal one and a desynchronised one apart?

All three are evaluated every round, and nobody is refused: the sync check is off, so that the rating alone has to tell.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gauntlet_jax.config import Config, to_json
from gauntlet_jax.lab.findings import Claim, Curves, Findings
from gauntlet_jax.lab.recorded import Recorded, from_document
from gauntlet_jax.lab.small_run import measured, seconds_of, small_config
from gauntlet_jax.lab.statistics import Interval, t_interval
from gauntlet_jax.lab.study import Results, Size, Study
from gauntlet_jax.lab.tables import Cell, Table

PEERS: Mapping[str, str] = {
    "more data": "double_data",
    "normal": "honest",
    "desynchronised": "stale_with_fresh_probe",
}
"""Behaviors, the best peer first."""

_ANY_DISTANCE = 1e9  # a SyncScore that nobody reaches
_RUN = "three-peers"


class _Case(NamedTuple):
    rounds: int


def conclude(size: Size, results: Results) -> Findings:
    """From which round on each rating is above the next one, in every seed."""
    del size
    runs = [from_document(result) for result in results(_RUN)]
    names = tuple(PEERS)
    separated = {
        (better, worse): [separated_from(run.loss_rating[:, i], run.loss_rating[:, i + 1]) for run in runs]
        for i, (better, worse) in enumerate(itertools.pairwise(names))
    }
    rows: list[tuple[Cell, ...]] = [
        (f"{better} above {worse}", *("never" if t is None else t + 1 for t in rounds))
        for (better, worse), rounds in separated.items()
    ]
    table = Table(
        "Rounds after which one LossRating stays above the next, by seed",
        ("pair", *(f"seed {seed}" for seed in range(len(runs)))),
        tuple(rows),
        "Raw LossScores of single rounds overlap; the rating, which knows only the order in each round, keeps them apart.",
    )
    overlap = Table(
        "Rounds in which the raw LossScore on random data says the opposite, %",
        ("pair", *(f"seed {seed}" for seed in range(len(runs)))),
        tuple(
            (
                f"{better} below {worse}",
                *(
                    100.0 * float(np.mean(run.random_score[:, i] < run.random_score[:, i + 1]))
                    for run in runs
                ),
            )
            for i, (better, worse) in enumerate(itertools.pairwise(names))
        ),
    )
    claims = tuple(
        Claim(
            f"the rating puts {better} above {worse} for good after {_last(rounds)} rounds in every seed"
            if None not in rounds
            else f"the rating puts {better} above {worse} for good in {sum(t is not None for t in rounds)} of {len(rounds)} seeds",
            None not in rounds,
        )
        for (better, worse), rounds in separated.items()
    )
    return Findings(
        claims,
        (table, overlap),
        (
            Curves("raw LossScore on random data", "round", "nats a token", _by_peer(runs, "random_score")),
            Curves("LossRating", "round", "mu - 3 sigma", _by_peer(runs, "loss_rating")),
        ),
    )


def separated_from(better: np.ndarray, worse: np.ndarray) -> int | None:
    """The first round from which ``better`` stays above ``worse`` to the end; None where it is not above in the last."""
    below = np.flatnonzero(better <= worse)
    first = int(below[-1]) + 1 if below.size else 0
    return first if first < len(better) else None


def _last(rounds: Sequence[int | None]) -> int:
    return max(1 + t for t in rounds if t is not None)


def _by_peer(runs: Sequence[Recorded], column: str) -> dict[str, tuple[list[float], list[Interval]]]:
    columns = np.stack([getattr(run, column) for run in runs])  # [seeds, rounds, peers]
    rounds = [float(t + 1) for t in range(columns.shape[1])]
    return {
        name: (rounds, [t_interval(columns[:, t, i].tolist()) for t in range(columns.shape[1])])
        for i, name in enumerate(PEERS)
    }


def config_of(case: _Case, seed: int) -> Config:
    """The run of a case."""
    peers = {name.replace(" ", "-"): behavior for name, behavior in PEERS.items()}
    config = small_config("figure2", peers, seed=seed, rounds=case.rounds)
    return dataclasses.replace(
        config, validator=dataclasses.replace(config.validator, max_sync_score=_ANY_DISTANCE)
    )


def _measure(case: _Case, seed: int) -> dict[str, Any]:
    return measured(config_of(case, seed), own=len(PEERS))


FIGURE2 = Study(
    name="figure2",
    question="Does the rating tell more data, normal and desynchronised peers apart, and how soon?",
    seeds={"quick": 3, "full": 5},
    cases=lambda size: {_RUN: _Case({"quick": 40, "full": 200}[size])},
    identity=lambda case, seed: to_json(config_of(case, seed)),
    measure=_measure,
    conclude=conclude,
    seconds=lambda case: seconds_of(case.rounds),
)
