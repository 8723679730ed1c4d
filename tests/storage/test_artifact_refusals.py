"""What a stranger may not send, and what a reason says of it."""

import json

import numpy as np
import pytest
from storage.sample_artifact import (
    ADA,
    ARRAYS,
    CHUNK,
    EVE,
    KEY,
    MANIFEST,
    SALT,
    ZARR,
    Watched,
    claims,
    content,
    crc32c,
    manifest,
    read,
    refused,
)

from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.artifact import (
    MAX_MANIFEST_BYTES,
    ArraySpec,
    MalformedArtifact,
    array_digests,
    manifest_key,
    schema_of,
    write_artifact,
)

HOSTILE_METADATA = {
    "huge shape": {"shape": [10**12]},
    "zstd bomb": {"codecs": [{"name": "bytes"}, {"name": "zstd"}]},
    "gzip bomb": {"codecs": [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 9}}]},
    "no checksum": {"codecs": [{"name": "bytes"}]},
    "other chunks": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**9]}}},
    "other dtype": {"data_type": "int8"},
    "fill value": {"fill_value": 7},
    "extra field": {"attributes": {"a": 1}},
}


@pytest.mark.parametrize("change", HOSTILE_METADATA.values(), ids=HOSTILE_METADATA.keys())
@pytest.mark.parametrize("padded", [False, True])
def test_hostile_metadata_is_never_opened(stored, change, padded):
    good = content(stored, ZARR)
    bad = json.dumps({**json.loads(good), **change}, sort_keys=True, separators=(",", ":")).encode()
    stored.put(f"{KEY}/{ZARR}", bad.ljust(len(good))[: len(good)] if padded else bad)
    watched = Watched(stored)
    refused(watched, r"payload/zarr.json (has|describes)")
    assert watched.asked == [MANIFEST, ZARR]


def test_same_length_other_metadata_is_refused(stored):
    stored.put(f"{KEY}/{ZARR}", content(stored, ZARR).replace(b"uint8", b"int64"))
    refused(stored, "describes another array")


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        (CHUNK, b"x" * 10**6, "payload/c/0 has more than 378 bytes"),
        (CHUNK, b"", "payload/c/0 has 0 bytes, 378 expected"),
        (CHUNK, b"x" * 377, "payload/c/0 has 377 bytes, 378 expected"),
        (CHUNK, b"x" * 378, "array payload fails its checksum"),
        (CHUNK, bytes(374) + crc32c(bytes(374)), "array indices is not the one of its manifest"),
        (ZARR, b"{" * 10**6, r"payload/zarr.json has more than \d+ bytes"),
        (ZARR, b"{}", r"payload/zarr.json has 2 bytes, \d+ expected"),
        (MANIFEST, b" " * 70_000, "manifest.json has more than 65536 bytes"),
        (MANIFEST, b"[" * 60_000, "its manifest: not JSON"),
        (MANIFEST, b'{"a":' * 12_000, "its manifest: not JSON"),
        (MANIFEST, b"\xff", "its manifest: not JSON"),
        (MANIFEST, b"", "its manifest: not JSON"),
        (MANIFEST, b"[1]", "its manifest: no JSON object"),
        (MANIFEST, b"{}", "its manifest: not signed"),
        (MANIFEST, b'{"round":1,"round":1}', "its manifest: not in its canonical form"),
        (MANIFEST, b'{"round":' + b"9" * 60_000 + b"}", "its manifest: not JSON"),
    ],
)
def test_hostile_objects(stored, name, data, match):
    stored.put(f"{KEY}/{name}", data)
    refused(stored, match)


def test_what_nobody_asked_for_costs_nothing(stored):
    for name in ("payload/c/1", "extra/zarr.json", "note", *(f"a{number}" for number in range(200))):
        stored.put(f"{KEY}/{name}", b"x" * 1000)
    watched = Watched(stored)
    assert read(watched).manifest == manifest(ARRAYS)
    assert watched.asked == [MANIFEST, ZARR, CHUNK]


@pytest.mark.parametrize("name", [ZARR, CHUNK])
def test_missing_parts(stored, name):
    data = content(stored, name)
    stored.delete_prefix(f"{KEY}/{name}")
    refused(stored, f"{name} is missing")
    stored.put(f"{KEY}/{name}", data)
    read(stored)


