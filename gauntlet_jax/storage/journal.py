"""A journal: one JSON document in one file, replaced whole or not at all, whatever kills the process."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


class CorruptJournal(ValueError):
    """A journal's file is not one that was written here."""


def write_journal(path: Path, document: dict[str, Any]) -> None:
    """Replaces the journal; when this returns it is on the disk.

    Raises:
      OSError: it cannot be written; the one before is untouched.
    """
    body = json.dumps(document, sort_keys=True, allow_nan=False).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with staged.open("wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    # The new name, too: a power cut would otherwise bring the one before back.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_journal(path: Path) -> dict[str, Any] | None:
    """The document that was written last; None if there is none.

    Raises:
      CorruptJournal: the file was altered.
    """
    try:
        # As bytes: a file that no longer is text, or has other line ends, was altered like any other.
        digest, _, body = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise CorruptJournal(f"{path} is damaged: remove it, and the node starts from the run's records anew")
    return json.loads(body)
