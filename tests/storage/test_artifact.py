import dataclasses
import hashlib
import json
import time

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gauntlet_jax.storage import zarr_arrays
from gauntlet_jax.storage.artifact import (
    PROTOCOL,
    ArraySpec,
    MalformedArtifact,
    Manifest,
    array_digests,
    head_artifact,
    payload_digest,
    read_artifact,
    schema_of,
    write_artifact,
)
from gauntlet_jax.storage.bucket import Head, open_bucket

KEY = "rounds/7/ada"
ARRAYS = {
    "indices": np.arange(300, dtype=np.uint8),
    "codes": np.zeros(50, np.uint8),
    "tables": np.array([[1.5, -2.0], [0.0, 3.0]], np.float32),
    "probe": np.array([0.25, 0.5], np.float32),
}
EXPECTED = {"run": "demo", "round": 7, "peer": "ada", "max_declared": 16}


def manifest(arrays, **changes):
    return dataclasses.replace(Manifest("demo", 7, "ada", 4, PROTOCOL, array_digests(arrays)), **changes)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return (crc ^ 0xFFFFFFFF).to_bytes(4, "little")


@pytest.fixture
def times():
    return [10.0]


@pytest.fixture(params=["memory", "file"])
def bucket(request, tmp_path, times):
    url = "memory://" if request.param == "memory" else tmp_path.as_uri()
    return open_bucket(url, clock=lambda: times[-1])


@pytest.fixture
def stored(bucket):
    write_artifact(bucket, KEY, ARRAYS, manifest(ARRAYS))
    return bucket


def read(bucket, schema=None, **changes):
    return read_artifact(bucket, KEY, schema or schema_of(ARRAYS), **{**EXPECTED, **changes})


def change_manifest(bucket, **changes):
    raw = json.loads(bucket.get(f"{KEY}/manifest.json", max_bytes=10**5))
    bucket.put(f"{KEY}/manifest.json", json.dumps({**raw, **changes}).encode())


def test_what_was_written_is_read(bucket):
    written = write_artifact(bucket, KEY, ARRAYS, manifest(ARRAYS))
    arrays, read_manifest = read(bucket)
    assert read_manifest == manifest(ARRAYS)
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert head_artifact(bucket, KEY, schema_of(ARRAYS)) == Head(10.0, written)


def test_a_chunk_is_the_array_and_its_crc32c(stored):
    for name, array in ARRAYS.items():
        chunk = stored.get(f"{KEY}/{name}/c/0" + ("/0" if array.ndim == 2 else ""), max_bytes=10**4)
        assert chunk == array.tobytes() + crc32c(array.tobytes())


def test_other_readers_open_an_array_in_place(tmp_path):
    write_artifact(open_bucket(tmp_path.as_uri(), clock=lambda: 0.0), KEY, ARRAYS, manifest(ARRAYS))
    kvstore = {"driver": "file", "path": f"{tmp_path}/{KEY}/tables/"}
    array = ts.open({"driver": "zarr3", "kvstore": kvstore}).result().read().result()
    np.testing.assert_array_equal(array, ARRAYS["tables"])


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
    write_artifact(bucket, KEY, arrays, manifest(arrays))
    back, _ = read(bucket, schema_of(arrays))
    for name, array in arrays.items():
        assert back[name].tobytes() == array.tobytes()
        assert (back[name].shape, back[name].dtype) == (array.shape, array.dtype)


def test_large_arrays_are_cut_along_the_first_axis(bucket, monkeypatch):
    monkeypatch.setattr(zarr_arrays, "CHUNK_BYTES", 64)
    write_artifact(bucket, KEY, ARRAYS, manifest(ARRAYS))
    assert len(bucket.list(f"{KEY}/indices/", limit=99)) == 1 + 5
    np.testing.assert_array_equal(read(bucket)[0]["indices"], ARRAYS["indices"])


def test_the_latest_part_dates_an_artifact(stored, times):
    times.append(99.0)
    stored.put(f"{KEY}/codes/c/0", stored.get(f"{KEY}/codes/c/0", max_bytes=999))
    head = head_artifact(stored, KEY, schema_of(ARRAYS))
    assert head is not None
    assert head.last_modified == 99.0