def test_every_flipped_byte_is_noticed(stored):
    rng = np.random.default_rng(0)
    for name in (MANIFEST, ZARR, CHUNK):
        data = content(stored, name)
        for where in {0, len(data) - 1, *rng.integers(0, len(data), 40).tolist()}:
            altered = bytearray(data)
            altered[where] ^= 1 << int(rng.integers(8))
            stored.put(f"{KEY}/{name}", bytes(altered))
            refused(stored, "its manifest|describes another array|fails its checksum")
        stored.put(f"{KEY}/{name}", data)
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
        ({"declared": -(10**400)}, "declares no sequence"),
        ({"declared": 10**400}, "more than 16"),
        ({"protocol": 1}, "another version of the protocol than 3"),
        ({"protocol": 4}, "another version of the protocol than 3"),
        ({"peer": None}, "other than a string"),
        ({"salt": None}, "other than a string"),
        ({"salt": "00" * 31}, "a salt of another length"),
        ({"salt": "A0" * 32}, "a salt of another length"),
        ({"salt": SALT + "\n"}, "a salt of another length"),
        ({"arrays": []}, "other arrays"),
        ({"arrays": {}}, "other arrays"),
        ({"arrays": {"codes": "0" * 64}}, "other arrays"),
        ({"arrays": {**array_digests(ARRAYS), "extra": "0" * 64}}, "other arrays"),
        (
            {"arrays": {**array_digests(ARRAYS), "codes": "0" * 64}},
            "array codes is not the one of its manifest",
        ),
        ({"arrays": {**array_digests(ARRAYS), "codes": 5}}, "no sha256"),
        ({"arrays": {**array_digests(ARRAYS), "codes": "A" * 64}}, "no sha256"),
        ({"note": 1}, "other fields"),
    ],
)
def test_what_a_sender_may_not_sign(stored, changes, match):
    stored.put(manifest_key(KEY), signed_json.sign(ADA, "manifest", {**claims(), **changes}))
    refused(stored, match)


@pytest.mark.parametrize("field", ["run", "round", "peer", "declared", "protocol", "arrays", "salt"])
def test_every_field_must_be_there(stored, field):
    left = {name: value for name, value in claims().items() if name != field}
    stored.put(manifest_key(KEY), signed_json.sign(ADA, "manifest", left))
    refused(stored, "other fields")


def test_a_manifest_without_a_salt(stored):
    write_artifact(stored, KEY, ARRAYS, manifest(ARRAYS, salt=""), ADA)
    assert read(stored).manifest.salt == ""


def test_only_its_own_key_signs_for_a_peer(stored):
    stored.put(manifest_key(KEY), signed_json.sign(EVE, "manifest", claims()))
    refused(stored, "its manifest: signed by another key")
    stored.put(manifest_key(KEY), signed_json.sign(ADA, "commit", claims()))
    refused(stored, "its manifest: its signature does not hold")
    stored.put(manifest_key(KEY), signed_json.canonical({**claims(), "key": ADA.public_key}))
    refused(stored, "its manifest: not signed")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"run": "b"}, "another run"),
        ({"round": 8}, "another run"),
        ({"peer": "eve"}, "another run"),
        ({"public_key": EVE.public_key}, "another key"),
        ({"max_declared": 3}, "more than 3 sequences"),
    ],
)
def test_an_artifact_serves_one_reader_only(stored, changes, match):
    """Of another peer, round, run or key, to the byte: replayed or stolen."""
    watched = Watched(stored)
    refused(watched, match, **changes)
    assert watched.asked == [MANIFEST], "nothing of its payload is asked for"


def test_a_manifest_cannot_be_grown_to_its_bound_for_free(stored):
    """The longest name that fits is refused for what it is."""
    stored.put(manifest_key(KEY), signed_json.sign(ADA, "manifest", {**claims(), "run": "x" * 60_000}))
    refused(stored, "another run")
    stored.put(
        manifest_key(KEY), signed_json.sign(ADA, "manifest", {**claims(), "run": "x" * MAX_MANIFEST_BYTES})
    )
    refused(stored, "more than 65536 bytes")


SENT = "SENT-BY-A-STRANGER"


@pytest.mark.parametrize("field", ["run", "peer", "salt", "declared", "arrays", "protocol", SENT])
def test_a_reason_repeats_nothing_that_was_sent(stored, field):
    changed = {**claims(), field: {SENT: SENT} if field == "arrays" else SENT}
    stored.put(manifest_key(KEY), signed_json.sign(ADA, "manifest", changed))
    with pytest.raises(MalformedArtifact) as caught:
        read(stored)
    assert SENT not in caught.value.reason


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["tables", "probe"])
def test_floats_must_be_finite(bucket, name, value):
    arrays = {key: array.copy() for key, array in ARRAYS.items()}
    arrays[name].reshape(-1)[1] = value
    write_artifact(bucket, KEY, arrays, manifest(arrays), ADA)
    refused(bucket, f"array {name} holds a number that is not finite")


def test_arrays_of_another_model_are_refused(stored):
    own = schema_of(ARRAYS)
    refused(stored, "payload/zarr.json describes another", {**own, "codes": ArraySpec((51,), np.dtype("u1"))})
    refused(stored, "lists other arrays", {name: own[name] for name in own if name != "codes"})
    refused(stored, "lists other arrays", {**own, "more": own["codes"]})
    # As many bytes, cut otherwise.
    cut = {**own, "codes": ArraySpec((49,), np.dtype("u1")), "indices": ArraySpec((301,), np.dtype("u1"))}
    refused(stored, "array codes is not the one of its manifest", cut)
