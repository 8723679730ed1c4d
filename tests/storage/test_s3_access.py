"""Real buckets of separate users: each writes its own alone, everybody reads, and what goes wrong is one line."""

import time
from contextlib import closing

import httpx
import numpy as np
import pytest
from s3_server import s3_server

from gauntlet_jax.storage.artifact import (
    PROTOCOL,
    Manifest,
    array_digests,
    last_change,
    read_artifact,
    schema_of,
    write_artifact,
)
from gauntlet_jax.storage.bucket import BucketUnavailable, ObjectTooLarge
from gauntlet_jax.storage.endpoints import EndpointPolicy, RefusedAddress
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.object_store import Credentials, open_own_bucket, publish
from gauntlet_jax.storage.public_bucket import PublicReader


@pytest.fixture(scope="module")
def server():
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def ada(server):
    return server.account("ada")


@pytest.fixture(scope="module")
def ben(server):
    return server.account("ben", public=False)


def keys_of(account):
    return Credentials(account.access_key, account.secret_key)


@pytest.fixture(scope="module")
def reader(server):
    with closing(PublicReader(EndpointPolicy(frozenset({f"127.0.0.1:{server.port}"})))) as opened:
        yield opened


def test_an_owner_writes_reads_lists_and_deletes(server, ada):
    bucket = open_own_bucket(server.url(ada), keys_of(ada))
    before = time.time()
    for number in range(5):
        bucket.put(f"a/{number}", bytes(number))
    bucket.put("b", b"other")
    found = bucket.get("a/3", max_bytes=10)
    assert found.data == bytes(3) and found.head == bucket.head("a/3")
    assert found.head.size == 3
    # Whole seconds, cut off.
    assert found.head.last_modified == int(found.head.last_modified)
    assert before - 1 <= found.head.last_modified <= time.time()
    assert bucket.list("a/", limit=100) == [f"a/{number}" for number in range(5)]
    assert len(bucket.list("a/", limit=2)) == 2
    assert bucket.list("a/3", limit=9) == ["a/3"]
    with pytest.raises(ObjectTooLarge):
        bucket.get("a/4", max_bytes=3)
    with pytest.raises(FileNotFoundError):
        bucket.get("a/9", max_bytes=3)
    assert bucket.head("a/9") is None
    bucket.delete_prefix("a/")
    assert bucket.list("a/", limit=9) == [] and bucket.head("b") is not None


def test_everybody_reads_with_and_without_published_keys(server, reader, ada, ben):
    open_own_bucket(server.url(ada), keys_of(ada)).put("x/y", b"for all")
    anonymous = reader.open(publish(server.url(ada), None))
    assert anonymous.get("x/y", max_bytes=10).data == b"for all"
    assert anonymous.head("x/y") == anonymous.get("x/y", max_bytes=10).head
    assert anonymous.head("x/none") is None
    with pytest.raises(ObjectTooLarge):
        anonymous.get("x/y", max_bytes=6)
    # A bucket that nobody may read but who has keys: published ones serve as well as its owner's.
    open_own_bucket(server.url(ben), keys_of(ben)).put("x/y", b"with keys")
    with pytest.raises(BucketUnavailable, match="status 403"):
        reader.open(publish(server.url(ben), None)).get("x/y", max_bytes=10)
    published = publish(server.url(ben), keys_of(ben))
    assert reader.open(published).get("x/y", max_bytes=10).data == b"with keys"
    assert reader.open(published).head("x/none") is None


def test_nobody_writes_to_the_bucket_of_another(server, ada, ben):
    intruder = open_own_bucket(server.url(ada), keys_of(ben))
    with pytest.raises(BucketUnavailable, match="refuses these credentials"):
        intruder.put("x/y", b"mine now")
    with pytest.raises(BucketUnavailable, match="refuses these credentials"):
        intruder.delete_prefix("x")
    answer = httpx.put(f"{server.endpoint}/{ada.bucket}/run/x/y", content=b"anonymous")
    assert answer.status_code == 403
    assert open_own_bucket(server.url(ada), keys_of(ada)).get("x/y", max_bytes=10).data == b"for all"


