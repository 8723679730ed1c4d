"""Strangers' storage that lies, stalls and floods: every read ends in time, with its own reason, in bounded memory."""

import os
import socket
import time
import traceback
import tracemalloc
from contextlib import closing, suppress

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage.hostile_server import (
    AT,
    IN_TIME,
    LATE,
    MODIFIED,
    SECONDS,
    Hostile,
    answer,
    bucket_of,
    dripping,
    flooding,
    resetting,
    saying,
    silent,
)

from gauntlet_jax.storage import public_bucket
from gauntlet_jax.storage.bucket import BucketUnavailable, Head, Object, ObjectTooLarge
from gauntlet_jax.storage.endpoints import EndpointPolicy
from gauntlet_jax.storage.public_bucket import PublicReader, ReadLimits


def test_an_honest_answer():
    with bucket_of(saying(answer(), ends=False)) as (server, bucket):
        assert bucket.get("a/b", max_bytes=5) == Object(b"hello", Head(AT, 5))
        assert bucket.head("a/b") == Head(AT, 5)
        assert [request.split("\r\n")[0] for request in server.requests] == [
            "GET /bucket/run/a/b HTTP/1.1",
            "HEAD /bucket/run/a/b HTTP/1.1",
        ]
        assert all("accept-encoding: identity" in request.lower() for request in server.requests)
        # Nothing was wrong, so the connection was used again.
        assert server.connections == 1


BROKEN = "broke the connection off, or speaks no HTTP"
NO_TIME, NO_SIZE = "does not say when the object came", "does not say how much it sends"
LIES = {
    "redirect": (saying(answer(status="302 Found", extra=["Location: http://127.0.0.1:1/x"])), "redirects"),
    "redirect for good": (saying(answer(status="308 Permanent Redirect")), "redirects"),
    "not modified": (saying(answer(b"", status="304 Not Modified")), "redirects"),
    "500": (saying(answer(status="500 Internal Server Error")), "answers with status 500"),
    "503": (saying(answer(status="503 Slow Down")), "answers with status 503"),
    "403": (saying(answer(status="403 Forbidden")), "answers with status 403"),
    "206": (saying(answer(status="206 Partial Content")), "answers with status 206"),
    "204": (saying(answer(b"", status="204 No Content")), "answers with status 204"),
    "101": (saying(answer(b"", status="101 Switching Protocols")), BROKEN),
    "body drips": (dripping(answer(b"", length="9999"), b"x"), IN_TIME),
    "headers drip": (dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"), IN_TIME),
    "status drips": (dripping(b"HTTP/1.1 2", b"0"), IN_TIME),
    "preliminaries drip": (dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), IN_TIME),
    "silent": (silent, IN_TIME),
    "stops in the middle": (dripping(answer(b"x", length="20"), b""), IN_TIME),
    "sends less": (saying(answer(length="9")), BROKEN),
    "sends nothing": (saying(b""), BROKEN),
    "reset": (resetting, BROKEN),
    "no HTTP": (saying(b"SSH-2.0-OpenSSH_9.2\r\n"), BROKEN),
    "a TLS record": (saying(b"\x16\x03\x01\x02\x00\x01"), BROKEN),
    "huge header": (saying(answer(extra=["X: " + "x" * 300_000])), BROKEN),
    "many headers": (saying(answer(extra=[f"X-{i}: y" for i in range(30_000)])), BROKEN),
    "endless headers": (flooding(b"HTTP/1.1 200 OK\r\nX: "), BROKEN),
    "no size": (saying(answer(length="")[:-5] + b"hello"), NO_SIZE),
    "negative size": (saying(answer(length="-5")), BROKEN),
    "two sizes": (saying(answer(extra=["Content-Length: 6"])), BROKEN),
    "size of many digits": (saying(answer(length="9" * 5000)), BROKEN + "|" + NO_SIZE),
    "chunked": (
        saying(
            answer(b"5\r\nhello\r\n0\r\n\r\n", length="", extra=["Transfer-Encoding: chunked"]),
        ),
        NO_SIZE,
    ),
    "chunked and a size": (
        saying(answer(b"6\r\nhello!\r\n0\r\n\r\n", length="5", extra=["Transfer-Encoding: chunked"])),
        "sends more than it announced",
    ),
    "chunked and less than its size": (
        saying(answer(b"3\r\nhel\r\n0\r\n\r\n", length="5", extra=["Transfer-Encoding: chunked"])),
        "sends less than it announced",
    ),
    "gzip": (saying(answer(extra=["Content-Encoding: gzip"])), "compressed"),
    "two encodings": (
        saying(answer(extra=["Content-Encoding: identity", "Content-Encoding: gzip"])),
        "compressed",
    ),
    "no time": (saying(answer(modified="")), NO_TIME),
    "garbage time": (saying(answer(modified="yesterday")), NO_TIME),
    "two times": (saying(answer(extra=[f"Last-Modified: {MODIFIED}"])), NO_TIME),
    "time in no zone": (saying(answer(modified="Thu, 09 Oct 2025 08:53:20")), NO_TIME),
    "time in another zone": (saying(answer(modified="Thu, 09 Oct 2025 10:53:20 +0200")), NO_TIME),
    "time on the wrong day": (saying(answer(modified="Fri, 09 Oct 2025 08:53:20 GMT")), NO_TIME),
    "year of two digits": (saying(answer(modified="Thu, 09 Oct 25 08:53:20 GMT")), NO_TIME),
    "time and more": (saying(answer(modified=f"{MODIFIED} or so")), NO_TIME),
    "time in a zone unknown": (saying(answer(modified="Thu, 09 Oct 2025 08:53:20 -0000")), NO_TIME),
    "time before 1970": (saying(answer(modified="Thu, 09 Oct 1969 08:53:20 GMT")), NO_TIME),
    "year of many digits": (saying(answer(modified=f"Thu, 09 Oct {'9' * 5000} 08:53:20 GMT")), NO_TIME),
}


