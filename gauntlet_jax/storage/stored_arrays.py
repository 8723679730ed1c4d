"""Arrays as a few large objects under one key, read within the bounds of a schema.

All arrays of a part lie one after another in one zarr v3 array of bytes: one object costs a store about as much as another,
whatever its size. An array whose name ends in a number (``codes_3``) is of that part, and all others are of one without a number.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from gauntlet_jax.storage.bucket import Bucket, Object, ObjectTooLarge, ReadableBucket
from gauntlet_jax.storage.digest import array_bytes
from gauntlet_jax.storage.zarr_arrays import (
    ArraySpec,
    ChecksumMismatch,
    Schema,
    decode,
    encode,
    expected_sizes,
    metadata,
    schema_of,
)

_PAYLOAD = "payload"
_PART = re.compile(r"[a-z]+_(\d{1,4})")


class MissingArtifact(Exception):
    """There is no artifact: no manifest, the commit marker."""


class MalformedArtifact(ValueError):
    """An artifact is not what the protocol asks for.

    Attributes:
      reason: one clause for a record; it repeats nothing that the sender wrote.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OutsideWindow(Exception):
    """An object of an artifact came outside of the put window; the rest was not read.

    Attributes:
      uploaded_at: when it came, the provider's time.
    """

    def __init__(self, uploaded_at: float) -> None:
        super().__init__("uploaded outside of the put window")
        self.uploaded_at = uploaded_at


def write_arrays(bucket: Bucket, key: str, arrays: Mapping[str, np.ndarray]) -> int:
    """Stores arrays as one payload under a key; returns the bytes written.

    Raises:
      ValueError: an array that no schema can ask for.
      OSError: the bucket cannot be written.
    """
    for name, spec in schema_of(arrays).items():
        metadata(name, spec)  # refuses what cannot be stored
    grouped: dict[str, list[np.ndarray]] = {}
    for name, array in sorted(arrays.items()):
        grouped.setdefault(payload_of(name), []).append(array_bytes(array))
    objects = encode({payload: np.concatenate(flat) for payload, flat in grouped.items()})
    for name, data in objects.items():
        bucket.put(f"{key}/{name}", data)
    return sum(map(len, objects.values()))


def read_arrays(bucket: ReadableBucket, key: str, schema: Schema) -> dict[str, np.ndarray]:
    """Reads what ``write_arrays`` stored, within the bounds of a schema.

    Raises:
      MissingArtifact: nothing is there.
      MalformedArtifact: it is not what the schema asks for.
      OSError: the provider failed.
    """
    if any(bucket.head(f"{key}/{payload}/zarr.json") is None for payload in payload_schema(schema)):
        raise MissingArtifact
    return read_payloads(bucket, key, schema, None)[0]


def read_payloads(
    bucket: ReadableBucket, key: str, schema: Schema, window: tuple[float, float] | None
) -> tuple[dict[str, np.ndarray], list[Object]]:
    """The arrays of a schema, and the objects that they came from; errors as ``artifact.read_artifact``."""
    payloads = payload_schema(schema)
    objects: dict[str, Object] = {}
    for name, size in expected_sizes(payloads).items():
        try:
            found = get_bounded(bucket, f"{key}/{name}", name, size)
        except FileNotFoundError as error:
            raise MalformedArtifact(f"{name} is missing") from error
        check_time(found, window)
        if len(found.data) != size:
            raise MalformedArtifact(f"{name} has {len(found.data)} bytes, {size} expected")
        # The first of an array's objects, before any of its content is asked for.
        payload, _, rest = name.partition("/")
        if rest == "zarr.json" and found.data != metadata(payload, payloads[payload]):
            raise MalformedArtifact(f"{name} describes another array")
        objects[name] = found
    try:
        flat = decode({name: found.data for name, found in objects.items()}, payloads)
    except ChecksumMismatch as error:
        raise MalformedArtifact(str(error)) from error
    return _split(flat, schema), list(objects.values())


def payload_of(name: str) -> str:
    """The object that holds an array: one for each part of an artifact (``codes_3``), and one for what is in no part."""
    part = _PART.fullmatch(name)
    return _PAYLOAD if part is None else f"{_PAYLOAD}_{part[1]}"


def payload_schema(schema: Schema) -> Schema:
    """One array of all the bytes for each part."""
    sizes: dict[str, int] = {}
    for name, spec in schema.items():
        payload = payload_of(name)
        sizes[payload] = sizes.get(payload, 0) + math.prod(spec.shape) * spec.dtype.itemsize
    return {payload: ArraySpec((nbytes,), np.dtype(np.uint8)) for payload, nbytes in sizes.items()}


def _split(payloads: Mapping[str, np.ndarray], schema: Schema) -> dict[str, np.ndarray]:
    arrays, ends = {}, dict.fromkeys(payloads, 0)
    for name, spec in sorted(schema.items()):
        payload = payload_of(name)
        at = ends[payload]
        end = ends[payload] = at + math.prod(spec.shape) * spec.dtype.itemsize
        # A copy, so that every array is aligned and none keeps the others alive.
        part = payloads[payload][at:end].copy().view(spec.dtype.newbyteorder("<")).reshape(spec.shape)
        arrays[name] = part.astype(spec.dtype, copy=False)
    return arrays


def get_bounded(bucket: ReadableBucket, key: str, name: str, max_bytes: int) -> Object:
    """An object of an artifact; one that is too large is malformed."""
    try:
        return bucket.get(key, max_bytes=max_bytes)
    except ObjectTooLarge as error:
        raise MalformedArtifact(f"{name} has more than {max_bytes} bytes") from error


def check_time(found: Object, window: tuple[float, float] | None) -> None:
    """Raises OutsideWindow for what came too early or too late."""
    if window is not None and not window[0] <= found.head.last_modified < window[1]:
        raise OutsideWindow(found.head.last_modified)
