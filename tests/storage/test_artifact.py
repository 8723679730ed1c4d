import hashlib
import json
import math
import time

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from storage.sample_artifact import (
    ADA,
    ARRAYS,
    BYTES,
    CHUNK,
    KEY,
    MANIFEST,
    SALT,
    ZARR,
    Watched,
    content,
    crc32c,
    manifest,
    read,
    refused,
)

from gauntlet_jax.storage import zarr_arrays
from gauntlet_jax.storage.artifact import (
    PROTOCOL,
    MalformedArtifact,
    Manifest,
    MissingArtifact,
    OutsideWindow,
    array_digests,
    last_change,
    manifest_key,
    payload_digest,
    schema_of,
    write_artifact,
)
from gauntlet_jax.storage.bucket import open_bucket


def test_what_was_written_is_read(bucket):
    written = write_artifact(bucket, KEY, ARRAYS, manifest(ARRAYS), ADA)
    received = read(bucket)
    assert received.manifest == manifest(ARRAYS)
    assert (received.uploaded_at, received.bytes) == (10.0, written)
    assert sorted(received.arrays) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        assert received.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(received.arrays[name], array)


def test_three_objects(stored):
    assert stored.list("", limit=99) == [f"{KEY}/{name}" for name in (MANIFEST, CHUNK, ZARR)]
    assert manifest_key(KEY) == f"{KEY}/{MANIFEST}"


def test_the_chunk_is_all_arrays_by_name_and_their_crc32c(stored):
    assert content(stored, CHUNK) == BYTES + crc32c(BYTES)


@pytest.mark.parametrize("chunk_bytes", [zarr_arrays.CHUNK_BYTES, 100])
def test_other_readers_open_the_payload_in_place(tmp_path, monkeypatch, chunk_bytes):
    """By the metadata in the bucket, as anybody's zarr would."""
    monkeypatch.setattr(zarr_arrays, "CHUNK_BYTES", chunk_bytes)
    bucket = open_bucket(tmp_path.as_uri(), clock=lambda: 0.0)
    write_artifact(bucket, KEY, ARRAYS, manifest(ARRAYS), ADA)
    kvstore = {"driver": "file", "path": f"{tmp_path}/{KEY}/payload/"}
    array = ts.open({"driver": "zarr3", "kvstore": kvstore}).result()
    assert array.read().result().tobytes() == BYTES
    assert array.dtype == ts.uint8
    assert array.chunk_layout.write_chunk.shape == (min(chunk_bytes, len(BYTES)),)


def test_the_manifest_by_hand(stored):
    document = json.loads(content(stored, MANIFEST))
    signature = document.pop("signature")
    assert document == {
        "arrays": {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in ARRAYS.items()},
        "declared": 4,
        "key": ADA.public_key,
        "peer": "ada",
        "protocol": 3,
        "round": 7,
        "run": "demo",
        "salt": SALT,
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert signature == ADA.sign("manifest", text)


ARRAY_STRATEGY = st.sampled_from([np.uint8, np.uint16, np.int32, np.float32, np.float64]).flatmap(
    lambda dtype: npst.arrays(
        dtype,
        npst.array_shapes(max_dims=3, max_side=9),
        elements=None if np.dtype(dtype).kind != "f" else {"allow_nan": False, "allow_infinity": False},
    )
)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), ARRAY_STRATEGY, min_size=1, max_size=3
    )
)
@settings(max_examples=40, deadline=None)
def test_any_arrays_survive(arrays):
    bucket = open_bucket("memory://", clock=lambda: 0.0)
    write_artifact(bucket, KEY, arrays, manifest(arrays), ADA)
    back = read(bucket, schema_of(arrays)).arrays
    for name, array in arrays.items():
        assert back[name].tobytes() == array.tobytes()
        assert (back[name].shape, back[name].dtype) == (array.shape, array.dtype)


def test_bytes_are_little_endian_whatever_they_were(bucket):
    arrays = {"a": np.array([1, 2], ">u4")}
    own = manifest({"a": np.array([1, 2], "<u4")})
    write_artifact(bucket, KEY, arrays, own, ADA)
    assert content(bucket, CHUNK)[:8] == b"\x01\0\0\0\x02\0\0\0"


def test_a_large_payload_is_cut(bucket, monkeypatch):
    monkeypatch.setattr(zarr_arrays, "CHUNK_BYTES", 100)
    written = write_artifact(bucket, KEY, ARRAYS, manifest(ARRAYS), ADA)
    assert len(bucket.list(f"{KEY}/payload/c/", limit=99)) == 4
    received = read(bucket)
    assert received.bytes == written
    np.testing.assert_array_equal(received.arrays["indices"], ARRAYS["indices"])
    # Whole chunks in each other's place have their checksums; the manifest tells.
    first, second = content(bucket, "payload/c/0"), content(bucket, "payload/c/1")
    bucket.put(f"{KEY}/payload/c/0", second)
    bucket.put(f"{KEY}/payload/c/1", first)
    refused(bucket, "array codes is not the one of its manifest")
    bucket.delete_prefix(f"{KEY}/payload/c/3")
    refused(bucket, "payload/c/3 is missing")


def test_each_object_is_read_once_and_the_manifest_first(stored):
    watched = Watched(stored)
    read(watched)
    assert watched.asked == [MANIFEST, ZARR, CHUNK]


