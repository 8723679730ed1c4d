"""``gauntlet simulate CONFIG``: a whole run in one process, from the first round to the report.

Whatever a user can mend ends in one line and exit code 2. Ctrl-C lets the round in flight finish
(twice: drops it), checkpoints, and says how to go on.
"""

import importlib
import json
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console

from gauntlet_jax.cli import leaderboard, libraries, overrides, report, run_folder
from gauntlet_jax.cli.run_folder import UsageError
from gauntlet_jax.nodes.record import RoundRecord, to_json

USAGE = """usage: gauntlet simulate CONFIG [--out DIR] [--resume] [--overwrite] [--FIELD VALUE ...]

Trains a model with honest and cheating peers, scores them, pays them, and reports why.
CONFIG is a Python file with get_config(), such as configs/quickstart.py.

gauntlet simulate CONFIG --help explains every field of that config."""

INTERRUPTED = 130


class Runner(Protocol):
    """What a simulation offers to this command; ``nodes.simulation.Simulation`` is one."""

    rounds: int
    round: int

    def compile(self) -> None:
        """Compiles every step."""

    def run_round(self) -> RoundRecord:
        """One round, stored; returns its record."""
        ...

    def save_checkpoint(self) -> None:
        """Stores the state between rounds."""

    def restore(self) -> list[str]:
        """Goes to the newest sound checkpoint; returns warnings."""
        ...

    def summary(self, records: Sequence[RoundRecord], wall_seconds: float) -> dict[str, Any]:
        """The content of ``summary.json``."""
        ...

    def close(self) -> None:
        """Lets go of files."""


