"""Which addresses are read from: a stranger's address must not lead to what only this machine reaches."""

import ipaddress
import socket
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauntlet_jax.storage.endpoints import (
    CheckedNetwork,
    EndpointPolicy,
    RefusedAddress,
    RefusedEndpoint,
    is_public,
)


def test_folders_below_an_allowed_one_are_read(tmp_path):
    policy = EndpointPolicy(folders=(tmp_path / "open",))
    (tmp_path / "open" / "ada").mkdir(parents=True)
    assert policy.check((tmp_path / "open" / "ada").as_uri()).folder == (tmp_path / "open" / "ada").resolve()
    assert policy.check((tmp_path / "open").as_uri()).folder == (tmp_path / "open").resolve()
    # Its owner may come later.
    assert policy.check((tmp_path / "open" / "later").as_uri()).scheme == "file"


def test_folders_elsewhere_are_not(tmp_path):
    allowed = tmp_path / "open"
    policy = EndpointPolicy(folders=(allowed,))
    (allowed / "in").mkdir(parents=True)
    (tmp_path / "closed" / "deep").mkdir(parents=True)
    (tmp_path / "opened").mkdir()
    (allowed / "out").symlink_to(tmp_path / "closed")
    for refused in (
        tmp_path,
        tmp_path / "closed",
        tmp_path / "opened",  # begins with the allowed one's name
        allowed / "out",
        allowed / "out" / "deep",
        Path("/etc"),
        Path("/"),
    ):
        with pytest.raises(RefusedAddress, match="below no --allow-folder"):
            policy.check(refused.as_uri())
    with pytest.raises(RefusedAddress, match="file:///absolute/folder"):
        policy.check(f"{allowed.as_uri()}/in/../../closed")
    with pytest.raises(RefusedAddress, match="below no --allow-folder"):
        EndpointPolicy().check(allowed.as_uri())


def test_an_allowed_folder_may_itself_be_a_link(tmp_path):
    (tmp_path / "disk" / "ada").mkdir(parents=True)
    (tmp_path / "open").symlink_to(tmp_path / "disk")
    found = EndpointPolicy(folders=(tmp_path / "open",)).check((tmp_path / "open" / "ada").as_uri())
    assert found.folder == (tmp_path / "disk" / "ada").resolve()


# Endpoints


def with_endpoint(endpoint):
    return f"s3://bucket?endpoint={endpoint}"


def test_exceptions_hold_for_a_host_and_a_port_as_they_are_written():
    policy = EndpointPolicy(frozenset({"127.0.0.1:9000", "minio:80", "store.example:8443"}))
    for good in ("http://127.0.0.1:9000", "http://minio", "http://store.example:8443", "https://h.example"):
        assert policy.check(with_endpoint(good)).endpoint == good
    for bad in ("http://127.0.0.1:9001", "http://127.0.0.1", "http://localhost:9000", "http://minio:81"):
        with pytest.raises(RefusedAddress, match="without https that is no --allow-endpoint"):
            policy.check(with_endpoint(bad))
    assert policy.allows("127.0.0.1", 9000)
    assert not policy.allows("127.0.0.2", 9000)


@pytest.mark.parametrize(
    "wrong", ["", "host", "host:", ":80", "http://host:80", "host:80/x", "h ost:80", "h:123456"]
)
def test_a_misspelt_exception_is_refused_at_once(wrong):
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        EndpointPolicy(frozenset({wrong}))


