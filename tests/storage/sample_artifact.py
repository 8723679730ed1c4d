"""A small artifact, how it is read, and a bucket that says what it was asked for."""

import dataclasses

import numpy as np
import pytest

from gauntlet_jax.storage.artifact import (
    PROTOCOL,
    MalformedArtifact,
    Manifest,
    array_digests,
    read_artifact,
    schema_of,
)
from gauntlet_jax.storage.identity import Identity

ADA, EVE = Identity(bytes(range(32))), Identity(bytes(32))
KEY = "rounds/00000007"
ARRAYS = {
    "indices": np.arange(300, dtype=np.uint8),
    "codes": np.zeros(50, np.uint8),
    "tables": np.array([[1.5, -2.0], [0.0, 3.0]], np.float32),
    "probe": np.array([0.25, 0.5], np.float32),
}
BYTES = b"".join(ARRAYS[name].tobytes() for name in ("codes", "indices", "probe", "tables"))
ZARR, CHUNK, MANIFEST = "payload/zarr.json", "payload/c/0", "manifest.json"
SALT = "5a" * 32
EXPECTED = {"run": "demo", "round": 7, "peer": "ada", "public_key": ADA.public_key, "max_declared": 16}


def manifest(arrays, **changes):
    own = Manifest("demo", 7, "ada", 4, PROTOCOL, array_digests(arrays), SALT)
    return dataclasses.replace(own, **changes)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return (crc ^ 0xFFFFFFFF).to_bytes(4, "little")


def read(bucket, schema=None, **changes):
    return read_artifact(bucket, KEY, schema or schema_of(ARRAYS), **{**EXPECTED, **changes})


def content(bucket, name):
    return bucket.get(f"{KEY}/{name}", max_bytes=10**6).data


def claims():
    """The fields of the honest manifest."""
    return {**vars(manifest(ARRAYS)), "arrays": array_digests(ARRAYS)}


def refused(bucket, match, schema=None, **changes):
    with pytest.raises(MalformedArtifact, match=match) as caught:
        read(bucket, schema, **changes)
    assert caught.value.reason == str(caught.value)
    assert "\n" not in caught.value.reason
    assert len(caught.value.reason) < 120


class Watched:
    """A bucket that notes what it is asked for; ``after`` may change what it holds after a read."""

    def __init__(self, bucket, after=lambda key: None):
        self._bucket = bucket
        self._after = after
        self.asked = []

    def head(self, key):
        self.asked.append(f"head {key.removeprefix(KEY + '/')}")
        return self._bucket.head(key)

    def get(self, key, *, max_bytes):
        self.asked.append(key.removeprefix(f"{KEY}/"))
        found = self._bucket.get(key, max_bytes=max_bytes)
        self._after(key)
        return found
