"""Artifacts: what a peer uploads in a round, and how a stranger's is read without trusting a byte of it.

An artifact is one zarr v3 array of bytes, all arrays of a pseudo-gradient one after another, and a signed manifest::

    KEY/payload/zarr.json   KEY/payload/c/0   KEY/manifest.json

(one object costs a store about as much as another, whatever its size). The manifest is written last: it is the commit
marker, and it holds the sha256 of each array.

The reader knows from its own model what every object must be: its key, its size to the byte and the whole of ``zarr.json``.
It compares, and decodes by its *own* metadata: a sender chooses neither shape nor codec, so nothing of its choosing is ever
allocated or decompressed. Time and content come from the same answer of the provider.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.bucket import Bucket, Object, ObjectTooLarge, ReadableBucket
from gauntlet_jax.storage.digest import array_bytes, framed_header
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.signed_json import BadDocument
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

__all__ = [
    "MAX_MANIFEST_BYTES",
    "PROBE",
    "PROTOCOL",
    "ArraySpec",
    "MalformedArtifact",
    "Manifest",
    "MissingArtifact",
    "OutsideWindow",
    "Received",
    "Schema",
    "array_digests",
    "last_change",
    "manifest_key",
    "payload_digest",
    "read_arrays",
    "read_artifact",
    "schema_of",
    "write_arrays",
    "write_artifact",
    "write_copy",
]

PROTOCOL = 3
"""Version of the artifact's format, apart from the package's; another one is refused."""

MAX_MANIFEST_BYTES = 64 * 1024
PROBE = "probe"
"""The array that differs for every peer by design and so does not count for duplicates."""

_DOMAIN = "manifest"
_PAYLOAD = "payload"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SALT = re.compile(r"([0-9a-f]{64})?")


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


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The sender's claims about its artifact.

    Attributes:
      run: name of the run.
      round: t, from 0.
      peer: who sends it.
      declared: sequences of its assigned stream that it says it trained on, at least 1.
      protocol: version of the format, ``PROTOCOL``.
      arrays: sha256 (hex) of each array's bytes in C order, little-endian, by name.
      salt: 64 hexadecimal characters that open its commit, or "" where commit-reveal is off.
    """

    run: str
    round: int
    peer: str
    declared: int
    protocol: int
    arrays: Mapping[str, str]
    salt: str


class Received(NamedTuple):
    """A stranger's artifact that is what it must be.

    Attributes:
      arrays: by name, floats all finite.
      manifest: its sender's claims.
      uploaded_at: the latest time over its objects, the provider's: to replace one later is to be late.
      document: its manifest as it was signed.
      bytes: the sum of its objects.
    """

    arrays: dict[str, np.ndarray]
    manifest: Manifest
    uploaded_at: float
    document: bytes
    bytes: int


def manifest_key(key: str) -> str:
    """Key of the manifest of the artifact at ``key``."""
    return f"{key}/manifest.json"


