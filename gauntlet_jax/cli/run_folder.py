"""A run folder: what lies where in it, and the rules that keep one run from spoiling another.

The folder of a run (default ``runs/<config name>``) holds ``config.json``, ``rounds.jsonl`` (a record a
round), ``summary.json`` (its presence says that the run is finished), ``report.html``, ``ledger.sqlite``,
``store/`` and ``checkpoints/``. Nothing else in a folder is ever removed, and a folder that is not a run's
is left alone whatever the flags.
"""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from gauntlet_jax.nodes import record

CONFIG = "config.json"
ROUNDS = "rounds.jsonl"
SUMMARY = "summary.json"
REPORT = "report.html"
LEDGER = "ledger.sqlite"
STORE = "store"
CHECKPOINTS = "checkpoints"
_LEDGER_PARTS = tuple(LEDGER + suffix for suffix in ("", "-wal", "-shm", "-journal"))
_ASIDE = ".replaced"  # where a run waits while its successor is being built
_OURS = (CONFIG, ROUNDS, SUMMARY, REPORT, *_LEDGER_PARTS, STORE, CHECKPOINTS)
_MARKS = (
    "name",
    "seed",
    "rounds",
)  # what a config.json of ours always has; other tools write that file name too


class UsageError(ValueError):
    """Something that the user can mend: its text is the line printed before exit code 2."""


@dataclasses.dataclass(frozen=True)
class Opening:
    """What is to be done with a folder before a run.

    Attributes:
      action: "start" in an empty or new folder, "replace" the run that is there, "resume" it.
      note: a line for the user, or "".
    """

    action: Literal["start", "replace", "resume"]
    note: str


