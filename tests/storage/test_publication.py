import hashlib

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gauntlet_jax.storage import zarr_arrays
from gauntlet_jax.storage.artifact import MalformedArtifact, MissingArtifact
from gauntlet_jax.storage.bucket import MemoryBucket
from gauntlet_jax.storage.publication import (
    read_checkpoint,
    read_update,
    signs_of,
    write_checkpoint,
    write_update,
)


@pytest.fixture
def bucket():
    return MemoryBucket(lambda: 0.0)


def signs(*numbers):
    return np.array(numbers, np.int8)


def test_one_plane_by_hand(bucket):
    """+ - + + - - - + , + -: the first element is the highest bit, the last byte is filled up with zeros."""
    planes, sha256 = write_update(bucket, 12, signs(1, -1, 1, 1, -1, -1, -1, 1, 1, -1))
    assert (planes, sha256) == (1, hashlib.sha256(b"\xb1\x80").hexdigest())
    assert bucket.list("", limit=9) == ["updates/00000012/payload/c/0", "updates/00000012/payload/zarr.json"]
    assert bucket.get("updates/00000012/payload/c/0", max_bytes=99).data[:2] == b"\xb1\x80"


def test_two_planes_by_hand(bucket):
    planes, sha256 = write_update(bucket, 3, signs(1, 0, -1))
    assert (planes, sha256) == (2, hashlib.sha256(b"\x80\xa0").hexdigest())
    np.testing.assert_array_equal(
        read_update(bucket, 3, parameters=3, planes=2, sha256=sha256), signs(1, 0, -1)
    )


@given(npst.arrays(np.int8, st.integers(1, 70), elements=st.integers(-1, 1)))
def test_any_update_survives(update):
    bucket = MemoryBucket(lambda: 0.0)
    planes, sha256 = write_update(bucket, 0, update)
    assert planes == (1 if update.all() else 2)
    back = read_update(bucket, 0, parameters=len(update), planes=planes, sha256=sha256)
    assert back.dtype == np.int8
    np.testing.assert_array_equal(back, update)


def test_an_eighth_of_a_byte_a_parameter(bucket):
    write_update(bucket, 0, np.ones(80_000, np.int8))
    stored = sum(len(bucket.get(key, max_bytes=10**6).data) for key in bucket.list("", limit=9))
    assert 10_000 < stored < 10_500


def test_signs_of_a_tree_in_the_order_of_its_leaves():
    tree = {"b": jnp.array([[1.0, -1.0]]), "a": jnp.array([0.0]), "c": jnp.array([-1.0, 1.0], jnp.bfloat16)}
    flat = signs_of(tree)
    np.testing.assert_array_equal(flat, signs(0, 1, -1, -1, 1))
    assert flat.dtype == np.int8


@pytest.mark.parametrize("odd", [0.5, -2.0, 127.0, 1e-30, np.nan, np.inf, -np.inf])
def test_only_signs_have_signs(odd):
    with pytest.raises(ValueError, match="not made of signs"):
        signs_of({"a": np.array([1.0, odd], np.float32)})


@pytest.mark.parametrize("update", [signs(2), signs(-2, 1), signs(-128), np.ones(3, np.float32)])
def test_what_is_no_sign_is_not_written(bucket, update):
    with pytest.raises(ValueError, match="int8 numbers of -1, 0 and"):
        write_update(bucket, 0, update)
    assert bucket.list("", limit=1) == []