def array_digests(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """sha256 (hex) of each array's bytes, for the manifest."""
    return {
        name: hashlib.sha256(array_bytes(array).data).hexdigest() for name, array in sorted(arrays.items())
    }


def payload_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, dtypes, shapes and bytes of the pseudo-gradient's arrays, the probe left out.

    Two artifacts of equal digest are duplicates, whoever sent them.

    Args:
      arrays: the artifact's arrays by name, in any order.

    Returns:
      64 hexadecimal characters.
    """
    running = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        if name != PROBE:
            running.update(framed_header(name, array))
            running.update(array_bytes(array).data)
    return running.hexdigest()


def write_artifact(
    bucket: Bucket, key: str, arrays: Mapping[str, np.ndarray], manifest: Manifest, identity: Identity
) -> int:
    """Uploads an artifact, the manifest last.

    Args:
      bucket: the peer's own.
      key: common key of its objects.
      arrays: at least one dimension each, of a plain integer or float dtype.
      manifest: with ``array_digests(arrays)``.
      identity: the peer's, which signs the manifest.

    Returns:
      Bytes written over all its objects.

    Raises:
      ValueError: an array that no schema can ask for, or a manifest about other arrays.
      OSError: the bucket cannot be written; without its manifest the artifact does not exist.
    """
    if set(manifest.arrays) != set(arrays):
        raise ValueError(
            f"artifact {key}: the manifest lists {sorted(manifest.arrays)}, not {sorted(arrays)}"
        )
    document = signed_json.sign(identity, _DOMAIN, {**vars(manifest), "arrays": dict(manifest.arrays)})
    written = write_arrays(bucket, key, arrays)
    bucket.put(manifest_key(key), document)
    return written + len(document)


def read_artifact(
    bucket: ReadableBucket,
    key: str,
    schema: Schema,
    *,
    run: str,
    round: int,
    peer: str,
    public_key: str,
    max_declared: int,
    window: tuple[float, float] | None = None,
) -> Received:
    """Reads and checks a stranger's artifact; no more than the schema's own size is ever allocated.

    Args:
      bucket: the sender's.
      key: the artifact's.
      schema: arrays that are expected, no more and no fewer.
      run: the manifest must name it, and so with ``round`` and ``peer``: no artifact serves twice.
      round: t.
      peer: the sender.
      public_key: the sender's, which must have signed the manifest.
      max_declared: the most sequences that a peer may declare.
      window: ``(opens, closes)``, half open: what came outside is not read; None reads it whenever it came.

    Raises:
      MissingArtifact: there is none.
      OutsideWindow: it came too early or too late.
      MalformedArtifact: it is not what is expected.
      OSError: the provider failed, which is not the sender's fault.
    """
    try:
        marker = _get(bucket, manifest_key(key), "manifest.json", MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise MissingArtifact from error
    _check_time(marker, window)
    manifest = _parse_manifest(marker.data, public_key, set(schema))
    if (manifest.run, manifest.round, manifest.peer) != (run, round, peer):
        raise MalformedArtifact("its manifest is of another run, round or peer")
    if manifest.declared > max_declared:
        raise MalformedArtifact(f"it declares more than {max_declared} sequences")

    arrays, objects = _read_payload(bucket, key, schema, window)
    for name, digest in array_digests(arrays).items():
        if digest != manifest.arrays[name]:
            raise MalformedArtifact(f"array {name} is not the one of its manifest")
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise MalformedArtifact(f"array {name} holds a number that is not finite")
    used = [marker, *objects]
    return Received(
        arrays,
        manifest,
        max(found.head.last_modified for found in used),
        marker.data,
        sum(len(found.data) for found in used),
    )


def write_copy(bucket: Bucket, key: str, arrays: Mapping[str, np.ndarray], document: bytes) -> None:
    """Stores another's artifact as it was received: its manifest is still its sender's, and so is read like the original.

    Args:
      bucket: of whoever keeps the copy.
      key: where to.
      arrays: all of them, as received.
      document: the manifest as it was signed.

    Raises:
      OSError: the bucket cannot be written.
    """
    write_arrays(bucket, key, arrays)
    bucket.put(manifest_key(key), document)


def last_change(bucket: ReadableBucket, key: str, schema: Schema) -> float | None:
    """The latest time over an artifact's objects, read from the provider alone; None if none is there.

    Raises:
      OSError: the provider failed.
    """
    names = ["manifest.json", *expected_sizes(_payload_schema(schema))]
    heads = [head for name in names if (head := bucket.head(f"{key}/{name}")) is not None]
    return max((head.last_modified for head in heads), default=None)


def write_arrays(bucket: Bucket, key: str, arrays: Mapping[str, np.ndarray]) -> int:
    """Stores arrays as one payload under a key; returns the bytes written.

    Raises:
      ValueError: an array that no schema can ask for.
      OSError: the bucket cannot be written.
    """
    for name, spec in schema_of(arrays).items():
        metadata(name, spec)  # refuses what cannot be stored
    flat = np.concatenate([array_bytes(array) for _, array in sorted(arrays.items())])
    objects = encode({_PAYLOAD: flat})
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
    if bucket.head(f"{key}/{_PAYLOAD}/zarr.json") is None:
        raise MissingArtifact
    return _read_payload(bucket, key, schema, None)[0]


def _read_payload(
    bucket: ReadableBucket, key: str, schema: Schema, window: tuple[float, float] | None
) -> tuple[dict[str, np.ndarray], list[Object]]:
    payload = _payload_schema(schema)
    objects: dict[str, Object] = {}
    for name, size in expected_sizes(payload).items():
        try:
            found = _get(bucket, f"{key}/{name}", name, size)
        except FileNotFoundError as error:
            raise MalformedArtifact(f"{name} is missing") from error
        _check_time(found, window)
        if len(found.data) != size:
            raise MalformedArtifact(f"{name} has {len(found.data)} bytes, {size} expected")
        # The first of an array's objects, before any of its content is asked for.
        if name.endswith("/zarr.json") and found.data != metadata(_PAYLOAD, payload[_PAYLOAD]):
            raise MalformedArtifact(f"{name} describes another array")
        objects[name] = found
    try:
        flat = decode({name: found.data for name, found in objects.items()}, payload)[_PAYLOAD]
    except ChecksumMismatch as error:
        raise MalformedArtifact(str(error)) from error
    return _split(flat, schema), list(objects.values())


def _payload_schema(schema: Schema) -> Schema:
    """One array of all the bytes."""
    nbytes = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in schema.values())
    return {_PAYLOAD: ArraySpec((nbytes,), np.dtype(np.uint8))}


def _split(flat: np.ndarray, schema: Schema) -> dict[str, np.ndarray]:
    arrays, at = {}, 0
    for name, spec in sorted(schema.items()):
        end = at + math.prod(spec.shape) * spec.dtype.itemsize
        # A copy, so that every array is aligned and none keeps the others alive.
        part = flat[at:end].copy().view(spec.dtype.newbyteorder("<")).reshape(spec.shape)
        arrays[name] = part.astype(spec.dtype, copy=False)
        at = end
    return arrays


def _get(bucket: ReadableBucket, key: str, name: str, max_bytes: int) -> Object:
    try:
        return bucket.get(key, max_bytes=max_bytes)
    except ObjectTooLarge as error:
        raise MalformedArtifact(f"{name} has more than {max_bytes} bytes") from error


def _check_time(found: Object, window: tuple[float, float] | None) -> None:
    if window is not None and not window[0] <= found.head.last_modified < window[1]:
        raise OutsideWindow(found.head.last_modified)


def _parse_manifest(data: bytes, public_key: str, names: set[str]) -> Manifest:
    try:
        raw = signed_json.read(data, domain=_DOMAIN, key=public_key, max_bytes=MAX_MANIFEST_BYTES)
    except BadDocument as error:
        raise MalformedArtifact(f"its manifest: {error}") from error
    del raw["key"]
    fields = {field.name for field in dataclasses.fields(Manifest)}
    if set(raw) != fields:
        raise MalformedArtifact("its manifest has other fields than the protocol's")
    if not all(type(raw[name]) is str for name in ("run", "peer", "salt")):
        raise MalformedArtifact("its manifest names run, peer or salt by something other than a string")
    if not all(type(raw[name]) is int for name in ("round", "declared", "protocol")):
        raise MalformedArtifact("its manifest has a round, declared or protocol that is no integer")
    if raw["protocol"] != PROTOCOL:
        raise MalformedArtifact(f"it follows another version of the protocol than {PROTOCOL}")
    if raw["declared"] < 1:
        raise MalformedArtifact("it declares no sequence")
    if _SALT.fullmatch(raw["salt"]) is None:
        raise MalformedArtifact("its manifest has a salt of another length")
    if not isinstance(raw["arrays"], dict) or set(raw["arrays"]) != names:
        raise MalformedArtifact("its manifest lists other arrays than expected")
    if not all(_is_digest(digest) for digest in raw["arrays"].values()):
        raise MalformedArtifact("its manifest has a digest that is no sha256")
    return Manifest(**raw)


def _is_digest(text: Any) -> bool:
    return type(text) is str and _SHA256.fullmatch(text) is not None
