"""A node's own bucket before any byte is sent: its URL, its credentials, and what is said when either is wrong."""

import contextlib
import gc
import os
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauntlet_jax.storage.bucket import BucketUnavailable, FolderBucket
from gauntlet_jax.storage.endpoints import MAX_ADDRESS, EndpointPolicy, RefusedAddress, parse_address
from gauntlet_jax.storage.object_store import Credentials, StoreBucket, open_own_bucket, publish

SECRET = "hush-hush/0123456789"
KEYS = Credentials("AKOWNER", SECRET)


def text_of(error):
    """An error with all that led to it, as a log would show it."""
    return "".join(traceback.format_exception(error)) + repr(error)


def test_a_folder_is_opened_and_keeps_the_file_systems_time(tmp_path):
    bucket = open_own_bucket((tmp_path / "a b").as_uri(), None)
    assert isinstance(bucket, FolderBucket)
    before = time.time()
    bucket.put("k", b"1")
    assert before - 0.1 <= bucket.get("k", max_bytes=1).head.last_modified <= time.time() + 0.1
    assert (tmp_path / "a b" / "k").read_bytes() == b"1"


@pytest.mark.parametrize(
    "url", ["s3://bucket", "s3://bucket/run?endpoint=http://127.0.0.1:1&region=x", "gs://bucket/run"]
)
def test_an_object_store_is_opened_without_a_network(url, monkeypatch):
    """Also ``gs://``, whose credentials are looked for when something is written."""

    def forbidden(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    started = time.monotonic()
    assert isinstance(open_own_bucket(url, None if url.startswith("gs") else KEYS), StoreBucket)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bucket",
        "memory://",
        "/folder",
        "http://h.example/bucket",
        "s3://",
        "s3://Bucket",
        "s3://bucket?endpoint=h.example",
        "s3://bucket?endpoint=https://h.example/path",
        "s3://bucket?colour=red",
        "s3://bucket/" + "x" * MAX_ADDRESS,
        "gs://bucket?region=x",
        "file://host/folder",
        "file:///a/../b",
        "s3://bucket\n",
        f"s3://AK:{SECRET}@bucket/run",
        f"s3://bucket?secret_key={SECRET}",
        f"s3://bucket?access_key=AK&secret_key={SECRET}&{SECRET}",
        f"s3://bucket?endpoint=https://AK:{SECRET}@h.example",
        f"gs://bucket?secret_key={SECRET}",
    ],
)
def test_a_wrong_url_gets_one_line_that_says_what_is_expected(url):
    with pytest.raises(
        ValueError, match=r"^bucket.*expected file:///absolute/folder, s3://bucket/prefix"
    ) as caught:
        open_own_bucket(url, None)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert SECRET not in text_of(caught.value)


def test_a_url_with_keys_is_refused_without_repeating_them():
    with pytest.raises(
        ValueError, match="holds no keys: credentials to write come from the environment"
    ) as caught:
        open_own_bucket(f"s3://bucket?access_key=AK&secret_key={SECRET}", KEYS)
    assert SECRET not in text_of(caught.value)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be created: Not a directory"):
        open_own_bucket((tmp_path / "file" / "x").as_uri(), None)


# Credentials


def test_a_secret_key_shows_in_no_representation():
    bucket = open_own_bucket("s3://bucket?endpoint=http://127.0.0.1:1", KEYS)
    for shown in (repr(KEYS), str(KEYS), f"{KEYS}", repr(bucket), repr(bucket.__dict__["_store"])):
        assert SECRET not in shown
    assert repr(KEYS) == "Credentials(access_key='AKOWNER')"


@pytest.mark.parametrize("wrong", ["", "a b", "a\n[other]", "é" + SECRET, SECRET + "\0", "x" * 257])
def test_keys_are_words(wrong):
    for pair in ((wrong, SECRET), ("AK", wrong)):
        with pytest.raises(ValueError, match="printable ASCII characters without spaces") as caught:
            Credentials(*pair)
        assert SECRET not in text_of(caught.value)


