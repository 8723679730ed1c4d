"""Runs real simulations and keeps what they recorded, so that a study that was stopped goes on."""

import functools
import hashlib
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from gauntlet_jax.build import build_simulation
from gauntlet_jax.config import to_json
from gauntlet_jax.lab import recorded
from gauntlet_jax.lab.cases import cases_of, config_of
from gauntlet_jax.lab.recorded import Recorded
from gauntlet_jax.storage.journal import CorruptJournal, read_journal, write_journal


class Job(NamedTuple):
    """One run of a study.

    Attributes:
      case: its name.
      seed: of everything random in it.
    """

    case: str
    seed: int


class Runs:
    """The runs of some studies in a folder.

    Attributes:
      jobs: all of them, seed by seed, so that a study that is stopped has whole seeds.
    """

    def __init__(self, folder: Path, studies: Sequence[str], *, seeds: int, rounds: int):
        """Runs nothing yet.

        Args:
          folder: where finished runs are kept, one file each.
          studies: whose runs.
          seeds: how many, from 0.
          rounds: of a run.
        """
        self._folder, self._studies, self._rounds = folder, tuple(studies), rounds
        self._cases = cases_of(studies, rounds=rounds)
        self._seeds = seeds
        self.jobs = [Job(name, seed) for seed in range(seeds) for name in self._cases]

    def missing(self) -> list[Job]:
        """The jobs that are not in the folder yet."""
        return [job for job in self.jobs if self._read(job) is None]

    def of(self, case: str) -> list[Recorded]:
        """The runs of a case by seed.

        Raises:
          ValueError: one has not been run.
        """
        found = [self._read(Job(case, seed)) for seed in range(self._seeds)]
        kept = [run for run in found if run is not None]
        if len(kept) < len(found):
            raise ValueError(f"{self._folder} lacks runs of {case}")
        return kept

    def run(
        self, jobs: Sequence[Job], *, processes: int, prepare: Callable[[], None], done: Callable[[Job], None]
    ) -> None:
        """Runs some jobs; each is kept as soon as it has ended.

        Ctrl-C raises KeyboardInterrupt when the runs under way have ended (in one process: at once).

        Args:
          jobs: which.
          processes: how many side by side; 1 runs them in this one.
          prepare: called once in every other process before its first run.
          done: told each that has ended.
        """
        if processes == 1:
            for job in jobs:
                self.run_one(job)
                done(job)
            return
        for job in self._side_by_side(jobs, processes, prepare):
            done(job)

    def run_one(self, job: Job) -> None:
        """One simulation from its first round to its last; its columns are kept."""
        case = self._cases[job.case]
        config = config_of(case, seed=job.seed, rounds=self._rounds)
        with (
            tempfile.TemporaryDirectory(prefix="gauntlet-lab-") as folder,
            closing(build_simulation(config, Path(folder))) as simulation,
        ):
            simulation.compile()
            records = [simulation.run_round() for _ in range(self._rounds)]
        kept = recorded.to_document(recorded.from_records(records, own=len(case.own)))
        write_journal(self._path(job), {"config": self._digest(job), "run": kept})

    def _side_by_side(
        self, jobs: Sequence[Job], processes: int, prepare: Callable[[], None]
    ) -> Iterator[Job]:
        # Behaviors hold functions that cannot be sent: each process makes the cases anew by their names.
        one = functools.partial(
            _run_elsewhere, self._folder, self._studies, seeds=self._seeds, rounds=self._rounds
        )
        # Spawned, since a forked JAX hangs. Ctrl-C reaches every process of a terminal: the workers let this one decide.
        with ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), initializer=_begin_worker, initargs=(prepare,)
        ) as pool:
            waiting: dict[Future[None], Job] = {pool.submit(one, job): job for job in jobs}
            try:
                for future in as_completed(waiting):
                    future.result()
                    yield waiting[future]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _read(self, job: Job) -> Recorded | None:
        """A run that was kept; None where there is none of this very config."""
        try:
            document = read_journal(self._path(job))
            if document is None or document.get("config") != self._digest(job):
                return None
            return recorded.from_document(document["run"])
        except (CorruptJournal, ValueError, KeyError):
            return None  # a damaged file: the run is made again

    def _digest(self, job: Job) -> str:
        config = config_of(self._cases[job.case], seed=job.seed, rounds=self._rounds)
        return hashlib.sha256(to_json(config).encode()).hexdigest()

    def _path(self, job: Job) -> Path:
        return self._folder / f"{job.case}-seed{job.seed}.json"


def _begin_worker(prepare: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare()


def _run_elsewhere(folder: Path, studies: Sequence[str], job: Job, *, seeds: int, rounds: int) -> None:
    Runs(folder, studies, seeds=seeds, rounds=rounds).run_one(job)