@pytest.mark.parametrize("how", LIES)
def test_each_lie_is_refused_in_time_with_its_own_reason(how):
    behave, clause = LIES[how]
    with bucket_of(behave) as (_, bucket):
        started = time.monotonic()
        with pytest.raises(BucketUnavailable, match=clause) as caught:
            bucket.get("a/b", max_bytes=10_000)
        assert time.monotonic() - started < LATE
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "how", ["redirect", "403", "headers drip", "silent", "no size", "no time", "gzip", "sends nothing"]
)
def test_a_lie_about_an_objects_head_is_refused_as_well(how):
    behave, clause = LIES[how]
    with bucket_of(behave) as (_, bucket):
        started = time.monotonic()
        with pytest.raises(BucketUnavailable, match=clause):
            bucket.head("a/b")
        assert time.monotonic() - started < LATE


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_what_is_not_there_is_none(status):
    with bucket_of(saying(answer(b"<Error/>", status=status))) as (_, bucket):
        assert bucket.head("a/b") is None
        with pytest.raises(FileNotFoundError, match="no object 'a/b'"):
            bucket.get("a/b", max_bytes=10)


def test_a_redirect_is_not_followed():
    with closing(Hostile(saying(answer()))) as other:
        target = f"Location: http://127.0.0.1:{other.port}/bucket/run/k"
        redirecting = bucket_of(saying(answer(status="307 Temporary Redirect", extra=[target])))
        with redirecting as (_, bucket), pytest.raises(BucketUnavailable, match="redirects"):
            bucket.get("k", max_bytes=10)
        assert other.connections == 0


def test_nobody_listens():
    with closing(socket.create_server(("127.0.0.1", 0))) as closed:
        port = closed.getsockname()[1]
    with (
        closing(
            PublicReader(EndpointPolicy(frozenset({f"127.0.0.1:{port}"})), ReadLimits(SECONDS))
        ) as reader,
        pytest.raises(BucketUnavailable, match="broke the connection off"),
    ):
        reader.open(f"s3://bucket?endpoint=http://127.0.0.1:{port}").head("k")


