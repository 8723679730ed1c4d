"""What a validator does besides evaluating: rating, aggregating many peers, checking strangers' artifacts."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from benchmarks.measurement import Row, smallest
from openskill.models import PlackettLuce

from gauntlet_jax import scoring

COPIES = "copies of the model"


def rating_rows(*, peers: int = 256, repeats: int = 30) -> Iterator[Row]:
    """One Plackett-Luce match of all peers."""
    rating, ranks, played = scoring.initial_rating(peers), np.arange(peers), np.ones(peers, bool)
    rate = jax.jit(scoring.rate)
    model = PlackettLuce()
    teams = [[model.rating()] for _ in range(peers)]
    (seconds,) = smallest(lambda: rate(rating, ranks, played), repeats=repeats)
    (theirs,) = smallest(lambda: bool(model.rate(teams, ranks=list(range(peers)))), repeats=2)
    yield Row(
        f"rating update of {peers} peers",
        f"{1e3 * seconds:.2f} ms; openskill {1e3 * theirs:.0f}: {seconds / theirs:.3f} x",
        1e3 * seconds,
        1.0,
        "ms",
    )


def memory_rows(*, counts: tuple[int, ...] = (4, 16, 64), side: int = 3200) -> Iterator[Row]:
    """The peak of a process that aggregates one square matrix of a model, by peers.

    What a process takes to start and to compile is in all of them: the growth from the fewest peers to the most is what tells.
    """
    script = str(Path(__file__).with_name("aggregation_memory.py"))
    peaks = []
    for count in counts:
        command = [sys.executable, script, str(side), str(count)]
        peaks.append(int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))
    copies = [(peak - peaks[0]) / (4 * side * side) for peak in peaks]
    yield Row(
        f"peak memory of aggregation, {', '.join(map(str, counts))} peers",
        " ".join(f"{grown:+.2f}" for grown in copies[1:]) + f" {COPIES}, of {peaks[0] / 2**20:.0f} MiB",
        max(copies),
        1.0,
        COPIES,
    )


def strangers_rows(*, peers: int = 1000) -> Iterator[Row]:
    """The peak of memory after all peers' artifacts were checked, against a quarter of them (see ``fast_evaluation.py``)."""
    script = str(Path(__file__).with_name("fast_evaluation.py"))
    command = [sys.executable, script, "--peers", str(peers), "--json"]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = json.loads(told.splitlines()[-1])
    yield Row(
        f"fast evaluation of {peers:,} artifacts: peak memory against a quarter of them",
        f"{found['artifacts_a_second']:.0f} a second; {found['peak']:.0f} MiB, {found['quarter']:.0f}",
        found["peak"] / found["quarter"],
        1.05,
    )
