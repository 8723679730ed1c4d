"""``gauntlet lab STUDY``: the paper's results and its open questions, each measured by a command."""

import dataclasses
import importlib
import json
import os
import shlex
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gauntlet_jax.cli import libraries, overrides
from gauntlet_jax.cli.run_folder import UsageError, one_line, write_atomically

USAGE = """usage: gauntlet lab STUDY [--full] [--seeds N] [--jobs N] [--out DIR]
       gauntlet lab --list

Measures one study and writes its tables, pictures and report.html. What was measured is kept: a command that was stopped goes on from there.
gauntlet lab STUDY --help explains each flag."""

INTERRUPTED = 130
CELLS, JSON, PICTURE, REPORT = "cells", "results.json", "pictures.png", "report.html"
_FEWEST_SEEDS = 2  # an interval needs two


@dataclasses.dataclass(frozen=True)
class LabFlags:
    """Measures a study: its cells, then tables, pictures and one page of what they say.

    Attributes:
      full: the study in full, as long as that takes; without, a form of it that takes under ten minutes on two cores.
      seeds: runs of each kind, at least 2; the intervals are over them. Left out: as many as the study needs.
      jobs: measurements side by side. Left out: as many as there are cores.
      cluster: "none" measures in processes of this machine, "slurm" as jobs of Slurm (needs submitit and a folder that all
        its machines see), "local" in submitit's stand-in for it.
      partition: of Slurm; left out, its default.
      out: folder for the results. Left out: runs/lab/STUDY, and runs/lab/STUDY-full in full.
      pictures: draw charts (needs matplotlib).
    """

    full: bool = False
    seeds: int | None = None
    jobs: int | None = None
    cluster: Literal["none", "slurm", "local"] = "none"
    partition: str | None = None
    out: Path | None = None
    pictures: bool = True


def run(arguments: Sequence[str]) -> int:
    """The command.

    Args:
      arguments: what follows ``gauntlet lab``.

    Returns:
      0, or 130 after Ctrl-C.

    Raises:
      UsageError: anything that the user can mend.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if not arguments:
        raise UsageError("lab needs a study: gauntlet lab --list names them")
    console = Console(highlight=False)
    libraries.quiet()
    studies = importlib.import_module("gauntlet_jax.lab.studies").STUDIES
    name, *rest = arguments
    if name == "--list":
        for study in studies.values():
            console.print(f"{study.name:<12} {study.question}", markup=False, soft_wrap=True)
        return 0
    if name not in studies:
        raise UsageError(f"there is no study {name!r}: {', '.join(studies)}")
    flags = overrides.apply_overrides(LabFlags(), rest, program=f"gauntlet lab {name}")
    try:
        return _study(studies[name], flags, shlex.join(["gauntlet", "lab", *arguments]), console)
    except BrokenProcessPool as error:
        raise UsageError(
            "a process of the study was killed, perhaps for its memory: what was measured is kept, go on with --jobs 1"
        ) from error
    except OSError as error:
        raise UsageError(f"{_folder(name, flags)}: {one_line(error)}") from error


def _study(study: Any, flags: LabFlags, command: str, console: Console) -> int:
    """Measures what is missing, then shows and writes what it all says."""
    size = "full" if flags.full else "quick"
    seeds = study.seeds[size] if flags.seeds is None else flags.seeds
    jobs = (os.cpu_count() or 1) if flags.jobs is None else flags.jobs
    for name, given, least in (("seeds", seeds, _FEWEST_SEEDS), ("jobs", jobs, 1)):
        if given < least:
            raise UsageError(f"--{name}: {given}, at least {least} is needed")
    cells_lib, picture, report = (
        importlib.import_module(f"gauntlet_jax.lab.{name}") for name in ("cells", "picture", "report")
    )
    try:
        if flags.pictures:
            picture.check_matplotlib()
        if flags.cluster != "none":
            cells_lib.check_cluster()
    except (picture.NoMatplotlib, cells_lib.NoCluster) as error:
        raise UsageError(one_line(error)) from error
    folder = _folder(study.name, flags)
    cells = cells_lib.Cells(folder / CELLS, study, size, seeds=seeds)
    console.print(study.question, style="bold", markup=False, soft_wrap=True)
    missing = cells.missing()
    if missing and _measure(cells, missing, flags, jobs, console):
        return INTERRUPTED
    findings = study.conclude(size, cells.of)
    origin = report.Origin(study.name, study.question, size, seeds, len(cells.all), command, report.version())
    _tell(findings, console)
    written = {"numbers": folder / JSON, "report": folder / REPORT}
    write_atomically(
        folder / JSON, json.dumps(report.document(findings, origin), indent=2, allow_nan=False) + "\n"
    )
    write_atomically(folder / REPORT, report.page(findings, origin, pictures=flags.pictures))
    if flags.pictures and findings.panels:
        picture.draw(findings.panels, folder / PICTURE)
        written["pictures"] = folder / PICTURE
    for what, path in written.items():
        console.print(f"{what:<9} {path}", markup=False, soft_wrap=True)
    return 0


def _measure(cells: Any, missing: Sequence[Any], flags: LabFlags, jobs: int, console: Console) -> bool:
    """Measures what is missing; returns whether Ctrl-C came first."""
    kept = len(cells.all) - len(missing)
    jobs = min(jobs, len(missing))
    work = {cell: cells.seconds(cell) for cell in missing}
    console.print(
        f"{len(missing)} measurements, {jobs} side by side: about {_duration(sum(work.values()) / jobs)}"
        + (f" ({kept} are there already)" if kept else "")
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"))
    finished = 0
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        # In seconds of expected work, so that the time left is right where cells differ in size.
        bar = progress.add_task("measuring", total=sum(work.values()), count=f"0/{len(missing)}")

        def done(cell: Any) -> None:
            nonlocal finished
            finished += 1
            progress.update(
                bar,
                advance=work[cell],
                description=f"{cell.case}, seed {cell.seed}",
                count=f"{finished}/{len(missing)}",
            )

        try:
            if flags.cluster == "none":
                cells.run(missing, jobs=jobs, prepare=libraries.quiet, done=done)
            else:
                cells.run_on_cluster(
                    missing,
                    cluster=flags.cluster,
                    partition=flags.partition,
                    jobs=jobs,
                    prepare=libraries.quiet,
                    done=done,
                )
        except KeyboardInterrupt:
            console.print(
                f"stopped after {kept + finished} of {len(cells.all)} measurements; the same command goes on from there"
            )
            return True
        except importlib.import_module("gauntlet_jax.lab.cells").NoCluster as error:
            raise UsageError(one_line(error)) from error
    return False


def _tell(findings: Any, console: Console) -> None:
    as_text = importlib.import_module("gauntlet_jax.lab.tables").as_text
    for table in findings.tables:
        console.print(as_text(table), markup=False, soft_wrap=True)
        console.print()
    for claim in findings.claims:
        console.print("yes  " if claim.holds else "no   ", style="green" if claim.holds else "red", end="")
        console.print(claim.text, markup=False, soft_wrap=True)
    console.print(importlib.import_module("gauntlet_jax.lab.report").INTERVALS, style="dim")


def _folder(name: str, flags: LabFlags) -> Path:
    if flags.out is not None:
        return flags.out
    return Path("runs/lab") / (f"{name}-full" if flags.full else name)


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"