@pytest.mark.parametrize(
    ("before", "kind", "clause"),
    [
        (answer(b"", length=str(2**40)), ObjectTooLarge, f"of {2**40} bytes, at most 10000"),
        (answer(b"", length="10001"), ObjectTooLarge, "of 10001 bytes"),
        (answer(b"", length=""), BucketUnavailable, NO_SIZE),
        (answer(b"", length="", extra=["Transfer-Encoding: chunked"]), BucketUnavailable, NO_SIZE),
        (
            answer(b"3fffffff\r\n", length="9000", extra=["Transfer-Encoding: chunked"]),
            BucketUnavailable,
            "sends more than it announced",
        ),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 1099511627776\r\n\r\n", FileNotFoundError, "no object"),
        (b"HTTP/1.1 200 OK\r\nX: ", BucketUnavailable, BROKEN),
    ],
)
def test_a_flood_takes_no_memory(before, kind, clause):
    with bucket_of(flooding(before)) as (_, bucket):
        tracemalloc.start()
        try:
            with pytest.raises(kind, match=clause):
                bucket.get("k", max_bytes=10_000)
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert most < 2_000_000


def test_more_than_was_announced_is_left_unread():
    with bucket_of(saying(answer() + b"and more")) as (_, bucket):
        assert bucket.get("k", max_bytes=10) == Object(b"hello", Head(AT, 5))
        assert bucket.head("k") == Head(AT, 5)


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=40))
def test_any_text_for_a_time_is_a_time_or_refused(text):
    with suppress(UnicodeEncodeError):
        headers = [(b"Content-Length", b"5"), (b"Last-Modified", text.encode("latin-1"))]
        response = httpcore.Response(200, headers=headers)
        with suppress(BucketUnavailable):
            assert 0 <= public_bucket._head_of(response, "GET").last_modified < 2**40


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_any_bytes_for_a_size_and_an_encoding_are_taken_or_refused(size, encoding):
    headers = [
        (b"Content-Length", size),
        (b"Content-Encoding", encoding),
        (b"Last-Modified", MODIFIED.encode()),
    ]
    with suppress(BucketUnavailable):
        assert public_bucket._head_of(httpcore.Response(200, headers=headers), "GET").size >= 0


def test_no_connection_outlives_a_failure():
    with bucket_of(saying(answer(status="403 Forbidden", length="500"))) as (server, bucket):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(BucketUnavailable):
                bucket.get("k", max_bytes=10)
        assert server.connections == 5
        time.sleep(0.1)
        assert len(os.listdir("/proc/self/fd")) <= before + 2


# Signed URLs

SECRET = "hush-hush/very+secret"
KEYS = "&region=eu-west-3&access_key=AKREADER&secret_key=hush-hush%2Fvery%2Bsecret"


def test_a_signed_read_carries_no_secret_and_nothing_of_this_machines_environment(monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "operators-own-token")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "operators-own-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "operators-own-secret")
    with bucket_of(saying(answer(), ends=False), keys=KEYS) as (server, bucket):
        assert bucket.get("a/b", max_bytes=10).data == b"hello"
        bucket.head("a/b")
        sent = "".join(server.requests)
        assert "X-Amz-Credential=AKREADER%2F" in sent
        for secret in (SECRET, "hush-hush", "operators-own"):
            assert secret not in sent
        assert "hush-hush" not in repr(bucket)


@pytest.mark.parametrize(
    "how", ["403", "silent", "sends nothing", "no HTTP", "no size", "huge header", "redirect"]
)
def test_no_error_repeats_a_key_that_was_published(how):
    with bucket_of(LIES[how][0], keys=KEYS) as (_, bucket), pytest.raises(BucketUnavailable) as caught:
        bucket.get("a/b", max_bytes=10)
    assert "hush-hush" not in "".join(traceback.format_exception(caught.value))
