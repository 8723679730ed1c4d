"""Artifacts, whole and in several chunks, and the commits to them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from fuzz.hostile_bucket import HostileBucket, Recording
from fuzz.target import ADA, EVE, Case, Target, document_cases, metadata_cases

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
        **metadata_cases(good, ARTIFACT),
        **document_cases(good, manifest, "manifest", MAX_MANIFEST_BYTES),
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
        **document_cases(_commit(), commit_key(ARTIFACT), "commit", MAX_COMMIT_BYTES),
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


ARTIFACTS = Target(
    "artifacts",
    sample=_artifact,
    read=_read_artifact,
    refusals=(MissingArtifact, MalformedArtifact),
    most_bytes=MAX_MANIFEST_BYTES + 1000,
    cases=_artifact_cases,
    signed=(f"{ARTIFACT}/manifest.json", "manifest"),
)
METADATA = dataclasses.replace(
    ARTIFACTS, name="metadata", mutable=(f"{ARTIFACT}/payload/zarr.json",), signed=None
)
CHUNKS = dataclasses.replace(
    ARTIFACTS,
    name="chunks",
    cases=dict,
    mutable=tuple(f"{ARTIFACT}/payload/c/{number}" for number in range(4)),
    signed=None,
    chunk_bytes=40,
)
COMMITS = Target(
    "commits",
    sample=_commit,
    read=_read_commit,
    refusals=(MissingCommit, MalformedArtifact),
    most_bytes=MAX_COMMIT_BYTES,
    cases=_commit_cases,
    signed=(commit_key(ARTIFACT), "commit"),
)