def test_without_a_manifest_there_is_no_artifact(bucket):
    schema = schema_of(ARRAYS)
    assert head_artifact(bucket, KEY, schema) is None
    bucket.put(f"{KEY}/codes/c/0", b"")
    assert head_artifact(bucket, KEY, schema) is None
    with pytest.raises(MalformedArtifact, match="no manifest"):
        read(bucket)


def test_the_manifest_is_written_last(bucket, monkeypatch):
    keys = []
    monkeypatch.setattr(bucket, "put", lambda key, data: keys.append(key))
    write_artifact(bucket, KEY, ARRAYS, manifest(ARRAYS))
    assert keys.index(f"{KEY}/manifest.json") == len(keys) - 1


HOSTILE_METADATA = {
    "huge shape": {"shape": [10**12]},
    "zstd bomb": {"codecs": [{"name": "bytes"}, {"name": "zstd"}]},
    "no checksum": {"codecs": [{"name": "bytes"}]},
    "other chunks": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**9]}}},
    "other dtype": {"data_type": "int8"},
    "fill value": {"fill_value": 7},
    "extra field": {"attributes": {"a": 1}},
}


@pytest.mark.parametrize("change", HOSTILE_METADATA.values(), ids=HOSTILE_METADATA.keys())
@pytest.mark.parametrize("padded", [False, True])
def test_hostile_metadata_is_never_opened(stored, change, padded):
    key = f"{KEY}/codes/zarr.json"
    good = stored.get(key, max_bytes=10**4)
    bad = json.dumps({**json.loads(good), **change}, sort_keys=True, separators=(",", ":")).encode()
    stored.put(key, bad.ljust(len(good))[: len(good)] if padded else bad)
    with pytest.raises(MalformedArtifact, match=r"codes/zarr.json (has|describes)"):
        read(stored)


def test_same_length_other_metadata_is_refused(stored):
    key = f"{KEY}/codes/zarr.json"
    good = stored.get(key, max_bytes=10**4)
    stored.put(key, good.replace(b"uint8", b"int64"))
    with pytest.raises(MalformedArtifact, match="describes another array"):
        read(stored)


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("codes/c/0", b"x" * 10**6, "codes/c/0 has 1000000 bytes, 54 expected"),
        ("codes/c/0", b"", "codes/c/0 has 0 bytes, 54 expected"),
        ("codes/c/0", b"x" * 54, "array codes fails its checksum"),
        ("codes/zarr.json", b"{" * 10**6, "codes/zarr.json has 1000000 bytes"),
        ("manifest.json", b" " * 70_000, "manifest.json has more than 65536 bytes"),
        ("manifest.json", b"[" * 60_000, "not JSON"),
        ("manifest.json", b"\xff", "not JSON"),
        ("manifest.json", b"[1]", "other fields"),
        ("manifest.json", b'{"round":1,"round":1}', "not JSON"),
        ("manifest.json", b'{"round":' + b"9" * 60_000 + b"}", "not JSON"),
        ("codes/c/1", b"", "objects that nobody asked for"),
        ("extra/zarr.json", b"{}", "objects that nobody asked for"),
        ("note", b"", "objects that nobody asked for"),
    ],
)
def test_hostile_objects(stored, name, data, match):
    stored.put(f"{KEY}/{name}", data)
    with pytest.raises(MalformedArtifact, match=match) as caught:
        read(stored)
    assert "\n" not in caught.value.reason


def test_thousands_of_objects_cost_one_refusal(stored):
    for index in range(200):
        stored.put(f"{KEY}/a{index}", b"")
    with pytest.raises(MalformedArtifact, match="objects that nobody asked for"):
        read(stored)


def test_missing_parts(stored):
    stored.delete_prefix(f"{KEY}/codes/c")
    with pytest.raises(MalformedArtifact, match="codes/c/0 is missing"):
        read(stored)


