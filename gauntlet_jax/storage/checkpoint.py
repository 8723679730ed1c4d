"""Checkpoints: arrays and plain state by round, so that a stopped run goes on to the bit.

Written by orbax in the background, sealed, and renamed into place when complete. A checkpoint counts as good
only if its seal holds, which is seen before a byte of it is interpreted, and the arrays have the digest that
stands in its state.
"""

import errno
import logging
import math
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import LatestN
from orbax.checkpoint.options import AsyncOptions

from gauntlet_jax.storage.digest import named_leaves, params_digest
from gauntlet_jax.storage.failures import storage_failure
from gauntlet_jax.storage.seal import BrokenSeal, check_seal, write_seal

_ROOM = 2**20  # for what a checkpoint holds beside its arrays
_FORMAT = 1
_ITEMS = ("arrays", "state")


class CorruptCheckpoint(ValueError):
    """No checkpoint of a folder can be read back as it was saved."""


class CheckpointMismatch(ValueError):
    """A checkpoint is sound, but of other arrays than the caller's."""


class Checkpoints:
    """The checkpoints of one run in one folder.

    Attributes:
      skipped: one line for each corrupt checkpoint that ``restore_newest`` passed over.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Opens a folder, creating it if need be, and clears away what an interrupted save left behind.

        Args:
          folder: where the checkpoints are.
          keep: how many of the newest are kept, at least 1; with 2 or more a corrupt one has one before it.

        Raises:
          ValueError: ``keep`` is below 1.
          OSError: the folder cannot be created or read.
        """
        if keep < 1:
            raise ValueError(f"keep={keep}: at least 1 checkpoint must be kept")
        self.skipped: list[str] = []
        self._folder = folder.resolve()
        self._corrupt: list[int] = []
        self._saving: int | None = None
        self._logger = logging.getLogger("absl")
        self._logger.addFilter(_not_from_orbax)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=LatestN(keep),
            create=False,
            cleanup_tmp_directories=True,
            async_options=AsyncOptions(post_finalization_callback=self._seal),
        )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(self._folder, options=options, item_names=_ITEMS)
        except OSError as error:
            self._logger.removeFilter(_not_from_orbax)
            raise storage_failure(error, f"checkpoint folder {folder} cannot be opened") from error

    def save(self, round: int, arrays: Any, state: dict[str, Any]) -> None:
        """Saves a checkpoint; the arrays may be donated or overwritten as soon as this returns.

        Writing goes on in the background; its failure shows in the next call, ``close`` at the latest.

        Args:
          round: rounds that are complete; larger than that of any sound checkpoint here.
          arrays: a pytree of jax or numpy arrays (PRNG keys as their ``key_data``).
          state: anything that JSON gives back as it was: no tuples, no keys but strings, no NaN.

        Raises:
          ValueError: a round that is not newer, or a state that JSON does not give back.
          OSError: this or the checkpoint before could not be written; the older ones are untouched.
        """
        self.wait()
        for corrupt in self._corrupt:
            shutil.rmtree(self._folder / str(corrupt), ignore_errors=True)
        if self._corrupt:
            self._manager.reload()
            self._corrupt = []
        newest = self._manager.latest_step()
        if round < 0 or (newest is not None and round <= newest):
            raise ValueError(f"checkpoint of round {round}: there is one of round {newest} in {self._folder}")
        document = {
            "format": _FORMAT,
            "round": round,
            "params_digest": _digest(arrays),
            "layout": _layout(arrays),
            "state": _plain(state),
        }
        # A disk that fills up under orbax fails in its threads, with hundreds of lines: look beforehand.
        needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) + _ROOM
        if shutil.disk_usage(self._folder).free < needed:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise storage_failure(full, f"checkpoint of round {round} needs {needed} bytes in {self._folder}")
        self._saving = round
        try:
            self._manager.save(
                round,
                args=ocp.args.Composite(
                    arrays=ocp.args.StandardSave(arrays), state=ocp.args.JsonSave(document)
                ),
                force=True,
            )
        except (OSError, ValueError) as error:
            self._fail(error)

    def restore_newest(self, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Restores the newest checkpoint that is sound.

        Args:
          like: a pytree of arrays or ``jax.ShapeDtypeStruct`` with the shapes, dtypes and
            shardings to restore to.

        Returns:
          ``(round, arrays, state)``, or None if the folder has no checkpoint at all.

        Raises:
          CorruptCheckpoint: there are checkpoints, and every one is corrupt.
          CheckpointMismatch: the newest sound one is of other arrays than ``like``.
          OSError: a save that was under way failed.
        """
        self.wait()
        rounds = sorted(self._manager.all_steps(), reverse=True)
        if not rounds:
            return None
        reasons: list[tuple[int, str]] = []
        for round in rounds:
            try:
                arrays, state = self._restore(round, like)
            except BrokenSeal as error:
                reasons.append((round, str(error)))
                continue
            self._corrupt = [corrupt for corrupt, _ in reasons]
            self.skipped += [
                f"checkpoint of round {corrupt} is corrupt ({reason}): using the one of round {round}"
                for corrupt, reason in reasons
            ]
            return round, arrays, state
        told = "; ".join(f"round {corrupt}: {reason}" for corrupt, reason in reasons)
        raise CorruptCheckpoint(
            f"every checkpoint in {self._folder} is corrupt ({told}): remove the folder to start from round 0"
        )

    def newest(self) -> int | None:
        """Rounds that are complete in the newest checkpoint; None without one."""
        return self._manager.latest_step()

    def wait(self) -> None:
        """Waits until the save that is under way is on disk.

        Raises:
          OSError: it could not be written.
        """
        if self._saving is None:
            return
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            self._fail(error)
        self._saving = None

    def close(self) -> None:
        """Waits for the save under way and lets go of the folder.

        Raises:
          OSError: the save could not be written.
        """
        try:
            self.wait()
        finally:
            self._manager.close()
            self._logger.removeFilter(_not_from_orbax)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _seal(self) -> None:
        """Called in orbax's thread when all is written, before the folder gets its name and older ones go."""
        (written,) = self._folder.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        write_seal(written, _ITEMS)

    def _fail(self, error: Exception) -> None:
        round, self._saving = self._saving, None
        for half_written in (*self._folder.glob(f"{round}.orbax-checkpoint-tmp*"), self._folder / str(round)):
            shutil.rmtree(half_written, ignore_errors=True)
        self._manager.reload()
        raise storage_failure(
            error, f"checkpoint of round {round} in {self._folder} cannot be written"
        ) from error

    def _restore(self, round: int, like: Any) -> tuple[Any, dict[str, Any]]:
        check_seal(self._folder / str(round), _ITEMS)
        read_state = ocp.args.Composite(state=ocp.args.JsonRestore())
        document = self._manager.restore(round, args=read_state)["state"]
        if document["format"] != _FORMAT or document["round"] != round:
            raise BrokenSeal(f"it is one of round {document['round']}, in format {document['format']}")
        _check_layout(round, document["layout"], _layout(like))
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        read_arrays = ocp.args.Composite(arrays=ocp.args.StandardRestore(abstract))
        arrays = self._manager.restore(round, args=read_arrays)["arrays"]
        if document["params_digest"] is not None and _digest(arrays) not in (None, document["params_digest"]):
            raise BrokenSeal("its arrays are not the ones that were saved")
        return arrays, document["state"]


def _digest(arrays: Any) -> str | None:
    """Of arrays that lie on one host; on several, the seal alone must do."""
    here = all(getattr(leaf, "is_fully_addressable", True) for leaf in jax.tree.leaves(arrays))
    return params_digest(arrays) if here else None


def _not_from_orbax(record: logging.LogRecord) -> bool:
    """Drops orbax's log: whatever matters in it is raised to the caller, as one line."""
    return "/orbax/" not in record.pathname.replace("\\", "/")


def _layout(tree: Any) -> dict[str, list]:
    return {name: [np.dtype(leaf.dtype).name, list(leaf.shape)] for name, leaf in named_leaves(tree).items()}


def _check_layout(round: int, saved: dict[str, list], wanted: dict[str, list]) -> None:
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            there, here = (
                f"{side[name][0]}{side[name][1]}" if name in side else "nothing" for side in (saved, wanted)
            )
            raise CheckpointMismatch(
                f"checkpoint of round {round} is of another model: {name} is {there} there and {here} here"
            )


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    if not _survives_json(state):
        raise ValueError(
            "checkpoint state: JSON has no tuples, keys other than strings, or numbers that are not finite"
        )
    return state


def _survives_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and _survives_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_survives_json, value))
    return value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))
