"""Artifacts: what a peer uploads in a round, and how a stranger's is read without trusting a byte of it.

An artifact is a few flat arrays and one manifest under a common key::

    KEY/indices/zarr.json   KEY/indices/c/0   ...   KEY/manifest.json

Every array is a zarr v3 array, uncompressed, so other zarr readers open it in place. The manifest is written
last: it is the commit marker, and it holds the sha256 of each array.

The reader knows from its own model what every object must be: which keys there are, the size of each to the
byte and the whole of each ``zarr.json``. It compares, and decodes by its *own* metadata: a sender chooses
neither shape nor codec, so nothing of its choosing is ever allocated or decompressed.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gauntlet_jax.storage.bucket import Bucket, Head, ObjectTooLarge
from gauntlet_jax.storage.digest import array_bytes, framed_header
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
    "Schema",
    "array_digests",
    "head_artifact",
    "manifest_key",
    "payload_digest",
    "read_artifact",
    "schema_of",
    "write_artifact",
]

PROTOCOL = 1
"""Version of the artifact's format; another one is refused."""

MAX_MANIFEST_BYTES = 64 * 1024
PROBE = "probe"
"""The array that differs for every peer by design and so does not count for duplicates."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class MalformedArtifact(ValueError):
    """An artifact is not what the protocol asks for.

    Attributes:
      reason: one clause for a record; it repeats nothing that the sender wrote.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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
    """

    run: str
    round: int
    peer: str
    declared: int
    protocol: int
    arrays: Mapping[str, str]


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


def write_artifact(bucket: Bucket, key: str, arrays: Mapping[str, np.ndarray], manifest: Manifest) -> int:
    """Uploads an artifact, the manifest last.

    Args:
      bucket: the peer's own.
      key: common key of its objects.
      arrays: at least one dimension each, of a plain integer or float dtype.
      manifest: with ``array_digests(arrays)``.

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
    objects = encode(arrays)
    objects["manifest.json"] = json.dumps(
        dataclasses.asdict(manifest), sort_keys=True, separators=(",", ":")
    ).encode()
    for name, data in objects.items():
        bucket.put(f"{key}/{name}", data)
    return sum(map(len, objects.values()))


def head_artifact(bucket: Bucket, key: str, schema: Schema) -> Head | None:
    """When an artifact was complete and how large it is, read from the provider alone.

    Args:
      bucket: the sender's.
      key: the artifact's.
      schema: what is expected.

    Returns:
      The *latest* time over its objects (to replace one after the window has closed is to be late) and the
      sum of their bytes; None without a manifest, the commit marker.
    """
    marker = bucket.head(manifest_key(key))
    if marker is None:
        return None
    others = [bucket.head(f"{key}/{name}") for name in expected_sizes(schema)]
    heads = [marker, *(head for head in others if head is not None)]
    return Head(max(head.last_modified for head in heads), sum(head.size for head in heads))


def read_artifact(
    bucket: Bucket, key: str, schema: Schema, *, run: str, round: int, peer: str, max_declared: int
) -> tuple[dict[str, np.ndarray], Manifest]:
    """Reads and checks a stranger's artifact; no more than the schema's own size is ever allocated.

    Args:
      bucket: the sender's.
      key: the artifact's.
      schema: arrays that are expected, no more and no fewer.
      run: the manifest must name it, and so with ``round`` and ``peer``: no artifact serves twice.
      round: t.
      peer: the sender.
      max_declared: the most sequences that a peer may declare.

    Returns:
      The arrays by name, floats all finite, and the manifest.

    Raises:
      MalformedArtifact: it is not what is expected.
      OSError: the provider failed, which is not the sender's fault.
    """
    sizes = expected_sizes(schema)
    _check_objects(bucket, key, sizes)

    manifest = _parse_manifest(_get(bucket, key, "manifest.json", MAX_MANIFEST_BYTES), set(schema))
    if (manifest.run, manifest.round, manifest.peer) != (run, round, peer):
        raise MalformedArtifact("its manifest is of another run, round or peer")
    if manifest.declared > max_declared:
        raise MalformedArtifact(f"it declares more than {max_declared} sequences")

    objects = {name: _get(bucket, key, name, size) for name, size in sizes.items()}
    for name, spec in schema.items():
        if objects[f"{name}/zarr.json"] != metadata(name, spec):
            raise MalformedArtifact(f"{name}/zarr.json describes another array")
    try:
        arrays = decode(objects, schema)
    except ChecksumMismatch as error:
        raise MalformedArtifact(str(error)) from error
    for name, digest in array_digests(arrays).items():
        if digest != manifest.arrays[name]:
            raise MalformedArtifact(f"array {name} is not the one of its manifest")
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise MalformedArtifact(f"array {name} holds a number that is not finite")
    return arrays, manifest


def _check_objects(bucket: Bucket, key: str, sizes: Mapping[str, int]) -> None:
    """Compares what the provider says of the objects, before any of them is read."""
    expected = {f"{key}/{name}" for name in (*sizes, "manifest.json")}
    present = set(bucket.list(f"{key}/", limit=len(expected) + 1))
    if present - expected:
        raise MalformedArtifact("it has objects that nobody asked for")
    if manifest_key(key) not in present:
        raise MalformedArtifact("it has no manifest")
    for name, size in sizes.items():
        head = bucket.head(f"{key}/{name}")
        if head is None:
            raise MalformedArtifact(f"{name} is missing")
        if head.size != size:
            raise MalformedArtifact(f"{name} has {head.size} bytes, {size} expected")


def _get(bucket: Bucket, key: str, name: str, max_bytes: int) -> bytes:
    try:
        return bucket.get(f"{key}/{name}", max_bytes=max_bytes)
    except ObjectTooLarge as error:
        raise MalformedArtifact(f"{name} has more than {max_bytes} bytes") from error
    except FileNotFoundError as error:
        raise MalformedArtifact(f"{name} is missing") from error


def _parse_manifest(data: bytes, names: set[str]) -> Manifest:
    try:
        raw = json.loads(data.decode("utf-8"), object_pairs_hook=_no_field_twice)
    except (ValueError, RecursionError) as error:
        raise MalformedArtifact("its manifest is not JSON") from error
    fields = {field.name for field in dataclasses.fields(Manifest)}
    if not isinstance(raw, dict) or set(raw) != fields:
        raise MalformedArtifact("its manifest has other fields than the protocol's")
    if not all(type(raw[name]) is str for name in ("run", "peer")):
        raise MalformedArtifact("its manifest names run or peer by something other than a string")
    if not all(type(raw[name]) is int for name in ("round", "declared", "protocol")):
        raise MalformedArtifact("its manifest has a round, declared or protocol that is no integer")
    if raw["protocol"] != PROTOCOL:
        raise MalformedArtifact(f"it follows another version of the protocol than {PROTOCOL}")
    if raw["declared"] < 1:
        raise MalformedArtifact("it declares no sequence")
    if not isinstance(raw["arrays"], dict) or set(raw["arrays"]) != names:
        raise MalformedArtifact("its manifest lists other arrays than expected")
    if not all(type(digest) is str and _SHA256.fullmatch(digest) for digest in raw["arrays"].values()):
        raise MalformedArtifact("its manifest has a digest that is no sha256")
    return Manifest(**raw)


def _no_field_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands twice")
    return fields
