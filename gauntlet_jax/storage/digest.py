"""Digests: two nodes hold the same parameters exactly when these 64 characters are equal."""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from gauntlet_jax.storage.shards import Piece, dealt, fetch, holders


def array_bytes(array: np.ndarray) -> np.ndarray:
    """The bytes of an array in C order, little-endian, without a copy where it already lies so.

    Args:
      array: any shape, any fixed-size dtype (those of ``ml_dtypes`` too).

    Returns:
      ``uint8[array.nbytes]``.
    """
    swap = array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big")
    ordered = array.astype(array.dtype.newbyteorder("<")) if swap else array
    return np.ascontiguousarray(ordered).reshape(-1).view(np.uint8)


def framed_header(name: str, array: Any) -> bytes:
    """Name, dtype and shape as one line, so that no two different arrays hash the same stream of bytes."""
    return (
        json.dumps([name, np.dtype(array.dtype).name, list(array.shape)], separators=(",", ":")).encode()
        + b"\n"
    )


def leaf_name(path: Any) -> str:
    """The path of a leaf, as ``jax.tree_util`` gives it, in one word: ``layers/0/w``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree under their paths (``layers/0/w``), sorted by path.

    Raises:
      ValueError: a leaf is not an array, or two leaves have the same path.
    """
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = leaf_name(path)
        if name in named:
            raise ValueError(f"two leaves of the tree are called {name!r}")
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise ValueError(f"leaf {name!r} is a {type(leaf).__name__}, not an array")
        named[name] = leaf
    return dict(sorted(named.items()))


class ParamsDigest:
    """sha256 of a pytree: equal digests = equal to the bit, wherever its arrays lie.

    A digest of digests, over the sorted paths, dtypes and shapes and the sha256 of every leaf's bytes; of a leaf that is dealt out into
    parts, the sha256 of each part's, so that each host hashes what it holds and none the whole. The kind of container does not
    count (a dict and a dataclass with the same paths agree); NaN payloads and the sign of zero do.
    """

    def __init__(
        self,
        *,
        parts: int = 1,
        axes: Mapping[str, int | None] | None = None,
        exchanged: Callable[[Mapping[str, str]], Mapping[str, str]] = lambda own: own,
    ) -> None:
        """A digest that everybody who compares with it must have agreed on.

        Args:
          parts: that leaves are dealt out into.
          axes: along which, by the path of the leaf; None, or no entry, for a leaf that stays whole.
          exchanged: what this process found, by piece, to what all processes of the node found.
        """
        self._parts = parts
        self._axes = dict(axes or {})
        self._exchanged = exchanged

    def __call__(self, params: Any) -> str:
        """The digest, 64 hexadecimal characters.

        Raises:
          ValueError: a leaf is not an array, or two leaves have the same path.
        """
        leaves = named_leaves(params)
        keys = {
            name: [f"{name}#{part}" for part in range(1 if self._axes.get(name) is None else self._parts)]
            for name in leaves
        }
        own = {
            key: hashlib.sha256(array_bytes(fetch(leaf, piece)).data).hexdigest()
            for name, leaf in leaves.items()
            for part, key in enumerate(keys[name])
            if _is_here(leaf, piece := dealt(leaf.shape, self._axes.get(name), part, self._parts))
        }
        found = self._exchanged(own)
        running = hashlib.sha256()
        for name, leaf in leaves.items():
            running.update(framed_header(name, leaf))
            for key in keys[name]:
                running.update(bytes.fromhex(found[key]))
        return running.hexdigest()


def _is_here(leaf: Any, piece: Piece) -> bool:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return True
    return jax.process_index() in holders(leaf.sharding, leaf.shape, piece)


params_digest = ParamsDigest()
"""The digest of a pytree that is not dealt out and lies on one host."""
