import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.artifact import MalformedArtifact
from gauntlet_jax.storage.bucket import MemoryBucket
from gauntlet_jax.storage.commit import (
    Commit,
    MissingCommit,
    commit_digest,
    commit_key,
    read_commit,
    reveals,
    write_commit,
)
from gauntlet_jax.storage.identity import Identity

ADA, EVE = Identity(bytes(range(32))), Identity(bytes(32))
KEY = "rounds/00000007"
SALT = bytes(range(100, 132))
PAYLOAD = "ab" * 32
COMMIT = commit_digest("demo", 7, ADA.public_key, SALT, PAYLOAD)
PARTS = ("demo", 7, ADA.public_key, SALT, PAYLOAD)


@pytest.fixture
def bucket():
    found = MemoryBucket(lambda: 12.5)
    write_commit(found, KEY, run="demo", round=7, peer="ada", commit=COMMIT, identity=ADA)
    return found


def read(bucket, **changes):
    expected = {"run": "demo", "round": 7, "peer": "ada", "public_key": ADA.public_key}
    return read_commit(bucket, KEY, **{**expected, **changes})


def test_digest_by_hand():
    framed = b"gauntlet commit"
    for part in (b"demo", b"7", ADA.public_key.encode(), SALT, PAYLOAD.encode()):
        framed += len(part).to_bytes(8, "little") + part
    assert hashlib.sha256(framed).hexdigest() == COMMIT


@given(st.text(max_size=4), st.integers(0, 99), st.binary(max_size=4), st.text(max_size=4))
def test_no_two_meanings_share_a_digest(run, round, salt, payload):
    """The parts cannot run into each other: moving a character from one to the next is another commit."""
    own = commit_digest(run, round, "k", salt, payload)
    assert own != commit_digest(f"{run}{round}", round, "k", salt, payload)
    if run and run[-1].isdecimal() and run[-1] != "0" and run[-1].isascii():
        assert own != commit_digest(run[:-1], int(run[-1] + str(round)), "k", salt, payload)
    if payload:
        assert own != commit_digest(run, round, "k", salt + payload[0].encode(), payload[1:])
    assert own != commit_digest(run, round, "k" + salt.hex(), b"", payload) or not salt


@pytest.mark.parametrize("place", range(5))
def test_every_part_binds(place):
    other = ("demo2", 8, EVE.public_key, bytes(32), "cd" * 32)
    assert reveals(COMMIT, *PARTS)
    assert not reveals(COMMIT, *PARTS[:place], other[place], *PARTS[place + 1 :])


def test_another_may_not_repost_a_commit():
    """Who copies a commit, and later the salt and the payload with it, reveals nothing under its own key."""
    assert not reveals(COMMIT, "demo", 7, EVE.public_key, SALT, PAYLOAD)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_salt_has_32_bytes(length):
    """A short one could be tried out by who guesses the payload."""
    salt = bytes(length)
    assert not reveals(commit_digest("demo", 7, ADA.public_key, salt, PAYLOAD), *PARTS[:3], salt, PAYLOAD)


def test_what_was_written_is_read(bucket):
    assert read(bucket) == Commit(COMMIT, 12.5)
    assert bucket.list("", limit=9) == ["rounds/00000007/commit.json"] == [commit_key(KEY)]


def test_the_time_is_the_one_of_what_was_read(bucket):
    """A commit that is replaced later is a later commit."""
    bucket._clock = lambda: 99.0
    write_commit(bucket, KEY, run="demo", round=7, peer="ada", commit="0" * 64, identity=ADA)
    assert read(bucket) == Commit("0" * 64, 99.0)


def test_there_is_none():
    with pytest.raises(MissingCommit):
        read(MemoryBucket(lambda: 0.0))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"run": "other"}, "of another run, round or peer"),
        ({"round": 6}, "of another run, round or peer"),
        ({"peer": "bob"}, "of another run, round or peer"),
        ({"public_key": EVE.public_key}, "signed by another key"),
    ],
)
def test_of_something_else(bucket, changes, match):
    with pytest.raises(MalformedArtifact, match=match):
        read(bucket, **changes)


FIELDS = {"run": "demo", "round": 7, "peer": "ada", "commit": COMMIT}


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({**FIELDS, "commit": COMMIT[:-1]}, "no sha256"),
        ({**FIELDS, "commit": COMMIT.upper()}, "no sha256"),
        ({**FIELDS, "commit": None}, "no sha256"),
        ({**FIELDS, "commit": [COMMIT]}, "no sha256"),
        ({**FIELDS, "round": 7.0}, "of another run, round or peer"),
        ({**FIELDS, "round": True}, "of another run, round or peer"),
        ({**FIELDS, "run": ["demo"]}, "of another run, round or peer"),
        ({**FIELDS, "note": "x"}, "other fields"),
        ({name: FIELDS[name] for name in ("run", "round", "peer")}, "other fields"),
    ],
)
def test_signed_but_misshapen(bucket, fields, match):
    bucket.put(commit_key(KEY), signed_json.sign(ADA, "commit", fields))
    with pytest.raises(MalformedArtifact, match=match):
        read(bucket)


def test_true_is_not_round_one():
    bucket = MemoryBucket(lambda: 0.0)
    bucket.put(commit_key(KEY), signed_json.sign(ADA, "commit", {**FIELDS, "round": True}))
    with pytest.raises(MalformedArtifact, match="of another run, round or peer"):
        read(bucket, round=1)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not JSON"),
        (b" " * 4097, "more than 4096 bytes"),
        (b"[" * 4000, "not JSON"),
        (signed_json.sign(ADA, "manifest", FIELDS), "its signature does not hold"),
        (signed_json.sign(EVE, "commit", FIELDS), "signed by another key"),
        (signed_json.canonical({**FIELDS, "key": ADA.public_key}), "not signed"),
        (json.dumps(json.loads(signed_json.sign(ADA, "commit", FIELDS))).encode(), "canonical form"),
    ],
)
def test_hostile_bytes(bucket, data, match):
    bucket.put(commit_key(KEY), data)
    with pytest.raises(MalformedArtifact, match=match) as caught:
        read(bucket)
    assert "\n" not in caught.value.reason
