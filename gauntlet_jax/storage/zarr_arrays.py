"""Named arrays as zarr v3 objects and back: bytes in, bytes out, through tensorstore.

There is exactly one way to store an array of a given shape and dtype (little-endian, no compression, each
chunk closed by its crc32c), so a reader knows every key, every size and every byte of the metadata before it
reads, and decodes by its own metadata: whoever wrote the objects chooses neither shape nor codec.
"""

import functools
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorstore as ts

CHUNK_BYTES = 16 * 1024 * 1024
"""Arrays up to this size are one chunk; larger ones are cut along their first axis."""

_CRC32C_BYTES = 4
_ARRAY_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_DTYPES = frozenset(f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)) - {
    "float8"
}


class ChecksumMismatch(ValueError):
    """A stored chunk does not have its crc32c."""


class ArraySpec(NamedTuple):
    """Shape and dtype that a receiver expects of an array; every dimension is at least 1."""

    shape: tuple[int, ...]
    dtype: np.dtype


Schema: TypeAlias = Mapping[str, ArraySpec]
"""What the receiver expects, made from its own model: never from what the sender says."""


def schema_of(arrays: Mapping[str, np.ndarray]) -> dict[str, ArraySpec]:
    """The schema that arrays of one's own follow."""
    return {name: ArraySpec(array.shape, array.dtype) for name, array in arrays.items()}


class _Layout(NamedTuple):
    """How an array is stored.

    Attributes:
      metadata: the whole of its ``zarr.json``.
      spec: the same, as tensorstore opens it.
      sizes: bytes of each of its chunks by key, in order.
    """

    metadata: bytes
    spec: ts.Spec
    sizes: Mapping[str, int]


def expected_sizes(schema: Schema) -> dict[str, int]:
    """Every object that arrays of a schema are stored as: its key, and its size in bytes.

    Raises:
      ValueError: an array that cannot be stored.
    """
    sizes: dict[str, int] = {}
    for name, spec in schema.items():
        layout = _layout(name, spec, CHUNK_BYTES)
        sizes[f"{name}/zarr.json"] = len(layout.metadata)
        sizes.update(layout.sizes)
    return sizes


def metadata(name: str, spec: ArraySpec) -> bytes:
    """The one ``zarr.json`` that this version writes, and accepts, for an array."""
    return _layout(name, spec, CHUNK_BYTES).metadata


@functools.lru_cache(maxsize=1024)  # the same few arrays, every peer and round
def _layout(name: str, spec: ArraySpec, chunk_bytes: int) -> _Layout:
    if _ARRAY_NAME.fullmatch(name) is None:
        raise ValueError(f"array name {name!r}: expected lower-case letters, digits and _, at most 32")
    if not spec.shape or min(spec.shape) < 1 or spec.dtype.name not in _DTYPES:
        raise ValueError(
            f"array {name}: {spec.dtype}{list(spec.shape)} cannot be stored; "
            "it needs a dimension, none empty, and a plain integer or float dtype"
        )
    row = math.prod(spec.shape[1:]) * spec.dtype.itemsize
    rows = max(1, min(spec.shape[0], chunk_bytes // row))
    byte_order = {"configuration": {"endian": "little"}} if spec.dtype.itemsize > 1 else {}
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": spec.shape,
        "data_type": spec.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": (rows, *spec.shape[1:])}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", **byte_order}, {"name": "crc32c"}],
    }
    # An array of zeros has its chunks written like any other, and a missing chunk is an error, not zeros.
    how = {"driver": "zarr3", "store_data_equal_to_fill_value": True, "fill_missing_data_reads": False}
    inner = ["0"] * (len(spec.shape) - 1)
    chunks = [f"{name}/{'/'.join(['c', str(index), *inner])}" for index in range(-(-spec.shape[0] // rows))]
    return _Layout(
        json.dumps(document, sort_keys=True, separators=(",", ":")).encode(),
        ts.Spec({**how, "metadata": document}),
        dict.fromkeys(chunks, rows * row + _CRC32C_BYTES),
    )


def _open_in(scratch: ts.KvStore, schema: Schema) -> dict[str, Any]:
    """Opens arrays by our own metadata, all at once; a ``zarr.json`` is neither read nor written."""
    opening = {
        name: ts.open(
            _layout(name, spec, CHUNK_BYTES).spec,
            kvstore=scratch / f"{name}/",
            open=True,
            assume_metadata=True,
        )
        for name, spec in schema.items()
    }
    return {name: future.result() for name, future in opening.items()}


def _scratch() -> ts.KvStore:
    return ts.KvStore.open({"driver": "memory"}, context=ts.Context()).result()


def encode(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The objects that store some arrays, by key.

    Raises:
      ValueError: an array that cannot be stored.
    """
    schema = schema_of(arrays)
    layouts = {name: _layout(name, spec, CHUNK_BYTES) for name, spec in schema.items()}
    scratch = _scratch()
    for future in [store.write(arrays[name]) for name, store in _open_in(scratch, schema).items()]:
        future.result()
    objects: dict[str, bytes] = {}
    for name, layout in layouts.items():
        objects[f"{name}/zarr.json"] = layout.metadata
        reading = {key: scratch.read(key) for key in layout.sizes}
        objects.update({key: future.result().value for key, future in reading.items()})
    return objects


def decode(objects: Mapping[str, bytes], schema: Schema) -> dict[str, np.ndarray]:
    """The arrays that some objects store.

    Args:
      objects: exactly the keys and sizes of ``expected_sizes(schema)``; their metadata is not looked at.
      schema: shape and dtype of each array.

    Raises:
      ChecksumMismatch: a chunk was altered.
    """
    scratch = _scratch()
    for future in [
        scratch.write(name, data) for name, data in objects.items() if not name.endswith("/zarr.json")
    ]:
        future.result()
    reading = {name: store.read() for name, store in _open_in(scratch, schema).items()}
    arrays: dict[str, np.ndarray] = {}
    for name, future in reading.items():
        try:
            arrays[name] = np.asarray(future.result())
        except ValueError as error:
            raise ChecksumMismatch(f"array {name} fails its checksum") from error
    return arrays