def test_what_is_swapped_between_two_reads_is_not_taken(stored):
    """A manifest is of the very bytes that come with it: each object is asked for once, and later ones must fit."""
    other = {**ARRAYS, "codes": ARRAYS["codes"] + 1}

    def swap(key):
        if key.endswith(MANIFEST):
            write_artifact(stored, KEY, other, manifest(other), ADA)

    refused(Watched(stored, swap), "array codes is not the one of its manifest")
    assert read(Watched(stored, swap)).manifest == manifest(other)


@pytest.mark.parametrize("name", [MANIFEST, ZARR, CHUNK])
def test_the_latest_object_dates_an_artifact(stored, times, name):
    times.append(99.0)
    stored.put(f"{KEY}/{name}", content(stored, name))
    assert read(stored).uploaded_at == 99.0
    assert last_change(stored, KEY, schema_of(ARRAYS)) == 99.0


def test_the_time_is_of_the_response_that_was_used(stored, times):
    """To put an object again while it is judged changes nothing of what was judged."""

    def put_again(key):
        times.append(99.0)
        stored.put(key, content(stored, key.removeprefix(f"{KEY}/")))

    assert read(Watched(stored, put_again)).uploaded_at == 10.0
    assert last_change(stored, KEY, schema_of(ARRAYS)) == 99.0


@pytest.mark.parametrize(
    ("window", "good"),
    [((10.0, 11.0), True), ((9.0, 10.0), False), ((10.5, 11.0), False), ((0.0, 10.1), True), (None, True)],
)
def test_the_window_is_half_open(stored, window, good):
    if good:
        read(stored, window=window)
        return
    with pytest.raises(OutsideWindow) as caught:
        read(stored, window=window)
    assert caught.value.uploaded_at == 10.0


@pytest.mark.parametrize(("late", "asked"), [(MANIFEST, 1), (ZARR, 2), (CHUNK, 3)])
def test_no_more_is_read_of_what_is_late(stored, times, late, asked):
    times.append(99.0)
    stored.put(f"{KEY}/{late}", content(stored, late))
    watched = Watched(stored)
    with pytest.raises(OutsideWindow) as caught:
        read(watched, window=(5.0, 20.0))
    assert caught.value.uploaded_at == 99.0
    assert watched.asked == [MANIFEST, ZARR, CHUNK][:asked]


def test_a_late_artifact_is_late_whatever_it_is_made_of(stored, times):
    times.append(99.0)
    stored.put(f"{KEY}/{MANIFEST}", b"garbage")
    with pytest.raises(OutsideWindow):
        read(stored, window=(5.0, 20.0))


def test_a_time_that_is_none_is_outside(stored, times):
    class Odd(Watched):
        def get(self, key, *, max_bytes):
            found = super().get(key, max_bytes=max_bytes)
            return found._replace(head=found.head._replace(last_modified=math.nan))

    with pytest.raises(OutsideWindow):
        read(Odd(stored), window=(5.0, 20.0))


def test_without_a_manifest_there_is_no_artifact(bucket):
    assert last_change(bucket, KEY, schema_of(ARRAYS)) is None
    bucket.put(f"{KEY}/{CHUNK}", b"")
    watched = Watched(bucket)
    with pytest.raises(MissingArtifact):
        read(watched)
    assert watched.asked == [MANIFEST]
    assert not issubclass(MissingArtifact, MalformedArtifact)


def test_the_manifest_is_written_last(bucket, monkeypatch):
    keys = []
    monkeypatch.setattr(bucket, "put", lambda key, data: keys.append(key))
    write_artifact(bucket, KEY, ARRAYS, manifest(ARRAYS), ADA)
    assert keys == [f"{KEY}/{name}" for name in (ZARR, CHUNK, MANIFEST)]


@pytest.mark.parametrize(
    "arrays",
    [
        {"a": np.zeros((), np.uint8)},
        {"a": np.zeros((3, 0), np.uint8)},
        {"a": np.array(["x"])},
        {"a": np.array([None])},
        {"a/b": np.zeros(1, np.uint8)},
        {"..": np.zeros(1, np.uint8)},
    ],
)
def test_arrays_that_no_schema_asks_for(bucket, arrays):
    with pytest.raises(ValueError, match="array"):
        write_artifact(
            bucket,
            KEY,
            arrays,
            Manifest("demo", 7, "ada", 4, PROTOCOL, dict.fromkeys(arrays, "0" * 64), ""),
            ADA,
        )
    assert bucket.list("", limit=1) == []


def test_a_manifest_about_other_arrays_is_not_written(bucket):
    with pytest.raises(ValueError, match="the manifest lists"):
        write_artifact(bucket, KEY, ARRAYS, manifest({"codes": ARRAYS["codes"]}), ADA)


def test_payload_digest_by_hand_and_without_the_probe():
    arrays = {"codes": np.array([1, 2], np.uint8), "probe": np.ones(3, np.float32)}
    found = array_digests(arrays)
    line = f"codes {hashlib.sha256(bytes([1, 2])).hexdigest()}\n"
    assert payload_digest(found) == hashlib.sha256(line.encode()).hexdigest()
    own = array_digests(ARRAYS)
    assert payload_digest({**own, "probe": "00" * 32}) == payload_digest(own)
    assert payload_digest(dict(reversed(own.items()))) == payload_digest(own)
    assert payload_digest({**own, "codes": own["indices"]}) != payload_digest(own)


def test_quick_enough_for_every_peer_of_every_round(stored):
    start = time.perf_counter()
    for _ in range(20):
        read(stored)
    # About 0.5 ms each on an idle machine: the bound only catches a change of order.
    assert (time.perf_counter() - start) / 20 < 0.05