PRIVATE = [
    "10.0.0.1",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "127.0.0.1",
    "127.1.2.3",
    "169.254.169.254",
    "100.64.0.1",
    "100.127.255.255",
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.251",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.0.1",
    "192.0.0.8",
    "192.0.0.171",
    "192.0.2.1",
    "198.51.100.7",
    "203.0.113.9",
    "198.18.0.1",
    "198.19.255.255",
    "192.88.99.1",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "2001:db8::1",
    "3fff::1",
    "100::1",
    "2001:2::1",
    "5f00::1",
    "64:ff9b:1::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:10.0.0.1",
    "2002:0a00:0001::1",
    "2002:7f00:0001::",
    "2002:a9fe:a9fe::1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]  # the last one: Teredo of 10.0.0.1, its bits turned over
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "169.253.1.1",
    "223.255.255.254",
    "192.169.0.1",
    "11.0.0.1",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "2002:0808:0808::1",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_only_this_machine_or_nobody_reaches_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize("address", ["", "h.example", "1.2.3", "0x7f.1", "2130706433", "8.8.8.8:80", "[::1]"])
def test_what_is_no_address_is_not_public(address):
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_is_not_made_public_by_being_wrapped(address):
    wrapped = [
        ipaddress.IPv6Address((0xFFFF << 32) | int(address)),
        ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80) | 1),
        ipaddress.IPv6Address((0x64FF9B << 96) | int(address)),
    ]
    for found in wrapped:
        assert is_public(str(found)) == is_public(str(address))


# Connections


