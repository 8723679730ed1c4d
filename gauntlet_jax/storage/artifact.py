"""Artifacts: what a peer uploads in a round, and how a stranger's is read without trusting a byte of it.

An artifact is one zarr v3 array of bytes, all arrays of a pseudo-gradient one after another, and a signed manifest::

    KEY/payload/zarr.json   KEY/payload/c/0   KEY/manifest.json

or such a one for each part that it is cut into (``payload_0``, ``payload_1`` ...), which the hosts of a large peer write side by
side. The manifest is written last: it is the commit marker, and it holds the sha256 of each array.

The reader knows from its own model what every object must be: its key, its size to the byte and the whole of ``zarr.json``.
It compares, and decodes by its *own* metadata: a sender chooses neither shape nor codec, so nothing of its choosing is ever
allocated or decompressed. Time and content come from the same answer of the provider.
"""

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.bucket import Bucket, ReadableBucket
from gauntlet_jax.storage.digest import array_bytes
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.signed_json import BadDocument
from gauntlet_jax.storage.stored_arrays import (
    MalformedArtifact,
    MissingArtifact,
    OutsideWindow,
    check_time,
    get_bounded,
    payload_of,
    payload_schema,
    read_arrays,
    read_payloads,
    write_arrays,
)
from gauntlet_jax.storage.zarr_arrays import ArraySpec, Schema, expected_sizes, schema_of

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
    "write_manifest",
]

PROTOCOL = 3
"""Version of the artifact's format, apart from the package's; another one is refused."""

MAX_MANIFEST_BYTES = 64 * 1024
PROBE = "probe"
"""The array that differs for every peer by design and so does not count for duplicates."""

_DOMAIN = "manifest"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SALT = re.compile(r"([0-9a-f]{64})?")


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


def payload_digest(digests: Mapping[str, str]) -> str:
    """sha256 over the names and digests of the pseudo-gradient's arrays, the probe left out.

    Two artifacts of equal digest are duplicates, whoever sent them.

    Args:
      digests: from ``array_digests``, in any order.

    Returns:
      64 hexadecimal characters.
    """
    lines = [f"{name} {digest}\n" for name, digest in sorted(digests.items()) if name != PROBE]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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
    return write_arrays(bucket, key, arrays) + write_manifest(bucket, key, manifest, identity)


def write_manifest(bucket: Bucket, key: str, manifest: Manifest, identity: Identity) -> int:
    """Signs and uploads the manifest of an artifact, all arrays of which are there; returns its bytes.

    Raises:
      OSError: the bucket cannot be written.
    """
    document = signed_json.sign(identity, _DOMAIN, {**vars(manifest), "arrays": dict(manifest.arrays)})
    bucket.put(manifest_key(key), document)
    return len(document)


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
    only: Collection[str] | None = None,
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
      only: names of arrays to read, with all that lies in the same objects; None reads everything.

    Raises:
      MissingArtifact: there is none.
      OutsideWindow: it came too early or too late.
      MalformedArtifact: it is not what is expected.
      OSError: the provider failed, which is not the sender's fault.
    """
    try:
        marker = get_bounded(bucket, manifest_key(key), "manifest.json", MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise MissingArtifact from error
    check_time(marker, window)
    manifest = _parse_manifest(marker.data, public_key, set(schema))
    if (manifest.run, manifest.round, manifest.peer) != (run, round, peer):
        raise MalformedArtifact("its manifest is of another run, round or peer")
    if manifest.declared > max_declared:
        raise MalformedArtifact(f"it declares more than {max_declared} sequences")

    parts = {payload_of(name) for name in (schema if only is None else only)}
    wanted = {name: spec for name, spec in schema.items() if payload_of(name) in parts}
    arrays, objects = read_payloads(bucket, key, wanted, window)
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
    names = ["manifest.json", *expected_sizes(payload_schema(schema))]
    heads = [head for name in names if (head := bucket.head(f"{key}/{name}")) is not None]
    return max((head.last_modified for head in heads), default=None)


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