def open_for_run(folder: Path, config: str, *, resume: bool, overwrite: bool) -> Opening:
    """Judges whether a run may use a folder; reads only.

    Args:
      folder: the run folder; it need not exist.
      config: the run's configuration as JSON, as ``config.json`` would hold it.
      resume: continue the run that is there.
      overwrite: replace the run that is there, finished or not, whatever its configuration.

    Returns:
      What to do.

    Raises:
      UsageError: it may not, and why, and the way out.
    """
    if resume and overwrite:
        raise UsageError("--resume keeps what is there and --overwrite removes it: give one of them")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder: give another --out")
    names = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    if not names:
        if resume:
            raise UsageError(f"nothing to resume: {folder} holds no run; leave --resume out to start one")
        return Opening("start", "")
    there = _stored_config(folder)
    if there is None:
        raise UsageError(
            f"{folder} is not empty and holds no run of gauntlet: nothing was touched; give another --out"
        )
    if overwrite:
        return Opening("replace", f"replacing the run in {folder}")
    differing = differences(there, json.loads(config))
    if differing:
        named = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
        raise UsageError(
            f"{folder} holds another config's run, which differs in {named}: "
            "give another --out, or --overwrite"
        )
    if resume:
        return Opening("resume", "")
    if SUMMARY in names:
        return Opening(
            "replace", f"replacing the finished run of the same config in {folder} (--resume would keep it)"
        )
    raise UsageError(
        f"{folder} holds an unfinished run of this config: continue it with --resume, or --overwrite it"
    )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The fields in which two configurations differ, ``rounds`` apart, as ``name (a there, b here)``."""
    left, right = flat(there), flat(here)
    keys = [*left, *(key for key in right if key not in left)]
    found = [key for key in keys if key != "rounds" and left.get(key, "absent") != right.get(key, "absent")]
    return [
        f"{key} ({_short(left.get(key, 'absent'))} there, {_short(right.get(key, 'absent'))} here)"
        for key in found
    ]


@contextlib.contextmanager
def replaced(folder: Path, action: Literal["start", "replace", "resume"]) -> Iterator[None]:
    """Sets a run to be replaced aside while its successor is built: it comes back if building fails.

    A folder that was not there before is not there after a failure either.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    aside = folder / _ASIDE
    _recover(folder, aside)
    if action == "replace":
        aside.mkdir()
        _move(folder, aside)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        if action != "resume" and folder.exists():
            _remove(folder)
        if action == "replace":
            _move(aside, folder)
            aside.rmdir()
        for path in missing:
            with contextlib.suppress(OSError):  # not made after all, or somebody else's by now
                path.rmdir()
        raise
    if action == "replace":
        shutil.rmtree(aside)


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def keep_rounds(path: Path, rounds: int | None) -> list[record.RoundRecord]:
    """Cuts ``rounds.jsonl`` to its first ``rounds`` records, where a resumed run continues; None: to those that are sound.

    What follows them, a half-written line included, is dropped.

    Returns:
      The records kept.

    Raises:
      UsageError: there are fewer sound records than the checkpoint has rounds.
    """
    kept: list[record.RoundRecord] = []
    if rounds and not path.exists():
        raise UsageError(
            f"{path} is missing, but the checkpoint is at round {rounds}: --overwrite starts anew"
        )
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if len(kept) == rounds:
                    break
                try:
                    found = record.from_json(line)
                except ValueError:  # the line that a full disk or a kill cut short
                    break
                if rounds is None and found.round != len(kept):
                    break
                kept.append(found)
    if rounds is not None and [one.round for one in kept] != list(range(rounds)):
        raise UsageError(
            f"{path} has {len(kept)} sound records in order, but the checkpoint is at round {rounds}"
        )
    write_atomically(path, "".join(record.to_json(one) + "\n" for one in kept))
    return kept


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as ``report`` and ``explain`` read it.

    Attributes:
      folder: where it lies.
      config: ``config.json``.
      records: ``rounds.jsonl``, at least one.
      summary: ``summary.json``; None while the run is unfinished.
    """

    folder: Path
    config: Mapping[str, Any]
    records: tuple[record.RoundRecord, ...]
    summary: Mapping[str, Any] | None


def read_run(folder: Path) -> Run:
    """Reads a run folder, finished or not.

    Raises:
      UsageError: it is none, has no round yet, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: give the folder of a run (gauntlet simulate prints it)")
    config = _stored_config(folder)
    if config is None:
        raise UsageError(f"{folder} holds no run of gauntlet: no {CONFIG} of one is in it")
    rounds, summary = folder / ROUNDS, folder / SUMMARY
    try:
        records = tuple(record.read_records(rounds)) if rounds.exists() else ()
        summarized = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{folder} cannot be read: {one_line(error)}") from error
    if not records:
        raise UsageError(f"{folder} has no finished round yet")
    if summarized is not None and not (isinstance(summarized, dict) and summarized.get("schema") == 1):
        raise UsageError(f"{summary} is no summary of schema 1")
    return Run(folder, config, records, summarized)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that no space is left; SQLite and TensorStore say it in words, not by errno."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error) for words in ("No space left on device", "database or disk is full"))


def one_line(error: BaseException) -> str:
    """An error's text on one line; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _stored_config(folder: Path) -> Mapping[str, Any] | None:
    path = folder / CONFIG
    if not path.is_file():
        # A run that was set aside by a process that was killed before it built the next one.
        path = folder / _ASIDE / CONFIG
        if not path.is_file():
            return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return stored if isinstance(stored, dict) and all(mark in stored for mark in _MARKS) else None


def _recover(folder: Path, aside: Path) -> None:
    """Undoes what a process left that was killed while a run was set aside."""
    if not aside.is_dir():
        return
    if not (folder / CONFIG).exists():
        _remove(folder)
        _move(aside, folder)
    shutil.rmtree(aside)


def _remove(folder: Path) -> None:
    for name in _OURS:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    for name in _OURS:
        if (source / name).exists() or (source / name).is_symlink():
            (source / name).replace(target / name)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A tree of JSON as ``{"outer.inner.0": value}``; an empty list or object is a value."""
    if isinstance(tree, Mapping) and tree:
        pairs: Any = tree.items()
    elif isinstance(tree, list) and tree:
        pairs = enumerate(tree)
    else:
        return {prefix: tree}
    leaves: dict[str, Any] = {}
    for key, value in pairs:
        leaves |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 30 else text[:29] + "…"