class Resolver:
    """Answers each question with the next of some lists of addresses."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, host, port, **_):
        self.asked.append((host, port))
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.answers.pop(0)
        ]


class Sockets(httpcore.NetworkBackend):
    """Notes where a connection would go and makes none."""

    def __init__(self, dead=(), seconds=0.0):
        self.dead = dead
        self.seconds = seconds
        self.went = []

    def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.went.append((host, port, timeout))
        time.sleep(self.seconds)
        if host in self.dead:
            raise httpcore.ConnectError("refused")
        return httpcore.NetworkStream()


def network(resolver, sockets, *exceptions):
    checked = CheckedNetwork(EndpointPolicy(frozenset(exceptions)), 1.0, resolver)
    checked._sockets = sockets
    return checked


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["8.8.8.8", "10.0.0.1"],
        ["10.0.0.1", "8.8.8.8"],
        ["8.8.8.8", "::1"],
        ["fe80::1%2"],
        ["nonsense"],
    ],
)
def test_a_name_with_any_private_address_is_refused(answer):
    sockets = Sockets()
    with pytest.raises(RefusedEndpoint, match="not public"):
        network(Resolver(answer), sockets).connect_tcp("h.example", 443, 1.0)
    assert sockets.went == []


def test_the_connection_goes_to_the_address_that_was_judged():
    """A name that gives another address to the second who asks is asked once."""
    resolver, sockets = Resolver(["8.8.8.8"], ["127.0.0.1"]), Sockets()
    network(resolver, sockets).connect_tcp("h.example", 443, 1.0)
    assert resolver.asked == [("h.example", 443)]
    assert [(host, port) for host, port, _ in sockets.went] == [("8.8.8.8", 443)]


def test_an_address_that_is_dead_is_followed_by_the_next_within_one_time():
    sockets = Sockets(dead={"8.8.8.8", "1.1.1.1"}, seconds=0.05)
    answer = ["8.8.8.8", "8.8.8.8", "1.1.1.1", "9.9.9.9"]
    network(Resolver(answer), sockets).connect_tcp("h.example", 443, 1.0)
    assert [host for host, _, _ in sockets.went] == ["8.8.8.8", "1.1.1.1", "9.9.9.9"]
    times = [timeout for _, _, timeout in sockets.went]
    assert times[0] <= 1.0 and times[1] <= times[0] - 0.05 and times[2] <= times[1] - 0.05
    many = [f"8.8.{high}.{low}" for high in range(4) for low in range(250)]
    sockets = Sockets(dead=set(many), seconds=0.05)
    with pytest.raises(httpcore.ConnectTimeout):
        network(Resolver(many), sockets).connect_tcp("h.example", 443, 0.2)
    assert len(sockets.went) <= 5


def test_an_exception_is_for_one_host_and_port():
    sockets = Sockets()
    network(Resolver(["127.0.0.1"]), sockets, "h.example:9000").connect_tcp("h.example", 9000, 1.0)
    assert [host for host, _, _ in sockets.went] == ["127.0.0.1"]
    for host, port in (("h.example", 9001), ("H.example", 9000), ("127.0.0.1", 9000)):
        with pytest.raises(RefusedEndpoint):
            network(Resolver(["127.0.0.1"]), Sockets(), "h.example:9000").connect_tcp(host, port, 1.0)


def slow_for(name, release):
    """A resolver that does not come back with one name before it is released."""
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        if host == name:
            release.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))]

    return resolve, asked


def test_a_name_that_is_resolved_too_late_holds_up_nobody():
    release = threading.Event()
    resolve, asked = slow_for("slow.example", release)
    checked = network(resolve, Sockets())
    try:
        started = time.monotonic()
        for _ in range(10):
            with pytest.raises(httpcore.ConnectTimeout, match="not resolved in time"):
                checked.connect_tcp("slow.example", 443, 0.02)
        assert time.monotonic() - started < 1.0
        checked.connect_tcp("honest.example", 443, 0.5)
        # However often one is asked for: one question, one thread.
        assert asked == ["slow.example", "honest.example"]
    finally:
        release.set()


def test_names_that_are_being_resolved_are_bounded():
    release = threading.Event()

    def resolve(*_, **__):
        release.wait(10)
        return []

    checked = network(resolve, Sockets())
    try:
        before = threading.active_count()
        for number in range(80):
            with pytest.raises(httpcore.ConnectTimeout):
                checked.connect_tcp(f"h{number}.example", 443, 0.001)
        assert threading.active_count() - before <= 64
        with pytest.raises(httpcore.ConnectTimeout, match="too many names"):
            checked.connect_tcp("another.example", 443, 0.5)
    finally:
        release.set()


def test_a_name_is_asked_for_anew_when_its_answer_has_come():
    resolver, sockets = Resolver(["8.8.8.8"], ["9.9.9.9"]), Sockets()
    checked = network(resolver, sockets)
    for _ in range(2):
        checked.connect_tcp("h.example", 443, 1.0)
        time.sleep(0.05)
    assert [host for host, _, _ in sockets.went] == ["8.8.8.8", "9.9.9.9"]


def test_a_name_without_an_address():
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(httpcore.ConnectError, match="cannot be resolved"):
        network(unknown, Sockets()).connect_tcp("h.example", 443, 1.0)
    with pytest.raises(httpcore.ConnectError, match="no address"):
        network(Resolver([]), Sockets()).connect_tcp("h.example", 443, 1.0)
    # The machine's own resolver refuses this one before it asks anybody.
    with pytest.raises(httpcore.ConnectError, match="cannot be resolved"):
        CheckedNetwork(EndpointPolicy(), 1.0).connect_tcp("h..example", 443, 1.0)
    with pytest.raises(RefusedEndpoint, match="socket of this machine"):
        network(Resolver(), Sockets()).connect_unix_socket("/run/secret.sock")


@contextmanager
def dripping(seconds):
    """Sends a byte now and then, forever."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        stop = threading.Event()

        def drip():
            connection, _ = server.accept()
            with closing(connection):
                while not stop.wait(seconds):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def test_a_byte_now_and_then_does_not_keep_an_answer_going():
    with dripping(0.02) as port:
        checked = CheckedNetwork(EndpointPolicy(frozenset({f"127.0.0.1:{port}"})), 0.3)
        stream = checked.connect_tcp("127.0.0.1", port, 1.0)
        with closing(stream):
            stream.write(b"question", 1.0)
            started = time.monotonic()
            with pytest.raises(httpcore.ReadTimeout):
                while stream.read(10, 1.0):
                    pass
            assert 0.25 < time.monotonic() - started < 0.6
            # The next question has its own time.
            stream.write(b"question", 1.0)
            assert stream.read(10, 1.0)
