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


class _Chunking(NamedTuple):
    shape: tuple[int, ...]
    count: int
    nbytes: int


def _chunking(spec: ArraySpec) -> _Chunking:
    row = math.prod(spec.shape[1:]) * spec.dtype.itemsize
    rows = max(1, min(spec.shape[0], CHUNK_BYTES // row))
    return _Chunking((rows, *spec.shape[1:]), -(-spec.shape[0] // rows), rows * row)


def _check_spec(name: str, spec: ArraySpec) -> None:
    if _ARRAY_NAME.fullmatch(name) is None:
        raise ValueError(f"array name {name!r}: expected lower-case letters, digits and _, at most 32")
    if not spec.shape or min(spec.shape) < 1 or spec.dtype.name not in _DTYPES:
        raise ValueError(
            f"array {name}: {spec.dtype}{list(spec.shape)} cannot be stored; "
            "it needs a dimension, none empty, and a plain integer or float dtype"
        )


def expected_sizes(schema: Schema) -> dict[str, int]:
    """Every object that arrays of a schema are stored as: its key, and its size in bytes.

    Raises:
      ValueError: an array that cannot be stored.
    """
    sizes: dict[str, int] = {}
    for name, spec in schema.items():
        sizes[f"{name}/zarr.json"] = len(metadata(name, spec))
        chunking = _chunking(spec)
        for index in range(chunking.count):
            sizes[f"{name}/{_chunk_key(index, spec)}"] = chunking.nbytes + _CRC32C_BYTES
    return sizes


def _chunk_key(index: int, spec: ArraySpec) -> str:
    return "/".join(["c", str(index), *["0"] * (len(spec.shape) - 1)])


def metadata(name: str, spec: ArraySpec) -> bytes:
    """The one ``zarr.json`` that this version writes, and accepts, for an array."""
    _check_spec(name, spec)
    return _metadata(name, spec, _chunking(spec).shape)


@functools.lru_cache(maxsize=1024)  # the same few arrays, every peer and round
def _metadata(name: str, spec: ArraySpec, chunk_shape: tuple[int, ...]) -> bytes:
    byte_order = {"configuration": {"endian": "little"}} if spec.dtype.itemsize > 1 else {}
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": spec.shape,
        "data_type": spec.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", **byte_order}, {"name": "crc32c"}],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _open_in(scratch: ts.KvStore, names: Mapping[str, ArraySpec]) -> dict[str, Any]:
    """Opens arrays whose ``zarr.json`` (ours) lies in a key-value store, all at once."""
    for name, spec in names.items():
        scratch.write(f"{name}/zarr.json", metadata(name, spec)).result()
    # An array of zeros has its chunks written like any other, and a missing chunk is an error, not zeros.
    spec = {"driver": "zarr3", "store_data_equal_to_fill_value": True, "fill_missing_data_reads": False}
    opening = {name: ts.open(spec, kvstore=scratch / f"{name}/", open=True) for name in names}
    return {name: future.result() for name, future in opening.items()}


def _scratch() -> ts.KvStore:
    return ts.KvStore.open({"driver": "memory"}, context=ts.Context()).result()


def encode(arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The objects that store some arrays, by key.

    Raises:
      ValueError: an array that cannot be stored.
    """
    scratch = _scratch()
    schema = schema_of(arrays)
    stores = _open_in(scratch, schema)
    for future in [store.write(arrays[name]) for name, store in stores.items()]:
        future.result()
    reading = {name: scratch.read(name) for name in expected_sizes(schema)}
    return {name: future.result().value for name, future in reading.items()}


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
