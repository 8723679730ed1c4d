"""What strangers publish and nodes read: the table that the fuzz tests go through. A new format joins by a row in it."""

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from fuzz.hostile_bucket import HostileBucket, Objects, Recording
from fuzz.mutations import GIANT

from gauntlet_jax.nodes.published_record import max_record_bytes, publish, read_published
from gauntlet_jax.nodes.record import PeerRecord, RoundRecord
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.artifact import (
    MAX_MANIFEST_BYTES,
    PROTOCOL,
    MalformedArtifact,
    Manifest,
    MissingArtifact,
    array_digests,
    read_artifact,
    schema_of,
    write_artifact,
)
from gauntlet_jax.storage.commit import (
    MAX_COMMIT_BYTES,
    MissingCommit,
    commit_digest,
    commit_key,
    read_commit,
    write_commit,
)
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.publication import read_checkpoint, read_update, write_checkpoint, write_update
from gauntlet_jax.storage.signed_json import BadDocument

ADA, EVE = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)
Case = tuple[Objects, str]


@dataclasses.dataclass(frozen=True)
class Target:
    """One format.

    Attributes:
      name: for the report.
      sample: what an honest node publishes.
      read: what a node makes of a bucket: a value to compare, or one of ``refusals``.
      refusals: the exceptions by which it refuses.
      most_bytes: no reading may be handed more.
      cases: attacks by name, each with a pattern of the reason for which it must be refused.
      mutable: keys that mutations touch; () = all of the sample's.
      signed: key and domain of a document that ADA signs, for contents that are signed and yet wrong.
      free: whether signed contents may be other good ones, because a validator may write there what it likes.
      chunk_bytes: largest chunk of its arrays.
    """

    name: str
    sample: Callable[[], Objects]
    read: Callable[[HostileBucket], Any]
    refusals: tuple[type[Exception], ...]
    most_bytes: int
    cases: Callable[[], Mapping[str, Case]]
    mutable: tuple[str, ...] = ()
    signed: tuple[str, str] | None = None
    free: bool = False
    chunk_bytes: int = 16 * 1024 * 1024


def _with(objects: Objects, key: str, data: bytes | int) -> Objects:
    return {**objects, key: data}


def _metadata_cases(objects: Objects, prefix: str, what: str = "payload/") -> dict[str, Case]:
    """Attacks on a ``zarr.json`` and its chunks, whatever they hold."""
    zarr, chunk = f"{prefix}/payload/zarr.json", f"{prefix}/payload/c/0"
    good, data = objects[zarr], objects[chunk]
    assert isinstance(good, bytes) and isinstance(data, bytes)
    other = f"{what}zarr.json (has more than|has .* bytes|describes another)"

    def saying(**fields: Any) -> Objects:
        return _with(objects, zarr, signed_json.canonical({**json.loads(good), **fields}))

    bomb = [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 9}}]
    return {
        "a million million elements": (saying(shape=[10**12]), other),
        "in chunks of that size": (
            saying(chunk_grid={"name": "regular", "configuration": {"chunk_shape": [10**12]}}),
            other,
        ),
        "gzip in the metadata": (
            {**saying(codecs=bomb), chunk: gzip.compress(bytes(10**6))},
            other,
        ),
        "as long, but no metadata": (_with(objects, zarr, b" " * len(good)), f"{what}zarr.json describes"),
        "100 MB of metadata": (_with(objects, zarr, GIANT), rf"{what}zarr.json has more than \d+ bytes"),
        "100 MB of data": (_with(objects, chunk, GIANT), rf"{what}c/0 has more than \d+ bytes"),
        "deep metadata": (_with(objects, zarr, b"[" * 100_000), rf"{what}zarr.json has more than"),
        "gzip as data": (_with(objects, chunk, gzip.compress(bytes(data))), rf"{what}c/0 has"),
        "zeros as data": (_with(objects, chunk, bytes(len(data) - 4) + b"\1\2\3\4"), "fails its checksum"),
        "no data": (
            {key: found for key, found in objects.items() if key != chunk},
            f"{what}c/0 is missing",
        ),
        "empty data": (_with(objects, chunk, b""), rf"{what}c/0 has 0 bytes, \d+ expected"),
    }


