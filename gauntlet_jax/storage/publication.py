"""What validators publish beside their records: the signed update at one bit a parameter, and checkpoints.

Both are for nodes that join, come back, or round otherwise than the others. Nothing in them is trusted: an update is known by
its sha256, a checkpoint by the digest of the parameters that it becomes, and both stand in final records.
"""

import hashlib
import math
from typing import Any

import jax
import numpy as np

from gauntlet_jax.storage.artifact import MalformedArtifact, read_arrays, write_arrays
from gauntlet_jax.storage.bucket import Bucket, ReadableBucket
from gauntlet_jax.storage.zarr_arrays import ArraySpec, Schema


def update_key(round: int) -> str:
    """Where a validator publishes the signed update of a round."""
    return f"updates/{round:08d}"


def copy_key(round: int, peer: str) -> str:
    """Where a validator keeps a copy of an artifact that its record aggregates."""
    return f"copies/{round:08d}/{peer}"


def checkpoint_key(round: int) -> str:
    """Where a validator publishes theta of a round's beginning."""
    return f"checkpoints/{round:08d}"


def signs_of(update: Any) -> np.ndarray:
    """A signed update as one row, int8[parameters], in the order of ``jax.tree.leaves``.

    Raises:
      ValueError: an entry is not -1, 0 or +1.
    """
    leaves = jax.device_get(jax.tree.leaves(update))
    flat = np.concatenate([np.asarray(leaf).reshape(-1) for leaf in leaves])
    if not ((flat == 0) | (np.abs(flat) == 1)).all():
        raise ValueError("an update that is not made of signs cannot be published at one bit a parameter")
    return flat.astype(np.int8)


def write_update(bucket: Bucket, round: int, signs: np.ndarray) -> tuple[int, str]:
    """Publishes an update.

    One plane of bits says what is +1. Where an entry is 0, which the sign of a sum of floats hardly ever is, a second plane
    says what is not.

    Args:
      bucket: the validator's own.
      round: t.
      signs: int8[parameters] of -1, 0 and +1, as ``signs_of`` gives them.

    Returns:
      How many planes there are, and the sha256 of their bytes.

    Raises:
      ValueError: an entry is something else.
      OSError: the bucket cannot be written.
    """
    if signs.dtype != np.int8 or not -1 <= signs.min() <= signs.max() <= 1:
        raise ValueError("an update is published as int8 numbers of -1, 0 and +1")
    planes = [np.packbits(signs > 0)]
    if not signs.all():
        planes.append(np.packbits(signs != 0))
    stacked = np.stack(planes)
    write_arrays(bucket, update_key(round), {"planes": stacked})
    return len(planes), hashlib.sha256(stacked.data).hexdigest()


def read_update(
    bucket: ReadableBucket, round: int, *, parameters: int, planes: int, sha256: str
) -> np.ndarray:
    """Reads a published update.

    Args:
      bucket: a validator's.
      round: t.
      parameters: numbers of the model.
      planes: 1 or 2, as the record says.
      sha256: of the planes' bytes, as the record says.

    Returns:
      int8[parameters] of -1, 0 and +1.

    Raises:
      MissingArtifact, MalformedArtifact: it is not there, or another one.
      OSError: the provider failed.
    """
    schema: Schema = {"planes": ArraySpec((planes, math.ceil(parameters / 8)), np.dtype(np.uint8))}
    stacked = read_arrays(bucket, update_key(round), schema)["planes"]
    if hashlib.sha256(np.ascontiguousarray(stacked).data).hexdigest() != sha256:
        raise MalformedArtifact("the update is not the one of the record")
    bits = np.unpackbits(stacked, axis=1, count=parameters).astype(np.int8)
    signs = 2 * bits[0] - 1
    return signs * bits[1] if planes == 2 else signs


def write_checkpoint(bucket: Bucket, round: int, flat: np.ndarray) -> None:
    """Publishes theta of a round's beginning, float32[parameters] in the order of ``jax.tree.leaves``.

    Raises:
      ValueError: it is of another dtype or shape.
      OSError: the bucket cannot be written.
    """
    if flat.dtype != np.float32 or flat.ndim != 1:
        raise ValueError(f"a checkpoint is one row of float32 numbers, not {flat.dtype}{list(flat.shape)}")
    write_arrays(bucket, checkpoint_key(round), {"params": flat})


def read_checkpoint(bucket: ReadableBucket, round: int, parameters: int) -> np.ndarray:
    """Reads a published checkpoint, float32[parameters]; what it is worth its digest tells.

    Raises:
      MissingArtifact, MalformedArtifact: it is not there, not of this model, or not finite.
      OSError: the provider failed.
    """
    schema: Schema = {"params": ArraySpec((parameters,), np.dtype(np.float32))}
    flat = read_arrays(bucket, checkpoint_key(round), schema)["params"]
    if not np.isfinite(flat).all():
        raise MalformedArtifact("the checkpoint holds a number that is not finite")
    return flat