def test_without_credentials_no_store_is_opened_and_nobody_is_asked_for_any(monkeypatch):
    """The storage libraries would ask the machine's metadata service."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(
        BucketUnavailable, match="no credentials to write there; set AWS_ACCESS_KEY_ID"
    ) as caught:
        open_own_bucket("s3://bucket/run?endpoint=http://127.0.0.1:1", None)
    assert "\n" not in str(caught.value) and SECRET not in text_of(caught.value)


def test_who_is_refused_is_told_which_credentials_to_check(monkeypatch):
    for url, keys, advice in (("s3://bucket", KEYS, "AWS_ACCESS_KEY_ID"), ("gs://bucket", None, "Google's")):
        bucket = open_own_bucket(url, keys)
        assert isinstance(bucket, StoreBucket)
        with (
            pytest.raises(BucketUnavailable, match=f"refuses these credentials: check {advice}"),
            bucket._failures(),
        ):
            raise OSError("status 403")


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_the_file_of_the_keys_is_its_owners_alone_and_goes_with_the_bucket(system, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    bucket = open_own_bucket("s3://bucket?endpoint=http://127.0.0.1:1", KEYS)
    assert isinstance(bucket, StoreBucket)
    profile = bucket._profile(KEYS)
    keys = Path(profile["credentials_file"])
    assert SECRET in keys.read_text()
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert keys.stat().st_uid == os.getuid()
    where = os.readlink(keys) if system == "linux" else str(keys.parent)
    if system == "linux":
        # A file without a name: nothing is left of it when the process is killed.
        assert where.startswith("/memfd:") and keys.stat().st_nlink == 0
    else:
        assert stat.S_IMODE(keys.parent.stat().st_mode) == 0o700
    del bucket
    gc.collect()
    assert not keys.exists() or os.readlink(keys) != where
    assert system == "linux" or not keys.parent.exists()


@contextlib.contextmanager
def answering(status, body):
    """An HTTP server on loopback that answers everything alike."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    stop = threading.Event()
    threads = []
    said = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()

    def serve(connection):
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.settimeout(1.0)
            connection.recv(65536)
            connection.sendall(said)

    def accept():
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        listener.close()


@pytest.mark.parametrize(
    ("status", "body", "clause"),
    [
        (
            "403 Forbidden",
            f"<Error><Code>AccessDenied</Code>{SECRET}\nline</Error>",
            "refuses these credentials",
        ),
        (
            "404 Not Found",
            "<Error><Code>NoSuchBucket</Code></Error>",
            "there is no such bucket; create it first",
        ),
        (
            "400 Bad Request",
            f"<Error><Code>Odd</Code>14031 {SECRET}\nline</Error>",
            "does not answer; check the endpoint",
        ),
        ("200 OK", "no XML", "does not answer; check the endpoint"),
    ],
)
def test_what_a_provider_says_becomes_one_line_of_ours(status, body, clause):
    with answering(status, body) as port:
        bucket = open_own_bucket(f"s3://bucket?endpoint=http://127.0.0.1:{port}&region=us-east-1", KEYS)
        uses: list[Callable[[], object]] = [lambda: bucket.list("a", limit=1)]
        if not status.startswith("200"):
            uses.append(lambda: bucket.put("a", b"x"))
        for use in uses:
            with pytest.raises(BucketUnavailable, match=clause) as caught:
                use()
            assert "\n" not in str(caught.value)
            assert SECRET not in text_of(caught.value)


# Public addresses


def test_a_public_address_is_short_and_says_where():
    assert publish("s3://bucket/run?endpoint=https://h.example:9000&region=auto", None) == (
        "s3://bucket/run?endpoint=https%3A%2F%2Fh.example%3A9000&region=auto"
    )
    public = publish("s3://bucket?region=eu-west-3", Credentials("AK", "a/b+c"))
    assert public == (
        "s3://bucket/?endpoint=https%3A%2F%2Fs3.eu-west-3.amazonaws.com&region=eu-west-3"
        "&access_key=AK&secret_key=a%2Fb%2Bc"
    )
    assert parse_address(public).secret_key == "a/b+c"
    assert publish("gs://bucket/run", None) == "gs://bucket/run"
    assert publish("file:///srv/a b", None) == "file:///srv/a%20b"


@pytest.mark.parametrize("url", ["gs://bucket", "file:///srv"])
def test_keys_to_read_that_would_be_left_out_are_refused(url):
    with pytest.raises(ValueError, match="for s3:// buckets alone") as caught:
        publish(url, Credentials("AK", SECRET))
    assert SECRET not in text_of(caught.value)


@given(
    st.integers(0, 480).map(lambda count: "s3://bucket/" + "x" * count)
    | st.integers(0, 480).map(lambda count: "file:///" + " " * count),
    st.none() | st.text("a/+%", min_size=1, max_size=200).map(lambda secret: Credentials("AK", secret)),
)
def test_an_address_that_is_published_fits_and_is_accepted(url, read):
    try:
        public = publish(url, read if url.startswith("s3") else None)
    except RefusedAddress as error:
        assert "1 to 512 printable" in str(error)
        return
    assert len(public) <= MAX_ADDRESS
    policy = EndpointPolicy(folders=(Path("/"),))
    assert policy.check(public).bucket == ("bucket" if url.startswith("s3") else "")
