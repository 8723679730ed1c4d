"""Buckets of both kinds under a clock that a test sets, empty and with the sample artifact."""

import pytest
from storage.sample_artifact import ADA, ARRAYS, KEY, manifest

from gauntlet_jax.storage.artifact import (
    write_artifact,
)
from gauntlet_jax.storage.bucket import open_bucket


@pytest.fixture
def times():
    return [10.0]


@pytest.fixture(params=["memory", "file"])
def bucket(request, tmp_path, times):
    url = "memory://" if request.param == "memory" else tmp_path.as_uri()
    return open_bucket(url, clock=lambda: times[-1])


@pytest.fixture
def stored(bucket):
    """A bucket with the sample in it."""
    write_artifact(bucket, KEY, ARRAYS, manifest(ARRAYS), ADA)
    return bucket