def _document_cases(objects: Objects, key: str, domain: str, most: int) -> dict[str, Case]:
    """Attacks on a signed document, whatever it says."""
    good = objects[key]
    assert isinstance(good, bytes)
    fields = json.loads(good)
    del fields["key"], fields["signature"]
    return {
        "by another key": (_with(objects, key, signed_json.sign(EVE, domain, fields)), "signed by another key"),
        "for another purpose": (
            _with(objects, key, signed_json.sign(ADA, domain + "2", fields)),
            "its signature does not hold",
        ),
        "for no purpose": (
            _with(objects, key, signed_json.sign(ADA, "", fields)),
            "its signature does not hold",
        ),
        "not signed": (
            _with(objects, key, signed_json.canonical({**fields, "key": ADA.public_key})),
            "not signed",
        ),
        "of 100 MB": (_with(objects, key, GIANT), rf"(more|longer) than {most} bytes"),
        "deep": (_with(objects, key, b'{"a":' * (most // 6)), "not JSON"),
        "an endless number": (_with(objects, key, b'{"a":' + b"9" * (most - 9) + b"}"), "not JSON"),
        "not a number": (_with(objects, key, good.replace(b":7", b":NaN", 1)), "not JSON"),
        "in another form": (_with(objects, key, good + b"\n"), "canonical"),
        "a field twice": (
            _with(objects, key, good[:-1] + b',"run":"demo"}'),
            "canonical",
        ),
        "a field more": (_with(objects, key, signed_json.sign(ADA, domain, {**fields, "x": 1})), "other fields"),
    }


# Artifacts: the payload small enough for thousands of them, of all kinds of arrays.

ARTIFACT = "rounds/00000007"
_CHANCE = np.random.default_rng(7)
ARRAYS = {
    "codes": _CHANCE.integers(0, 256, 40).astype(np.uint8),
    "indices": _CHANCE.integers(0, 256, 60).astype(np.uint8),
    "probe": _CHANCE.normal(size=5).astype(np.float32),
    "tables": _CHANCE.normal(size=(3, 2)).astype(np.float32),
}


def _artifact(
    identity: Identity = ADA, arrays: Mapping[str, np.ndarray] = ARRAYS, **claims: Any
) -> dict[str, bytes]:
    bucket = Recording()
    honest = Manifest("demo", 7, "ada", 4, PROTOCOL, array_digests(arrays), "5a" * 32)
    write_artifact(bucket, ARTIFACT, arrays, dataclasses.replace(honest, **claims), identity)
    return dict(bucket)


def _read_artifact(bucket: HostileBucket) -> Any:
    received = read_artifact(
        bucket,
        ARTIFACT,
        schema_of(ARRAYS),
        run="demo",
        round=7,
        peer="ada",
        public_key=ADA.public_key,
        max_declared=16,
        window=(5.0, 15.0),
    )
    return received.manifest, {name: array.tobytes() for name, array in received.arrays.items()}


def _artifact_cases() -> dict[str, Case]:
    good, manifest = _artifact(), f"{ARTIFACT}/manifest.json"
    before = _artifact(round=6, arrays={name: array[::-1] for name, array in ARRAYS.items()})
    poisoned = {**ARRAYS, "probe": np.full(5, np.nan, np.float32)}
    return {
        **_metadata_cases(good, ARTIFACT),
        **_document_cases(good, manifest, "manifest", MAX_MANIFEST_BYTES),
        "another peer's": (_artifact(EVE, peer="eve"), "signed by another key"),
        "another peer's, signed again": (_artifact(peer="eve"), "another run, round or peer"),
        "of the round before": (before, "another run, round or peer"),
        "of another run": (_artifact(run="demo2"), "another run, round or peer"),
        "the payload of the round before": (
            {**before, manifest: good[manifest]},
            "array codes is not the one of its manifest",
        ),
        "of the first version": (_artifact(protocol=1), "another version"),
        "nothing declared": (_artifact(declared=0), "declares no sequence"),
        "too much declared": (_artifact(declared=17), "declares more than 16"),
        "a short salt": (_artifact(salt="5a"), "salt of another length"),
        "not a number": (_artifact(arrays=poisoned), "array probe holds a number that is not finite"),
        "an array more": (_artifact(arrays={**ARRAYS, "more": ARRAYS["codes"]}), "lists other arrays"),
        "an array less": (_artifact(arrays={"codes": ARRAYS["codes"]}), "lists other arrays"),
        "another dtype": (
            _artifact(arrays={**ARRAYS, "codes": ARRAYS["codes"].astype(np.int32)}),
            "payload/zarr.json describes another array",
        ),
        "no manifest": ({key: data for key, data in good.items() if key != manifest}, "MissingArtifact"),
        "nothing": ({}, "MissingArtifact"),
    }


# Commits.

_COMMIT = commit_digest("demo", 7, ADA.public_key, bytes(range(32)), "ab" * 32)


def _commit(
    identity: Identity = ADA, *, run: str = "demo", round: int = 7, peer: str = "ada", commit: str = _COMMIT
) -> dict[str, bytes]:
    bucket = Recording()
    write_commit(bucket, ARTIFACT, run=run, round=round, peer=peer, commit=commit, identity=identity)
    return dict(bucket)


def _read_commit(bucket: HostileBucket) -> Any:
    return read_commit(bucket, ARTIFACT, run="demo", round=7, peer="ada", public_key=ADA.public_key)


def _commit_cases() -> dict[str, Case]:
    other = "another run, round or peer"
    return {
        **_document_cases(_commit(), commit_key(ARTIFACT), "commit", MAX_COMMIT_BYTES),
        "another peer's": (_commit(EVE, peer="eve"), "signed by another key"),
        "copied and signed": (_commit(EVE), "signed by another key"),
        "another peer's, signed again": (_commit(peer="eve"), other),
        "of the round before": (_commit(round=6), other),
        "of another run": (_commit(run="demo2"), other),
        "no digest": (_commit(commit="ab" * 31), "no sha256"),
        "a manifest in its place": (
            {commit_key(ARTIFACT): _artifact()[f"{ARTIFACT}/manifest.json"]},
            "its signature does not hold",
        ),
        "nothing": ({}, "MissingCommit"),
    }


# Updates and checkpoints.

_SIGNS = _CHANCE.integers(-1, 2, 300).astype(np.int8)
_PARAMS = _CHANCE.normal(size=300).astype(np.float32)
_SHA256 = write_update(Recording(), 7, _SIGNS)[1]


def _update(round: int = 7, signs: np.ndarray = _SIGNS) -> dict[str, bytes]:
    bucket = Recording()
    write_update(bucket, round, signs)
    return dict(bucket)


def _read_update(bucket: HostileBucket) -> Any:
    return read_update(bucket, 7, parameters=300, planes=2, sha256=_SHA256).tobytes()


def _update_cases() -> dict[str, Case]:
    return {
        **_metadata_cases(_update(), "updates/00000007"),
        "of the round before": (_update(6), "MissingArtifact"),
        "another one": (_update(signs=-_SIGNS), "not the one of the record"),
        "without zeros": (_update(signs=np.ones(300, np.int8)), "describes another array"),
        "of another model": (_update(signs=_SIGNS[:299]), "not the one of the record"),
        "of a smaller model": (_update(signs=_SIGNS[:100]), "describes another array"),
        "nothing": ({}, "MissingArtifact"),
    }


def _checkpoint(round: int = 7, params: np.ndarray = _PARAMS) -> dict[str, bytes]:
    bucket = Recording()
    write_checkpoint(bucket, round, params)
    return dict(bucket)


def _read_checkpoint(bucket: HostileBucket) -> Any:
    flat = read_checkpoint(bucket, 7, 300)
    # As every node does that takes one up: what it is worth its digest tells.
    if hashlib.sha256(flat.data).digest() != hashlib.sha256(_PARAMS.data).digest():
        raise MalformedArtifact("other parameters than the record's")
    return flat.tobytes()


def _checkpoint_cases() -> dict[str, Case]:
    return {
        **_metadata_cases(_checkpoint(), "checkpoints/00000007"),
        "of the round before": (_checkpoint(6), "MissingArtifact"),
        "another one": (_checkpoint(params=_PARAMS[::-1]), "other parameters"),
        "not finite": (_checkpoint(params=np.full(300, np.inf, np.float32)), "not finite"),
        "of another model": (_checkpoint(params=_PARAMS[:299]), "describes another array"),
        "nothing": ({}, "MissingArtifact"),
    }


# Records.

_SLOTS = 4


def _peer_record(name: str, payout: int) -> PeerRecord:
    return PeerRecord(
        name, "unknown", 8, 1.5, 5000, "ab" * 32, 0.1, None, (), "", {"assigned": 0.5, "random": 0.25}, 0, 25.0, 8.3, 0.1,
        0.4, 3, 1.0, 0.1, True, 0.5, True, payout,
    )  # fmt: skip


RECORD = RoundRecord(7, 3e-3, None, None, "cd" * 32, 100, 40, (_peer_record("ada", 60), _peer_record("ben", 0)))


def _record(identity: Identity = ADA, *, run: str = "demo", validator: str = "V1", **changes: Any) -> Objects:
    published = publish(
        dataclasses.replace(RECORD, **changes),
        run=run,
        validator=validator,
        corpus="ef" * 32,
        update_planes=1,
        update_sha256="01" * 32,
        identity=identity,
    )
    return {"record": published.document}


def _read_record(bucket: HostileBucket) -> Any:
    most = max_record_bytes(_SLOTS)
    document = bucket.one("record", max_bytes=most)
    return read_published(
        document, run="demo", round=7, validator="V1", public_key=ADA.public_key, slots=_SLOTS
    )


def _record_cases() -> dict[str, Case]:
    cases = _document_cases(_record(), "record", "record", max_record_bytes(_SLOTS))
    cases["of 100 MB"] = (_record_giant(), "has 100000000 bytes")
    ada, ben = RECORD.peers
    replaced = dataclasses.replace
    return {
        **cases,
        "another validator's": (_record(EVE, validator="V2"), "signed by another key"),
        "of another validator": (_record(validator="V2"), "another run or validator"),
        "of another run": (_record(run="demo2"), "another run or validator"),
        "of the round before": (_record(round=6), "another round or schema"),
        "payouts from nothing": (_record(peers=(replaced(ada, payout=61), ben)), "do not sum"),
        "a negative payout": (
            _record(peers=(replaced(ada, payout=61), replaced(ben, payout=-1))),
            "do not sum",
        ),
        "a payout past 64 bits": (_record(peers=(replaced(ada, payout=2**70), ben)), "(do not sum|no round record)"),
        "a peer twice": (_record(peers=(ada, replaced(ada, payout=0))), "or one twice"),
        "more peers than slots": (
            _record(peers=tuple(replaced(ben, name=f"p{n}") for n in range(5)), reserve=100),
            "more peers",
        ),
        "parameters without a digest": (_record(params_digest="x"), "no sha256"),
        "a payload without a digest": (_record(peers=(replaced(ada, digest="x"), ben)), "no sha256"),
        "what was refused": (_record(peers=(replaced(ada, refusal="late"), ben)), "aggregates what was refused"),
    }


def _record_giant() -> Objects:
    return {"record": GIANT}


# Signed documents by themselves.


def _document() -> Objects:
    return {"document": signed_json.sign(ADA, "test", {"run": "demo", "round": 7, "list": [1, 2.5, "x", None]})}


def _read_document(bucket: HostileBucket) -> Any:
    data = bucket.one("document", max_bytes=MAX_COMMIT_BYTES)
    return signed_json.canonical(
        signed_json.read(data, domain="test", key=ADA.public_key, max_bytes=MAX_COMMIT_BYTES)
    )


def _bare_document_cases() -> dict[str, Case]:
    cases = _document_cases(_document(), "document", "test", MAX_COMMIT_BYTES)
    del cases["a field more"]  # that is for who reads the fields
    cases["of 100 MB"] = ({"document": GIANT}, "has 100000000 bytes")
    return cases


_MANIFEST_KEY = f"{ARTIFACT}/manifest.json"
_ARTIFACT_REFUSALS = (MissingArtifact, MalformedArtifact)
_DOCUMENT_REFUSALS = (BadDocument, OSError, ValueError)
TARGETS = [
    Target(
        "artifacts",
        _artifact,
        _read_artifact,
        _ARTIFACT_REFUSALS,
        MAX_MANIFEST_BYTES + 1000,
        _artifact_cases,
        signed=(_MANIFEST_KEY, "manifest"),
    ),
    Target(
        "artifacts in chunks",
        _artifact,
        _read_artifact,
        _ARTIFACT_REFUSALS,
        MAX_MANIFEST_BYTES + 1000,
        dict,
        mutable=tuple(f"{ARTIFACT}/payload/c/{number}" for number in range(4)),
        chunk_bytes=40,
    ),
]
