"""``gauntlet lab STUDY``: studies that run the real system in a small form; economics asks whether sybils pay."""

import dataclasses
import importlib
import json
import math
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gauntlet_jax.cli import libraries, overrides
from gauntlet_jax.cli.run_folder import UsageError, one_line, write_atomically

USAGE = """usage: gauntlet lab economics [--seeds 5] [--rounds 40] [--studies split,pair,designed-to-lose] [--out runs/economics]

economics  do several identities of one strategist earn more than the same work done honestly? Tables, JSON and a picture.

gauntlet lab economics --help explains each flag."""

INTERRUPTED = 130
JSON, PICTURE, RUNS = "economics.json", "economics.png", "runs"
_FEWEST_ROUNDS = 8  # a quarter of them is not paid, and half of the rest tells something
_SECONDS_A_RUN, _SECONDS_A_ROUND = 3.0, 0.1  # of one process on a laptop's core: for the announcement alone


@dataclasses.dataclass(frozen=True)
class EconomicsFlags:
    """Do several identities of one strategist earn more than the same work done honestly? Runs small simulations to see.

    Attributes:
      seeds: runs of each kind, at least 2; the intervals are over them.
      rounds: of a run, at least 8; the first quarter is not paid.
      studies: which of split, pair and designed-to-lose, with commas between them.
      out: folder for economics.json, economics.png and the finished runs; a command that was stopped goes on from those.
      processes: runs side by side.
      picture: draw economics.png (needs matplotlib).
    """

    seeds: int = 5
    rounds: int = 40
    studies: str = "split,pair,designed-to-lose"
    out: Path = Path("runs/economics")
    processes: int = 2
    picture: bool = True


def run(arguments: Sequence[str]) -> int:
    """The command.

    Args:
      arguments: what follows ``gauntlet lab``.

    Returns:
      0, or 130 after Ctrl-C.

    Raises:
      UsageError: anything that the user can mend.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        if arguments:
            return 0
        raise UsageError("lab needs a study: economics")
    name, *rest = arguments
    if name != "economics":
        raise UsageError(f"there is no study {name!r}: economics")
    flags = overrides.apply_overrides(EconomicsFlags(), rest, program="gauntlet lab economics")
    return economics(flags, Console(highlight=False))


def economics(flags: EconomicsFlags, console: Console) -> int:
    """Runs what is missing, then shows and writes what all the runs say.

    Args:
      flags: of the command.
      console: where to show progress and tables.

    Returns:
      0, or 130 after Ctrl-C; finished runs are kept.

    Raises:
      UsageError: a flag is out of its range, matplotlib is missing, or the folder cannot be written.
    """
    for name, least in (("seeds", 2), ("rounds", _FEWEST_ROUNDS), ("processes", 1)):
        if getattr(flags, name) < least:
            raise UsageError(f"--{name}: {getattr(flags, name)}, at least {least} is needed")
    libraries.quiet()
    lab, pictures = (importlib.import_module(f"gauntlet_jax.lab.{name}") for name in ("economics", "picture"))
    studies = tuple(dict.fromkeys(flags.studies.split(",")))
    for study in studies:
        if study not in lab.STUDIES:
            raise UsageError(f"--studies: there is no study {study!r}: {', '.join(lab.STUDIES)}")
    if flags.picture:
        try:
            pictures.check_matplotlib()
        except pictures.NoMatplotlib as error:
            raise UsageError(one_line(error)) from error
    try:
        return _economics(flags, studies, lab, pictures, console)
    except UsageError:
        raise
    except BrokenProcessPool as error:
        raise UsageError(
            "a process of the study was killed, perhaps for its memory: what was finished is kept, go on with --processes 1"
        ) from error
    except OSError as error:
        raise UsageError(f"{flags.out}: {one_line(error)}") from error


def _economics(
    flags: EconomicsFlags, studies: Sequence[str], lab: Any, pictures: Any, console: Console
) -> int:
    runs = lab.Runs(flags.out / RUNS, studies, seeds=flags.seeds, rounds=flags.rounds)
    missing = runs.missing()
    if missing and _simulate(runs, missing, flags, console):
        return INTERRUPTED
    found = {study: lab.study(study, runs, rounds=flags.rounds) for study in studies}
    for findings in found.values():
        for table in findings.tables:
            console.print(lab.as_text(table), markup=False, soft_wrap=True)
            console.print()
    document = lab.document(found, seeds=flags.seeds, rounds=flags.rounds)
    write_atomically(flags.out / JSON, json.dumps(document, indent=2, allow_nan=False) + "\n")
    console.print(f"numbers  {flags.out / JSON}", markup=False, soft_wrap=True)
    if flags.picture:
        pictures.draw([findings.panel for findings in found.values()], flags.out / PICTURE)
        console.print(f"picture  {flags.out / PICTURE}", markup=False, soft_wrap=True)
    console.print("± is half a 95 % t-interval over the seeds; gains are paired by seed")
    return 0


def _simulate(runs: Any, missing: Sequence[Any], flags: EconomicsFlags, console: Console) -> bool:
    """Runs what is missing; returns whether Ctrl-C came first."""
    kept = len(runs.jobs) - len(missing)
    processes = min(flags.processes, len(missing))
    minutes = len(missing) * (_SECONDS_A_RUN + _SECONDS_A_ROUND * flags.rounds) / processes / 60
    console.print(
        f"{len(missing)} runs of {flags.rounds} rounds, {processes} side by side: about {math.ceil(minutes)} min"
        + (f" ({kept} are there already)" if kept else "")
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    finished = 0
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("simulating", total=len(missing))

        def done(job: Any) -> None:
            nonlocal finished
            finished += 1
            progress.update(bar, advance=1, description=f"{job.case}, seed {job.seed}")

        try:
            runs.run(missing, processes=processes, prepare=libraries.quiet, done=done)
        except KeyboardInterrupt:
            console.print(
                f"stopped after {kept + finished} of {len(runs.jobs)} runs; the same command goes on from there"
            )
            return True
    return False
