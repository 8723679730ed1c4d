"""Digests: two nodes hold the same parameters exactly when these 64 characters are equal."""

import hashlib
import json
import sys
from typing import Any

import jax
import numpy as np


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


def framed_header(name: str, array: np.ndarray) -> bytes:
    """Name, dtype and shape as one line, so that no two different arrays hash the same stream of bytes."""
    return json.dumps([name, array.dtype.name, list(array.shape)], separators=(",", ":")).encode() + b"\n"


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a pytree under their paths (``layers/0/w``), sorted by path.

    Raises:
      ValueError: a leaf is not an array, or two leaves have the same path.
    """
    named: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named:
            raise ValueError(f"two leaves of the tree are called {name!r}")
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise ValueError(f"leaf {name!r} is a {type(leaf).__name__}, not an array")
        named[name] = leaf
    return dict(sorted(named.items()))


def params_digest(params: Any) -> str:
    """sha256 over the sorted paths, dtypes, shapes and bytes of a pytree: equal digests = equal to the bit.

    The kind of container does not count (a dict and a dataclass with the same paths agree); NaN payloads and
    the sign of zero do.

    Args:
      params: a pytree of arrays, fetched from the devices in one go.

    Returns:
      64 hexadecimal characters.

    Raises:
      ValueError: a leaf is not an array, or two leaves have the same path.
    """
    running = hashlib.sha256()
    for name, leaf in jax.device_get(named_leaves(params)).items():
        array = np.asarray(leaf)
        running.update(framed_header(name, array))
        running.update(array_bytes(array).data)
    return running.hexdigest()
