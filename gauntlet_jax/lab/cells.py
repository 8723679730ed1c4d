"""Measures the cells of a study and keeps each result, so that a study that was stopped goes on."""

import functools
import hashlib
import importlib
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from gauntlet_jax.lab.study import Size, Study
from gauntlet_jax.storage.journal import CorruptJournal, read_journal, write_journal


class Cell(NamedTuple):
    """One measurement of a study.

    Attributes:
      case: its name.
      seed: of everything random in it.
    """

    case: str
    seed: int


class NoCluster(ValueError):
    """Cells cannot be given to a cluster; its text says what to install."""


class Cells:
    """The cells of a study in a folder.

    Attributes:
      study, size: whose.
      all: all of them, seed by seed, so that a study that is stopped has whole seeds.
    """

    def __init__(self, folder: Path, study: Study, size: Size, *, seeds: int):
        """Measures nothing yet.

        Args:
          folder: where results are kept, one file each.
          study: whose cells.
          size: of the study.
          seeds: how many, from 0.
        """
        self.study: Study = study
        self.size: Size = size
        self._folder, self._seeds = folder, seeds
        self._cases = study.cases(size)
        self.all = [Cell(name, seed) for seed in range(seeds) for name in self._cases]

    def missing(self) -> list[Cell]:
        """The cells that have no result in the folder yet."""
        return [cell for cell in self.all if self._read(cell) is None]

    def of(self, case: str) -> list[Mapping[str, Any]]:
        """The results of a case by seed.

        Raises:
          ValueError: one has not been measured.
        """
        found = [self._read(Cell(case, seed)) for seed in range(self._seeds)]
        kept = [result for result in found if result is not None]
        if len(kept) < len(found):
            raise ValueError(f"{self._folder} lacks results of {case}")
        return kept

    def seconds(self, cell: Cell) -> float:
        """About how long it takes on a laptop's core."""
        return self.study.seconds(self._cases[cell.case])

    def measure(self, cell: Cell) -> None:
        """Measures one cell and keeps its result."""
        result = self.study.measure(self._cases[cell.case], cell.seed)
        write_journal(self._path(cell), {"identity": self._identity(cell), "result": result})

    def run(
        self, cells: Sequence[Cell], *, jobs: int, prepare: Callable[[], None], done: Callable[[Cell], None]
    ) -> None:
        """Measures some cells in processes side by side; each is kept as soon as it has ended.

        Ctrl-C raises KeyboardInterrupt when the cells under way have ended (in one process: at once).

        Args:
          cells: which.
          jobs: how many side by side; 1 measures them in this process.
          prepare: called once in every other process before its first cell.
          done: told each that has ended.
        """
        if jobs == 1:
            for cell in cells:
                self.measure(cell)
                done(cell)
            return
        # Spawned, since a forked JAX hangs. Ctrl-C reaches every process of a terminal: the workers let this one decide.
        with ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), initializer=_begin_worker, initargs=(prepare,)
        ) as pool:
            waiting: dict[Future[None], Cell] = {pool.submit(self._elsewhere(), cell): cell for cell in cells}
            try:
                for future in as_completed(waiting):
                    future.result()
                    done(waiting[future])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def run_on_cluster(
        self,
        cells: Sequence[Cell],
        *,
        cluster: str,
        partition: str | None,
        jobs: int,
        prepare: Callable[[], None],
        done: Callable[[Cell], None],
    ) -> None:
        """Measures some cells as an array of jobs of Slurm, on a folder that all its machines see.

        Ctrl-C cancels the jobs; what has ended is kept.

        Args:
          cells: which.
          cluster: "slurm", or "local" for submitit's stand-in on this machine.
          partition: of Slurm; None takes its default.
          jobs: how many at a time at most.
          prepare: called in every job first.
          done: told each cell that has ended.

        Raises:
          NoCluster: submitit is missing, or there is no Slurm here.
        """
        submitit = _submitit()
        try:
            executor = submitit.AutoExecutor(folder=self._folder.parent / "slurm", cluster=cluster)
        except RuntimeError as error:
            raise NoCluster(f"--cluster {cluster}: {error}") from error
        longest = max(map(self.seconds, cells))
        executor.update_parameters(
            name=f"gauntlet-lab-{self.study.name}",
            timeout_min=10 + int(longest),  # sixty times what a laptop takes, and the time to start
            cpus_per_task=1,
            mem_gb=4,
            **({"slurm_array_parallelism": jobs} if cluster == "slurm" else {}),
            **({"slurm_partition": partition} if partition and cluster == "slurm" else {}),
        )
        one = functools.partial(_prepared, prepare, self._elsewhere())
        submitted = dict(zip(executor.map_array(one, list(cells)), cells, strict=True))
        try:
            for job in submitit.helpers.as_completed(list(submitted)):
                job.result()
                done(submitted[job])
        except BaseException:
            for job in submitted:
                job.cancel()
            raise

    def _elsewhere(self) -> Callable[[Cell], None]:
        # Behaviors hold functions that cannot be sent: each process makes the cases anew by their names.
        return functools.partial(
            _measure_elsewhere, self._folder.absolute(), self.study.name, self.size, self._seeds
        )

    def _read(self, cell: Cell) -> Mapping[str, Any] | None:
        """A result that was kept; None where there is none of this very cell."""
        try:
            document = read_journal(self._path(cell))
            if document is None or document.get("identity") != self._identity(cell):
                return None
            return document["result"]
        except (CorruptJournal, KeyError):
            return None  # a damaged file: the cell is measured again

    def _identity(self, cell: Cell) -> str:
        return hashlib.sha256(self.study.identity(self._cases[cell.case], cell.seed).encode()).hexdigest()

    def _path(self, cell: Cell) -> Path:
        return self._folder / f"{cell.case}-seed{cell.seed}.json"


def check_cluster() -> None:
    """Looks whether cells can be given to a cluster.

    Raises:
      NoCluster: they cannot.
    """
    _submitit()


def _submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ImportError as error:
        raise NoCluster("a cluster needs submitit: pip install gauntlet-jax[lab]") from error


def _begin_worker(prepare: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare()


def _prepared(prepare: Callable[[], None], measure: Callable[[Cell], None], cell: Cell) -> None:
    prepare()
    measure(cell)


def _measure_elsewhere(folder: Path, study: str, size: Size, seeds: int, cell: Cell) -> None:
    studies: Mapping[str, Study] = importlib.import_module("gauntlet_jax.lab.studies").STUDIES
    Cells(folder, studies[study], size, seeds=seeds).measure(cell)
