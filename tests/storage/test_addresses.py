"""Addresses of buckets as texts: what is taken apart, what is refused, and what a node publishes."""

import traceback
from pathlib import Path
from urllib.parse import quote

import httpcore
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gauntlet_jax.storage.endpoints import (
    MAX_ADDRESS,
    Address,
    RefusedAddress,
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
