"""What strangers' storage may cost together: one deadline a read, connections in all and to a host, and names."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from storage.hostile_server import (
    IN_TIME,
    LATE,
    SECONDS,
    Hostile,
    answer,
    bucket_of,
    dripping,
    saying,
    silent,
)

from gauntlet_jax.storage.bucket import BucketUnavailable
from gauntlet_jax.storage.endpoints import CheckedNetwork, EndpointPolicy
from gauntlet_jax.storage.public_bucket import PublicReader, ReadLimits


def nameless(release):
    """A resolver whose name server does not answer before it is released."""

    def resolve(*_, **__):
        release.wait(10)
        return []

    return resolve


def test_a_slow_bucket_delays_nobody():
    slow, fast = Hostile(silent), Hostile(saying(answer(), ends=False))
    policy = EndpointPolicy(frozenset(f"127.0.0.1:{server.port}" for server in (slow, fast)))
    with closing(slow), closing(fast), closing(PublicReader(policy, ReadLimits(1.0, 0.3, 4))) as reader:
        stalled, swift = (
            reader.open(f"s3://bucket?endpoint=http://127.0.0.1:{server.port}") for server in (slow, fast)
        )
        with ThreadPoolExecutor(2) as pool:
            waiting = pool.submit(stalled.get, "k", max_bytes=10)
            started = time.monotonic()
            for _ in range(20):
                assert pool.submit(swift.get, "k", max_bytes=10).result().data == b"hello"
            assert time.monotonic() - started < 0.8
            assert not waiting.done()
            with pytest.raises(BucketUnavailable, match=IN_TIME):
                waiting.result()
            assert 0.9 < time.monotonic() - started < 1.8


def test_connections_are_limited_and_who_waits_in_vain_is_told():
    """Three reads of a silent server with room for two: the third gets a connection only when one of these is given up."""
    with (
        bucket_of(silent, connections=2) as (server, bucket),
        ThreadPoolExecutor(3) as pool,
    ):
        started = time.monotonic()
        reads = [pool.submit(bucket.get, "k", max_bytes=10) for _ in range(3)]
        time.sleep(SECONDS / 2)
        assert server.connections == 2
        for read in reads:
            with pytest.raises(BucketUnavailable, match=IN_TIME):
                read.result()
        assert time.monotonic() - started < 2 * LATE


@pytest.mark.parametrize("behave", [silent, dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x")])
def test_one_deadline_holds_for_waiting_and_for_reading(behave):
    """Who got a connection late has only the rest of its time left, not all of it again."""
    with bucket_of(behave, connections=1) as (_, bucket), ThreadPoolExecutor(3) as pool:

        def read(number):
            time.sleep(number * SECONDS / 3)
            started = time.monotonic()
            with pytest.raises(BucketUnavailable, match=IN_TIME):
                bucket.get("k", max_bytes=10)
            return time.monotonic() - started

        assert max(pool.map(read, range(3))) < SECONDS * 1.5


@pytest.mark.parametrize("per_host", [1, 2])
def test_a_host_has_no_more_than_its_share_of_the_connections(per_host):
    slow, fast = Hostile(silent), Hostile(saying(answer(), ends=False))
    policy = EndpointPolicy(frozenset(f"127.0.0.1:{server.port}" for server in (slow, fast)))
    limits = ReadLimits(SECONDS, 0.3, 3, per_host)
    with closing(slow), closing(fast), closing(PublicReader(policy, limits)) as reader:
        # Two buckets of one host share what it may have.
        stalled = [
            reader.open(f"s3://{name}?endpoint=http://127.0.0.1:{slow.port}") for name in ("one", "two")
        ]
        swift = reader.open(f"s3://bucket?endpoint=http://127.0.0.1:{fast.port}")
        with ThreadPoolExecutor(6) as pool:
            waiting = [pool.submit(stalled[number % 2].get, "k", max_bytes=10) for number in range(6)]
            time.sleep(SECONDS / 3)
            assert slow.connections == per_host
            assert swift.get("k", max_bytes=10).data == b"hello"
            assert not any(read.done() for read in waiting)
            for read in waiting:
                with pytest.raises(BucketUnavailable, match=IN_TIME):
                    read.result()
        # All gave their places back.
        assert swift.get("k", max_bytes=10).data == b"hello"


def test_a_name_server_that_never_answers_does_not_hold_a_read_up():
    release = threading.Event()
    policy = EndpointPolicy()
    network = CheckedNetwork(policy, SECONDS, nameless(release))
    try:
        with closing(PublicReader(policy, ReadLimits(SECONDS, 0.1), network=network)) as reader:
            started = time.monotonic()
            with pytest.raises(BucketUnavailable, match=IN_TIME):
                reader.open("s3://bucket?endpoint=https://h.example").head("k")
            assert time.monotonic() - started < LATE
    finally:
        release.set()