class TestReadingAnUpdate:
    @pytest.fixture
    def stored(self, bucket):
        update = np.where(np.arange(100) % 3, 1, -1).astype(np.int8)
        self.planes, self.sha256 = write_update(bucket, 5, update)
        return bucket

    def refused(self, bucket, match, **changes):
        expected = {"parameters": 100, "planes": self.planes, "sha256": self.sha256}
        with pytest.raises(MalformedArtifact, match=match):
            read_update(bucket, 5, **{**expected, **changes})

    def test_of_another_size(self, stored):
        self.refused(stored, r"payload/zarr.json describes another array", parameters=107)
        self.refused(stored, r"payload/zarr.json describes another array", planes=2)
        self.refused(stored, r"payload/zarr.json has more than \d+ bytes", parameters=8)

    def test_of_another_content(self, stored):
        self.refused(stored, "not the one of the record", sha256="0" * 64)
        write_update(stored, 5, np.ones(100, np.int8))
        self.refused(stored, "not the one of the record")

    def test_replayed_from_another_round(self, stored):
        write_update(stored, 6, np.ones(100, np.int8))
        for name in ("zarr.json", "c/0"):
            stored.put(
                f"updates/00000005/payload/{name}",
                stored.get(f"updates/00000006/payload/{name}", max_bytes=999).data,
            )
        self.refused(stored, "not the one of the record")

    def test_damaged(self, stored):
        key = "updates/00000005/payload/c/0"
        data = stored.get(key, max_bytes=999).data
        stored.put(key, bytes([data[0] ^ 1]) + data[1:])
        self.refused(stored, "array payload fails its checksum")
        stored.put(key, data[:-1])
        self.refused(stored, "payload/c/0 has 16 bytes, 17 expected")
        stored.put(key, data + bytes(10**6))
        self.refused(stored, "payload/c/0 has more than 17 bytes")
        stored.delete_prefix("updates/00000005/payload/c")
        self.refused(stored, "payload/c/0 is missing")

    def test_not_there(self, stored):
        with pytest.raises(MissingArtifact):
            read_update(stored, 6, parameters=100, planes=1, sha256=self.sha256)


@given(npst.arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_any_checkpoint_survives_to_the_bit(flat):
    bucket = MemoryBucket(lambda: 0.0)
    write_checkpoint(bucket, 12, flat)
    assert read_checkpoint(bucket, 12, len(flat)).tobytes() == flat.tobytes()


def test_a_large_checkpoint_is_cut_into_objects(bucket, monkeypatch):
    monkeypatch.setattr(zarr_arrays, "CHUNK_BYTES", 64)
    flat = np.arange(50, dtype=np.float32)
    write_checkpoint(bucket, 4, flat)
    chunks = [f"checkpoints/00000004/payload/c/{number}" for number in range(4)]
    assert bucket.list("", limit=99) == [*chunks, "checkpoints/00000004/payload/zarr.json"]
    np.testing.assert_array_equal(read_checkpoint(bucket, 4, 50), flat)
    for chunk in chunks:
        data = bucket.get(chunk, max_bytes=999).data
        bucket.put(chunk, data[::-1])
        with pytest.raises(MalformedArtifact, match="fails its checksum"):
            read_checkpoint(bucket, 4, 50)
        bucket.put(chunk, data)
    # A good chunk in the place of another is not noticed here: a checkpoint is known by its digest alone.
    bucket.put(chunks[0], bucket.get(chunks[1], max_bytes=999).data)
    assert read_checkpoint(bucket, 4, 50)[0] == 16


def test_checkpoints_of_another_model_or_of_none(bucket):
    write_checkpoint(bucket, 4, np.zeros(50, np.float32))
    with pytest.raises(MalformedArtifact, match=r"payload/zarr.json describes another array"):
        read_checkpoint(bucket, 4, 51)
    with pytest.raises(MissingArtifact):
        read_checkpoint(bucket, 5, 50)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_a_checkpoint_is_finite(bucket, odd):
    write_checkpoint(bucket, 4, np.array([1.0, odd], np.float32))
    with pytest.raises(MalformedArtifact, match="checkpoint holds a number that is not finite"):
        read_checkpoint(bucket, 4, 2)


@pytest.mark.parametrize("flat", [np.zeros(3), np.zeros((2, 2), np.float32), np.zeros(3, np.int8)])
def test_a_checkpoint_is_one_row_of_float32(bucket, flat):
    with pytest.raises(ValueError, match="one row of float32"):
        write_checkpoint(bucket, 4, flat)
