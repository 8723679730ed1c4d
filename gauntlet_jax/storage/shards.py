"""Pieces of arrays that lie on several devices, perhaps of several hosts: who holds a piece, and its bytes.

A piece is a tuple of slices with bounds, one for each axis.
"""

import math
from typing import Any, TypeAlias

import jax
import numpy as np

Piece: TypeAlias = tuple[slice, ...]


def dealt(shape: tuple[int, ...], axis: int | None, part: int, parts: int) -> Piece:
    """The piece of an array that is its part, where it is dealt out along an axis; all of it where that is None."""
    piece = [slice(0, length) for length in shape]
    if axis is not None:
        each = shape[axis] // parts
        piece[axis] = slice(part * each, (part + 1) * each)
    return tuple(piece)


def holders(sharding: jax.sharding.Sharding, shape: tuple[int, ...], piece: Piece) -> set[int]:
    """The processes whose devices hold every entry of a piece."""
    held: dict[int, set[tuple[tuple[int, int], ...]]] = {}
    for device, index in sharding.devices_indices_map(shape).items():
        held.setdefault(device.process_index, set()).add(_common(index or (), piece, shape))
    wanted = math.prod(cut.stop - cut.start for cut in piece)
    return {
        process
        for process, parts in held.items()
        if sum(math.prod(high - low for low, high in part) for part in parts) == wanted
    }


def fetch(array: Any, piece: Piece) -> np.ndarray:
    """A piece of an array, every entry of which this process holds."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return np.asarray(array)[piece]
    fetched = np.empty([cut.stop - cut.start for cut in piece], array.dtype)
    for shard in array.addressable_shards:
        common = _common(shard.index, piece, array.shape)
        if all(low < high for low, high in common):
            first = [cut.indices(length)[0] for cut, length in zip(shard.index, array.shape, strict=True)]
            source = tuple(slice(low - at, high - at) for (low, high), at in zip(common, first, strict=True))
            target = tuple(
                slice(low - cut.start, high - cut.start)
                for (low, high), cut in zip(common, piece, strict=True)
            )
            fetched[target] = np.asarray(shard.data)[source]
    return fetched


def _common(index: tuple[slice, ...], piece: Piece, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """What two pieces of an array have in common, as bounds along each axis; nothing where low == high."""
    bounds = []
    for cut, wanted, length in zip(index, piece, shape, strict=True):
        start, stop, _ = cut.indices(length)
        low = max(start, wanted.start)
        bounds.append((low, max(low, min(stop, wanted.stop))))
    return tuple(bounds)
