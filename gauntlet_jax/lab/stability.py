"""A long run of equals: do ratings drift, do equal peers earn alike, and do memory and time a round stay flat?

Eight honest peers do the same work for thousands of rounds. Nothing should happen, and this study looks whether it does.
"""

import dataclasses
import os
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gauntlet_jax.build import build_simulation
from gauntlet_jax.config import Config, to_json
from gauntlet_jax.lab import recorded
from gauntlet_jax.lab.findings import Claim, Curves, Findings
from gauntlet_jax.lab.recorded import Recorded, from_document
from gauntlet_jax.lab.small_run import seconds_of, small_config
from gauntlet_jax.lab.statistics import Interval, t_interval
from gauntlet_jax.lab.study import Results, Size, Study
from gauntlet_jax.lab.tables import Table

PEERS = 8
MOST_GINI = 0.1
MOST_GROWTH = 1.1
_RUN = "equals"
_POINTS = 200  # of a curve


class _Case(NamedTuple):
    rounds: int


def gini(payouts: Float[np.ndarray, " peers"]) -> float:
    """How unequal payouts are: ``sum_pq |x_p - x_q| / (2 n sum_p x_p)``, 0 where all are alike, towards 1 where one has all."""
    total = float(payouts.sum())
    if total <= 0:
        return 0.0
    return float(np.abs(payouts[:, None] - payouts[None, :]).sum() / (2 * len(payouts) * total))


def growth(values: Float[np.ndarray, " rounds"]) -> float:
    """The median of the last quarter over that of the second: the first quarter compiles, and fills caches."""
    quarter = len(values) // 4
    return float(np.median(values[-quarter:]) / np.median(values[quarter : 2 * quarter]))


def conclude(size: Size, results: Results) -> Findings:
    """What changed over the run, by seed."""
    del size
    found = results(_RUN)
    runs = [from_document(result["run"]) for result in found]
    seconds = [growth(np.array(result["seconds"])) for result in found]
    memory = [growth(np.array(result["resident"])) for result in found]
    inequality = [gini(run.payout.sum(axis=0).astype(float)) for run in runs]
    means = [run.rating_mu.mean(axis=1) for run in runs]
    sigma = [float(run.rating_sigma[-1].mean()) for run in runs]
    sound = [_is_finite(run) for run in runs]
    rows = tuple(
        (f"seed {seed}", *row)
        for seed, row in enumerate(
            zip(
                (f"{value:.3f}" for value in inequality),
                (f"{values[-1] - values[0]:+.2f}" for values in means),
                (f"{value:.2f}" for value in sigma),
                (f"{value:.3f}" for value in memory),
                (f"{value:.3f}" for value in seconds),
                ("no" if ok else "yes" for ok in sound),
                strict=True,
            )
        )
    )
    rounds = len(means[0])
    table = Table(
        f"{PEERS} equal peers over {rounds} rounds",
        ("", "Gini of payouts", "drift of mean mu", "sigma at the end", "memory", "time a round", "NaN"),
        rows,
        "Memory and processor time: the median of the last quarter over that of the second.",
    )
    claims = (
        Claim(
            f"payouts of equal peers have a Gini of at most {max(inequality):.3f}",
            max(inequality) <= MOST_GINI,
        ),
        Claim("every rating, score and loss is finite in every round", all(sound)),
        Claim(f"memory grows by a factor of at most {max(memory):.3f}", max(memory) <= MOST_GROWTH),
        Claim(f"a round's time grows by a factor of at most {max(seconds):.3f}", max(seconds) <= MOST_GROWTH),
    )
    at = np.unique(np.linspace(0, rounds - 1, min(rounds, _POINTS)).astype(int))
    x = [float(t + 1) for t in at]
    first = runs[0]
    ratings = {
        name: (x, [Interval(float(first.loss_rating[t, p]), 0.0) for t in at])
        for p, name in enumerate(first.names)
    }
    paid = np.stack(
        [np.array([gini(row.astype(float)) for row in np.cumsum(run.payout, axis=0)]) for run in runs]
    )
    return Findings(
        claims,
        (table,),
        (
            Curves("LossRating of equal peers, seed 0", "round", "mu - 3 sigma", ratings),
            Curves(
                "how unequal all payouts so far are",
                "round",
                "Gini",
                {"payouts": (x, _over_seeds(paid[:, at]))},
            ),
            Curves(
                "memory of the process",
                "round",
                "MiB",
                {"resident": (x, _over_seeds(np.stack([np.array(r["resident"]) for r in found])[:, at]))},
            ),
        ),
    )


def _over_seeds(values: np.ndarray) -> list[Interval]:
    return [t_interval(column.tolist()) for column in values.T]


def _is_finite(run: Recorded) -> bool:
    numbers = (run.rating_mu, run.rating_sigma, run.proof_of_computation, run.peer_score, run.random_score)
    return all(bool(np.isfinite(column).all()) for column in numbers) and bool(
        np.isfinite(run.heldout_loss[-1])
    )


def config_of(case: _Case, seed: int) -> Config:
    """The run of a case."""
    peers = {f"peer-{number}": "honest" for number in range(PEERS)}
    config = small_config("stability", peers, seed=seed, rounds=case.rounds)
    # A rate that stays: a cosine's end would make all scores nothing.
    return dataclasses.replace(
        config, learning_rate=dataclasses.replace(config.learning_rate, peak=2e-3, final_fraction=1.0)
    )


def _measure(case: _Case, seed: int) -> dict[str, Any]:
    seconds, resident = [], []
    with (
        tempfile.TemporaryDirectory(prefix="gauntlet-lab-") as folder,
        closing(build_simulation(config_of(case, seed), Path(folder))) as simulation,
    ):
        simulation.compile()
        records = []
        for _ in range(case.rounds):
            start = time.process_time()  # of all threads: what others do on this machine does not count
            records.append(simulation.run_round())
            seconds.append(time.process_time() - start)
            resident.append(_resident())
    run = recorded.to_document(recorded.from_records(records, own=PEERS))
    return {"run": run, "seconds": seconds, "resident": resident}


def _resident() -> float:
    """MiB of this process that are in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


STABILITY = Study(
    name="stability",
    question="Over thousands of rounds: do ratings drift, do equal peers earn alike, do memory and time stay flat?",
    seeds={"quick": 2, "full": 3},
    cases=lambda size: {_RUN: _Case({"quick": 300, "full": 2000}[size])},
    identity=lambda case, seed: to_json(config_of(case, seed)),
    measure=_measure,
    conclude=conclude,
    seconds=lambda case: seconds_of(case.rounds),
)