def run(arguments: Sequence[str]) -> int:
    """The command.

    Args:
      arguments: what follows ``gauntlet simulate``.

    Returns:
      0, or 130 after Ctrl-C.

    Raises:
      UsageError: anything that the user can mend.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        if arguments:
            return 0
        raise UsageError("simulate needs a CONFIG, such as configs/quickstart.py")
    path, *rest = arguments
    if path.startswith("-"):
        raise UsageError(f"the config comes first: gauntlet simulate CONFIG {' '.join(arguments)}")
    libraries.quiet()
    configs = importlib.import_module("gauntlet_jax.config")
    program = f"gauntlet simulate {path}"
    loaded = overrides.load_config(path, configs.Config)
    config, flags = overrides.apply_run_overrides(loaded, rest, program=program)
    folder = flags.out if flags.out is not None else _default_folder(config.name)
    console = Console(highlight=False)
    return simulate(
        config,
        folder,
        build=importlib.import_module("gauntlet_jax.build").build_simulation,
        serialize=configs.to_json,
        resume=flags.resume,
        overwrite=flags.overwrite,
        console=console,
        again=_command(program, rest, folder),
    )


def simulate(
    config: Any,
    folder: Path,
    *,
    build: Callable[[Any, Path], Runner],
    serialize: Callable[[Any], str],
    resume: bool,
    overwrite: bool,
    console: Console,
    again: str,
) -> int:
    """Runs a configuration into a folder.

    Args:
      config: the configuration; of its fields only ``checkpoint_every`` (rounds) is read here.
      folder: the run folder.
      build: ``(config, folder) -> simulation``.
      serialize: ``config -> JSON``, what ``config.json`` holds.
      resume: continue the run in the folder.
      overwrite: replace the run in the folder.
      console: where to show progress.
      again: the command line that continues this run, without ``--resume``.

    Returns:
      0, or 130 after Ctrl-C.

    Raises:
      UsageError: the folder may not be used, the config builds no simulation, or no space is left.
    """
    started = time.monotonic()
    text = serialize(config)
    with _judging(folder):
        opening = run_folder.open_for_run(folder, text, resume=resume, overwrite=overwrite)
        if opening.note:
            console.print(opening.note, markup=False, soft_wrap=True)
        with run_folder.replaced(folder, opening.action):
            simulation = build(config, folder)
            try:
                records = _prepare(simulation, folder, text, opening.action, console)
            except BaseException:
                simulation.close()
                raise
    # A checkpoint may still be on its way to the disk, so closing can find it full too.
    with _writing(folder, simulation, again), closing(simulation):
        if simulation.round < simulation.rounds:
            with console.status("compiling the training, encoding and evaluation steps"):
                simulation.compile()
            if _loop(simulation, folder, records, config.checkpoint_every, console):
                reached = f"stopped after {len(records)} of {simulation.rounds} rounds"
                console.print(f"{reached}; continue with: {again} --resume", markup=False, soft_wrap=True)
                return INTERRUPTED
        _finish(simulation, folder, records, time.monotonic() - started)
    console.print()
    console.print(leaderboard.plain_table(records), markup=False, soft_wrap=True)
    if len(records[-1].validators) > 1:
        console.print()
        console.print(leaderboard.validators_table(records), markup=False, soft_wrap=True)
    console.print()
    for line in _closing_lines(folder, records):
        console.print(line, markup=False, soft_wrap=True)
    return 0


def _prepare(simulation: Runner, folder: Path, text: str, action: str, console: Console) -> list[RoundRecord]:
    """The folder made ready, and the records of the rounds that an earlier process did."""
    records: list[RoundRecord] = []
    if action == "resume":
        for warning in simulation.restore():
            console.print(f"warning: {warning}", markup=False, soft_wrap=True)
        records = run_folder.keep_rounds(folder / run_folder.ROUNDS, simulation.round)
        if simulation.round >= simulation.rounds:
            done = f"already at round {simulation.round} of {simulation.rounds}: nothing to train"
            console.print(done, markup=False, soft_wrap=True)
        else:
            console.print(f"resuming after round {simulation.round} of {simulation.rounds}", markup=False)
            # A summary says that a run is finished, and this one no longer is.
            (folder / run_folder.SUMMARY).unlink(missing_ok=True)
    run_folder.write_atomically(folder / run_folder.CONFIG, text)
    return records


def _loop(
    simulation: Runner, folder: Path, records: list[RoundRecord], checkpoint_every: int, console: Console
) -> bool:
    """Rounds until the end; returns whether Ctrl-C came first."""
    with ExitStack() as stack:
        lines = stack.enter_context((folder / run_folder.ROUNDS).open("a", encoding="utf-8"))
        display = stack.enter_context(leaderboard.Display(console, simulation.rounds, len(records)))
        interruption = _Interruption(display.say)
        stack.enter_context(interruption.listening())
        saved = simulation.round
        while simulation.round < simulation.rounds and not interruption.asked:
            try:
                with interruption.running():
                    record = simulation.run_round()
            except KeyboardInterrupt:
                # The state may be half of a round on: a resumed run starts from the checkpoint before.
                display.say(f"round {len(records)} dropped; the newest checkpoint is after round {saved}")
                return True
            _append(lines, record)
            records.append(record)
            display.update(records)
            if simulation.round % checkpoint_every == 0:
                simulation.save_checkpoint()
                saved = simulation.round
        if saved != simulation.round:
            simulation.save_checkpoint()
        return simulation.round < simulation.rounds


def _append(lines: TextIO, record: RoundRecord) -> None:
    lines.write(to_json(record) + "\n")
    lines.flush()


def _finish(simulation: Runner, folder: Path, records: Sequence[RoundRecord], seconds: float) -> None:
    summary = simulation.summary(records, seconds)
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    run_folder.write_atomically(folder / run_folder.SUMMARY, text)
    run_folder.write_atomically(folder / run_folder.REPORT, report.render(run_folder.read_run(folder)))


def _closing_lines(folder: Path, records: Sequence[RoundRecord]) -> list[str]:
    reached = ", ".join(leaderboard.losses(records))
    lines = [f"held-out {reached} (nats per token)"] if reached else []
    return [
        *lines,
        f"run folder  {folder}",
        f"report      {folder / run_folder.REPORT}",
        f"why a peer got what it got: gauntlet explain {folder} --peer {records[0].peers[0].name}",
    ]


class _Interruption:
    """Ctrl-C (or a scheduler's SIGTERM) as a wish: the first lets the round finish, the second drops it.

    Only within ``running()`` does the second raise: a record or a checkpoint is written whole.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.asked = False
        self._say, self._in_round = say, False

    @contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals to the main thread alone
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handled in before.items():
                signal.signal(number, handled)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._in_round = True
        try:
            yield
        finally:
            self._in_round = False

    def _handle(self, number: int, frame: object) -> None:
        if not self.asked:
            self.asked = True
            self._say("stopping when this round is done (Ctrl-C again drops it)")
        elif self._in_round:
            raise KeyboardInterrupt


@contextmanager
def _judging(folder: Path) -> Iterator[None]:
    """Around the stages that judge what the user gave: their errors are the user's to mend."""
    try:
        yield
    except UsageError:
        raise
    except (ValueError, OSError) as error:
        if run_folder.is_disk_full(error):
            raise UsageError(
                f"no space left on device for {folder}: free some, or give another --out"
            ) from error
        raise UsageError(run_folder.one_line(error)) from error


@contextmanager
def _writing(folder: Path, simulation: Runner, again: str) -> Iterator[None]:
    """Around the rounds: what the disk refuses is one line; anything else keeps its traceback."""
    try:
        yield
    except Exception as error:
        if not (run_folder.is_disk_full(error) or isinstance(error, OSError)):
            raise
        what = "no space left on device" if run_folder.is_disk_full(error) else run_folder.one_line(error)
        where = f"{folder} after round {simulation.round}"
        raise UsageError(f"{what}, writing {where}; mend that and continue with: {again} --resume") from error


def _command(program: str, rest: Sequence[str], folder: Path) -> str:
    """The command line that goes on with a run: the same overrides, which make it the same config."""
    kept: list[str] = []
    skip = False
    for word in rest:
        if skip or word in ("--resume", "--overwrite"):
            skip = False
        elif word == "--out":
            skip = True
        elif not word.startswith("--out="):
            kept.append(word)
    return " ".join([program, *map(shlex.quote, kept), "--out", shlex.quote(str(folder))])


def _default_folder(name: str) -> Path:
    if Path(name).name != name:
        raise UsageError(f"the config's name {name!r} cannot name a folder: give --out, or --name")
    return Path("runs") / name
