"""What validators publish beside their records: updates and checkpoints."""

import hashlib
from typing import Any

import numpy as np
from fuzz.hostile_bucket import HostileBucket, Recording
from fuzz.target import Case, Target, metadata_cases

from gauntlet_jax.storage.artifact import (
    MalformedArtifact,
    MissingArtifact,
)
from gauntlet_jax.storage.publication import read_checkpoint, read_update, write_checkpoint, write_update

_CHANCE = np.random.default_rng(8)
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
        **metadata_cases(_update(), "updates/00000007"),
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
        **metadata_cases(_checkpoint(), "checkpoints/00000007"),
        "of the round before": (_checkpoint(6), "MissingArtifact"),
        "another one": (_checkpoint(params=_PARAMS[::-1]), "other parameters"),
        "not finite": (_checkpoint(params=np.full(300, np.inf, np.float32)), "not finite"),
        "of another model": (_checkpoint(params=_PARAMS[:299]), "describes another array"),
        "nothing": ({}, "MissingArtifact"),
    }


UPDATES = Target(
    "updates",
    sample=_update,
    read=_read_update,
    refusals=(MissingArtifact, MalformedArtifact),
    most_bytes=1000,
    cases=_update_cases,
)
CHECKPOINTS = Target(
    "checkpoints",
    sample=_checkpoint,
    read=_read_checkpoint,
    refusals=(MissingArtifact, MalformedArtifact),
    most_bytes=2000,
    cases=_checkpoint_cases,
)