def test_every_flipped_byte_is_noticed(stored):
    rng = np.random.default_rng(0)
    for key in stored.list(f"{KEY}/", limit=99):
        data = stored.get(key, max_bytes=10**5)
        for where in {0, len(data) - 1, *rng.integers(0, len(data), 6).tolist()}:
            altered = bytearray(data)
            altered[where] ^= 1 << int(rng.integers(8))
            stored.put(key, bytes(altered))
            try:
                arrays, back = read(stored)
            except MalformedArtifact:
                continue
            # The number of declared sequences may change into another that is allowed; nothing else may.
            assert key.endswith("manifest.json")
            assert dataclasses.replace(back, declared=4) == manifest(ARRAYS)
            assert payload_digest(arrays) == payload_digest(ARRAYS)
        stored.put(key, data)
    read(stored)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"run": "other"}, "another run, round or peer"),
        ({"round": 6}, "another run, round or peer"),
        ({"peer": "bob"}, "another run, round or peer"),
        ({"round": 7.0}, "no integer"),
        ({"round": True}, "no integer"),
        ({"declared": "4"}, "no integer"),
        ({"declared": 17}, "more than 16"),
        ({"declared": 0}, "declares no sequence"),
        ({"declared": 10**400}, "more than 16"),
        ({"declared": float("nan")}, "no integer"),
        ({"protocol": 2}, "another version"),
        ({"peer": None}, "other than a string"),
        ({"arrays": []}, "other arrays"),
        ({"arrays": {"codes": "0" * 64}}, "other arrays"),
        (
            {"arrays": {**array_digests(ARRAYS), "codes": "0" * 64}},
            "array codes is not the one of its manifest",
        ),
        ({"arrays": {**array_digests(ARRAYS), "codes": 5}}, "no sha256"),
        ({"arrays": {**array_digests(ARRAYS), "codes": "A" * 64}}, "no sha256"),
        ({"note": 1}, "other fields"),
    ],
)
def test_hostile_manifests(stored, changes, match):
    change_manifest(stored, **changes)
    with pytest.raises(MalformedArtifact, match=match):
        read(stored)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["tables", "probe"])
def test_floats_must_be_finite(bucket, name, value):
    arrays = {key: array.copy() for key, array in ARRAYS.items()}
    arrays[name].reshape(-1)[1] = value
    write_artifact(bucket, KEY, arrays, manifest(arrays))
    with pytest.raises(MalformedArtifact, match=f"array {name} holds a number that is not finite"):
        read(bucket)


def test_arrays_of_another_model_are_refused(stored):
    schema = {**schema_of(ARRAYS), "codes": ArraySpec((51,), np.dtype(np.uint8))}
    with pytest.raises(MalformedArtifact, match="54 bytes, 55 expected"):
        read(stored, schema)
    without_codes = {name: spec for name, spec in schema_of(ARRAYS).items() if name != "codes"}
    with pytest.raises(MalformedArtifact, match="nobody asked for"):
        read(stored, without_codes)


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
            bucket, KEY, arrays, Manifest("demo", 7, "ada", 4, PROTOCOL, dict.fromkeys(arrays, "0" * 64))
        )
    assert bucket.list("", limit=1) == []


def test_a_manifest_about_other_arrays_is_not_written(bucket):
    with pytest.raises(ValueError, match="the manifest lists"):
        write_artifact(bucket, KEY, ARRAYS, manifest({"codes": ARRAYS["codes"]}))


def test_payload_digest_by_hand_and_without_the_probe():
    arrays = {"codes": np.array([1, 2], np.uint8), "probe": np.ones(3, np.float32)}
    assert payload_digest(arrays) == hashlib.sha256(b'["codes","uint8",[2]]\n\x01\x02').hexdigest()
    assert payload_digest({**ARRAYS, "probe": np.zeros(9, np.float32)}) == payload_digest(ARRAYS)
    assert payload_digest(dict(reversed(ARRAYS.items()))) == payload_digest(ARRAYS)
    assert payload_digest({**ARRAYS, "codes": ARRAYS["codes"] + 1}) != payload_digest(ARRAYS)
    assert payload_digest({**ARRAYS, "codes": ARRAYS["codes"].view(np.int8)}) != payload_digest(ARRAYS)


def test_quick_enough_for_every_peer_of_every_round(stored):
    start = time.perf_counter()
    for _ in range(20):
        read(stored)
    # About 2 ms each on an idle machine: the bound only catches a change of order.
    assert (time.perf_counter() - start) / 20 < 0.05