@pytest.mark.parametrize("what", ["secret", "key", "bucket", "endpoint"])
def test_what_is_wrong_is_one_line_without_the_secret(server, ada, what):
    secret = "wrong-secret-0123456789"
    keys = {
        "secret": Credentials(ada.access_key, secret),
        "key": Credentials("AKNOBODY", secret),
    }.get(what, keys_of(ada))
    url = server.url(ada)
    if what == "bucket":
        url = url.replace("bucket-ada", "bucket-none")
    if what == "endpoint":
        url = url.replace(str(server.port), "1")
    expected = {
        "secret": "refuses these credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "key": "refuses these credentials",
        "bucket": "there is no such bucket; create it first",
        "endpoint": "does not answer; check the endpoint and the network",
    }[what]
    bucket = open_own_bucket(url, keys)
    for use in (lambda: bucket.put("x", b"y"), lambda: bucket.list("x", limit=1)):
        started = time.monotonic()
        with pytest.raises(BucketUnavailable, match=expected) as error:
            use()
        assert time.monotonic() - started < 20
        assert "\n" not in str(error.value) and secret not in str(error.value)
        assert ada.secret_key not in repr(error.value) and ada.secret_key not in repr(bucket)


def test_without_credentials_one_line_says_so(server, ada):
    with pytest.raises(
        BucketUnavailable, match="no credentials to write there; set AWS_ACCESS_KEY_ID"
    ) as error:
        open_own_bucket(server.url(ada), None)
    assert "\n" not in str(error.value)


def test_who_has_keys_to_read_alone_cannot_write(server, reader, ada):
    """A reader with a user of its own, who owns nothing: the keys that a node publishes."""
    visitor = server.account("visitor", bucket=False)
    open_own_bucket(server.url(ada), keys_of(ada)).put("x/z", b"for all")
    published = reader.open(publish(server.url(ada), keys_of(visitor)))
    assert published.get("x/z", max_bytes=10).data == b"for all"
    with pytest.raises(BucketUnavailable, match="refuses these credentials"):
        open_own_bucket(server.url(ada), keys_of(visitor)).put("x/z", b"changed")
    assert published.get("x/z", max_bytes=10).data == b"for all"


def test_the_script_makes_a_bucket_that_everybody_reads(server, reader):
    eve = server.account("eve", bucket=False)
    for _ in range(2):
        server.make_bucket(eve)
    open_own_bucket(server.url(eve), keys_of(eve)).put("x", b"1")
    anonymous = reader.open(publish(server.url(eve), None))
    assert anonymous.get("x", max_bytes=1).data == b"1" and anonymous.head("none") is None


def test_a_server_that_was_stopped_gets_one_line_in_time():
    with s3_server() as short:
        account = short.account("ada")
        bucket = open_own_bucket(short.url(account), keys_of(account))
        bucket.put("x", b"1")
        short.stop()
        for use in (
            lambda: bucket.put("x", b"2"),
            lambda: bucket.head("x"),
            lambda: bucket.list("", limit=1),
        ):
            started = time.monotonic()
            with pytest.raises(BucketUnavailable, match="does not answer; check the endpoint") as error:
                use()
            assert time.monotonic() - started < 20
            assert "\n" not in str(error.value) and account.secret_key not in str(error.value)


def test_a_change_after_the_close_shows(server, reader, ada):
    identity = Identity(bytes(32))
    arrays = {"indices": np.arange(9, dtype=np.uint8), "tables": np.ones(3, np.float32)}
    bucket = open_own_bucket(server.url(ada), keys_of(ada))
    public = reader.open(publish(server.url(ada), None))

    def upload(changed):
        manifest = Manifest("run", 3, "ada", 8, PROTOCOL, array_digests(changed), "")
        write_artifact(bucket, "rounds/3", changed, manifest, identity)

    upload(arrays)
    received = read_artifact(
        public,
        "rounds/3",
        schema_of(arrays),
        run="run",
        round=3,
        peer="ada",
        public_key=identity.public_key,
        max_declared=8,
    )
    assert all(np.array_equal(received.arrays[name], array) for name, array in arrays.items())
    time.sleep(1.1)
    closes = int(time.time())
    assert received.uploaded_at < closes
    upload({**arrays, "tables": np.zeros(3, np.float32)})
    changed = last_change(public, "rounds/3", schema_of(arrays))
    assert changed is not None and changed >= closes


def test_an_endpoint_must_be_public_or_allowed(server, ada):
    address = publish(server.url(ada), None)
    with pytest.raises(RefusedAddress, match="without https that is no --allow-endpoint"):
        PublicReader(EndpointPolicy()).open(address)
    with closing(PublicReader(EndpointPolicy())) as strict:
        bucket = strict.open(address.replace("http%3A", "https%3A"))
        with pytest.raises(BucketUnavailable, match="not public"):
            bucket.head("x")
