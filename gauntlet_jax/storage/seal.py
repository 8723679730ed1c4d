"""A seal on folders: the sha256 of every file in them, written last."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

SEAL = "SEAL.json"


class BrokenSeal(ValueError):
    """Something is not as it was when it was sealed; the text is one clause."""


def write_seal(folder: Path, parts: Iterable[str]) -> None:
    """Seals some folders in a folder as they are now.

    Raises:
      OSError: the seal cannot be written.
    """
    with (folder / SEAL).open("w", encoding="utf-8") as file:
        json.dump(_digests(folder, parts), file, sort_keys=True, indent=1)
        file.flush()
        os.fsync(file.fileno())


def check_seal(folder: Path, parts: Iterable[str]) -> None:
    """Compares sealed folders with their seal, without a look at what their files mean.

    Raises:
      BrokenSeal: a file was altered, removed or put in, or there is no readable seal.
      OSError: the folder cannot be read.
    """
    try:
        sealed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BrokenSeal("its seal is missing: it was never completed") from error
    except (ValueError, RecursionError) as error:
        raise BrokenSeal("its seal is unreadable") from error
    found = _digests(folder, parts)
    if not isinstance(sealed, dict):
        raise BrokenSeal("its seal is unreadable")
    for name in sorted(sealed.keys() | found.keys()):
        if name not in found:
            raise BrokenSeal(f"{name} is missing")
        if name not in sealed:
            raise BrokenSeal(f"{name} does not belong to it")
        if sealed[name] != found[name]:
            raise BrokenSeal(f"{name} was altered")


def _digests(folder: Path, parts: Iterable[str]) -> dict[str, str]:
    digests: dict[str, str] = {}
    for path in sorted(path for part in parts for path in (folder / part).rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests
