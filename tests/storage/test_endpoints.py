"""Which addresses are read from: a stranger's address must not lead to what only this machine reaches."""

import ipaddress
import socket
import threading
import time
import traceback
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import httpcore
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gauntlet_jax.storage.endpoints import (
    MAX_ADDRESS,
    Address,
    CheckedNetwork,
    EndpointPolicy,
    RefusedAddress,
    RefusedEndpoint,
    is_public,
    parse_address,
)
from gauntlet_jax.storage.object_store import Credentials, publish


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("file:///srv/buckets/ada", Address("file", folder=Path("/srv/buckets/ada"))),
        ("file:///with%20space/%C3%A9", Address("file", folder=Path("/with space/é"))),
        (
            "s3://bucket-ada",
            Address("s3", "bucket-ada", "", "https://s3.us-east-1.amazonaws.com", "us-east-1"),
        ),
        (
            "s3://bucket-ada/run/7/?region=eu-west-3",
            Address("s3", "bucket-ada", "run/7", "https://s3.eu-west-3.amazonaws.com", "eu-west-3"),
        ),
        (
            "s3://bucket-ada/run?endpoint=https://h.example:9000/&region=auto",
            Address("s3", "bucket-ada", "run", "https://h.example:9000", "auto"),
        ),
        (
            "s3://bucket-ada?endpoint=HTTPS://H.Example:443",
            Address("s3", "bucket-ada", "", "https://h.example", "us-east-1"),
        ),
        (
            "s3://bucket-ada?endpoint=http://[2606:4700::1]:80",
            Address("s3", "bucket-ada", "", "http://[2606:4700::1]", "us-east-1"),
        ),
        (
            "s3://bucket-ada?access_key=AK&secret_key=S%2Fx%2B",
            Address("s3", "bucket-ada", "", "https://s3.us-east-1.amazonaws.com", "us-east-1", "AK", "S/x+"),
        ),
        ("gs://bucket.ada/run", Address("gs", "bucket.ada", "run", "https://storage.googleapis.com")),
    ],
)
def test_addresses_are_taken_apart(text, parts):
    assert parse_address(text) == parts


def with_endpoint(endpoint):
    return f"s3://bucket?endpoint={quote(endpoint, safe='')}"


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("", "1 to 512 printable"),
        ("s3://" + "b" * MAX_ADDRESS, "1 to 512 printable"),
        ("s3://bucket/é", "1 to 512 printable"),
        ("s3://bucket/a\nb", "1 to 512 printable"),
        ("s3://[bucket", "not a URL"),
        ("s3://bucket?endpoint", "not a URL"),
        ("s3://bucket#x", "no fragment"),
        ("s3://me:word@bucket", "no fragment, no user"),
        ("s3://bucket?region=a&region=b", "no option twice"),
        ("file://host/folder", "file:///absolute/folder"),
        ("file:folder", "file:///absolute/folder"),
        ("file:///folder?a=b", "file:///absolute/folder"),
        ("file:///a/../b", "file:///absolute/folder"),
        ("file:///a/%2e%2e/b", "file:///absolute/folder"),
        ("file:///a%00b", "file:///absolute/folder"),
        ("http://host/bucket", "begins with file://, s3:// or gs://"),
        ("/folder", "begins with file://, s3:// or gs://"),
        ("memory://", "begins with file://, s3:// or gs://"),
        ("s3://", "name or prefix"),
        ("s3://BUCKET", "name or prefix"),
        ("s3://bucket:80", "name or prefix"),
        ("s3://bucket/a//b", "name or prefix"),
        ("s3://bucket/../b", "name or prefix"),
        ("s3://bucket/%2e%2e/b", "name or prefix"),
        ("s3://bucket?anonymous=1", "option that there is not"),
        ("gs://bucket?endpoint=https://h.example", "option that there is not"),
        ("s3://bucket?region=EU/..", "a region is made"),
        ("s3://bucket?access_key=a", "go together"),
        ("s3://bucket?secret_key=a", "go together"),
        ("s3://bucket?access_key=a&secret_key=", "printable ASCII"),
        ("s3://bucket?access_key=a%0A&secret_key=b", "printable ASCII"),
        ("s3://bucket?access_key=a&secret_key=%C3%A9", "printable ASCII"),
        (with_endpoint("ftp://h.example"), "written https://HOST"),
        (with_endpoint("h.example"), "written https://HOST"),
        (with_endpoint("https://h.example/path"), "written https://HOST"),
        (with_endpoint("https://h.example?x"), "written https://HOST"),
        (with_endpoint("https://h.example:99999"), "no URL"),
        (with_endpoint("https://h.example:x"), "no URL"),
        (with_endpoint("https://"), "proper host"),
        (with_endpoint("https://me@h.example"), "proper host"),
        (with_endpoint("https://h.example\\@other"), "proper host"),
        (with_endpoint("https://h .example"), "proper host"),
        (with_endpoint("https://[fe80::1%eth0]"), "proper host"),
        (with_endpoint("https://\u0130.example"), "proper host"),
    ],
)
def test_other_addresses_are_refused(text, clause):
    with pytest.raises(RefusedAddress, match=clause) as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://h\n.example",
        "https://h.exam\tple",
        "https://h.example?",
        "https://h.example#",
        "HTTPS://h.example:",
    ],
)
def test_an_endpoint_that_libraries_read_differently_is_written_anew(endpoint):
    assert parse_address(with_endpoint(endpoint)).endpoint == "https://h.example"


def test_a_sign_that_only_looks_like_a_letter_does_not_reach_the_network():
    assert parse_address(with_endpoint("https://\u212a.example")).endpoint == "https://k.example"


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket?secret_key=hush-hush&hush-hush",
        "s3://bucket?endpoint=https://h.example:hush-hush",
        "s3://AK:hush-hush@bucket",
        "s3://bucket?access_key=hush-hush%0A&secret_key=hush-hush",
        "s3://bucket?hush-hush=1",
    ],
)
def test_a_refusal_repeats_nothing_of_the_address(text):
    with pytest.raises(RefusedAddress) as caught:
        parse_address(text)
    assert "hush-hush" not in "".join(traceback.format_exception(caught.value))


def test_a_secret_key_shows_in_no_representation():
    address = parse_address("s3://bucket?access_key=AK&secret_key=hush-hush")
    assert address.secret_key == "hush-hush"
    assert "hush-hush" not in repr(address)


HARD_TEXT = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    st.builds(
        lambda scheme, parts: scheme + "".join(parts),
        st.sampled_from(
            ["s3://", "gs://", "file://", "file:///", "s3:", "s3://bucket?endpoint=", "s3://bucket?"]
        ),
        st.lists(
            st.sampled_from(
                [
                    "bucket",
                    "/",
                    "..",
                    "%2e",
                    "%00",
                    "%0a",
                    "?",
                    "&",
                    "=",
                    "#",
                    "@",
                    ":",
                    "[",
                    "]",
                    "::1",
                    "%",
                    "\\",
                    "%E2%84%AA",
                    "%ff",
                    "9000",
                    ";",
                    "+",
                    "endpoint=",
                    "https://",
                    "http%3A%2F%2F",
                    "h.example",
                    "region=",
                    "access_key=",
                    "secret_key=",
                ]
            ),
            max_size=12,
        ),
    ),
)


@given(HARD_TEXT)
@example("s3://bucket?endpoint=https://[::1")
@example("file:////")
@example("file:///%ff")
def test_any_text_is_an_address_or_refused(text):
    try:
        address = parse_address(text)
    except RefusedAddress:
        return
    assert address.scheme in ("file", "s3", "gs")
    assert address.folder.is_absolute()
    assert ".." not in address.folder.parts
    if address.scheme != "file":
        assert address.endpoint.startswith(("https://", "http://"))
        # One reading: the library that connects sees the same host as the policy that judges.
        url = httpcore.URL(f"{address.endpoint}/{address.bucket}")
        assert parse_address(with_endpoint(address.endpoint)).endpoint == address.endpoint
        assert url.target == f"/{address.bucket}".encode()


NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{1,20}[a-z0-9]", fullmatch=True)
PREFIXES = st.lists(st.from_regex(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]{0,9}", fullmatch=True), max_size=3).map(
    "/".join
)
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(
    NAMES,
    PREFIXES,
    NAMES.map(lambda name: f"https://{name}.example"),
    st.sampled_from(["", ":8443"]),
    st.sampled_from(["us-east-1", "auto", ""]),
    st.none() | st.builds(Credentials, KEYS, KEYS),
)
def test_a_published_address_says_the_same_as_the_url(bucket, prefix, host, port, region, read):
    url = f"s3://{bucket}/{prefix}?endpoint={host}{port}&region={region}"
    public = publish(url, read)
    assert len(public) <= MAX_ADDRESS
    own, found = parse_address(url), parse_address(public)
    keys = ("", "") if read is None else (read.access_key, read.secret_key)
    assert (found.access_key, found.secret_key) == keys
    parts = [(a.scheme, a.bucket, a.prefix, a.endpoint, a.region) for a in (own, found)]
    assert parts[0] == parts[1] == ("s3", bucket, prefix, host + port, region)


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8), max_size=4
    )
)
def test_a_published_folder_is_the_same_folder(parts):
    folder = Path("/", *(part for part in parts if part != ".."))
    public = publish(folder.as_uri(), None)
    assert parse_address(public).folder == folder


# Folders


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
