import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauntlet_jax.rewards import bucket_commitment
from gauntlet_jax.rewards.bucket_commitment import NoBucket, address_of, decode, encode

KEY = "ab" * 32
URL = "https://example.org/bucket.txt"
LONG = "s3://bucket/prefix?endpoint=https://" + "x" * 100


def page(address):
    return lambda url, most: {URL: address.encode()}[url]


def nothing(url, most):
    raise OSError("nobody is there")


@pytest.mark.parametrize("length", [1, 40, 95])
def test_a_short_address_is_kept_on_the_chain(length):
    address = "s3://bucket" + "x" * 100
    address = address[:length]
    commitment = encode(KEY, address, "")
    assert commitment == b"\x01" + bytes.fromhex(KEY) + address.encode()
    assert len(commitment) == 33 + length <= 128
    link = decode(commitment)
    assert (link.public_key, link.address, link.url) == (KEY, address, "")
    assert address_of(link, nothing) == address


def test_a_long_address_lies_below_a_url_that_its_hash_binds():
    commitment = encode(KEY, LONG, URL)
    assert commitment == b"\x02" + bytes.fromhex(KEY) + hashlib.sha256(LONG.encode()).digest() + URL.encode()
    link = decode(commitment)
    assert link.public_key == KEY
    assert address_of(link, page(LONG)) == LONG
    for fetch in (page(LONG + "x"), page(LONG[:-1]), page(""), nothing):
        with pytest.raises(NoBucket):
            address_of(link, fetch)
    longest = "https://" + "u" * 55
    assert len(encode(KEY, LONG, longest)) == 128


@pytest.mark.parametrize(
    ("key", "address", "url", "match"),
    [
        ("ab", "s3://x", "", "64 hexadecimal"),
        (KEY, "", "", "printable ASCII"),
        (KEY, "s3://x\n", "", "printable ASCII"),
        (KEY, "x" * 513, URL, "printable ASCII"),
        (KEY, "x" * 96, "", "95 fit on the chain"),
        (KEY, "x" * 96, "http://example.org", "https URL of at most 63"),
        (KEY, "x" * 96, "https://" + "u" * 56, "https URL of at most 63"),
        (KEY, "x" * 96, "https://user@example.org", "https URL"),
        (KEY, "x" * 96, "https://example.org:99999", "https URL"),
        (KEY, "x" * 96, "https:///x", "https URL"),
    ],
)
def test_what_cannot_be_committed_to(key, address, url, match):
    with pytest.raises(ValueError, match=match):
        encode(key, address, url)


@pytest.mark.parametrize(
    ("commitment", "match"),
    [
        (b"", "1 to 128 bytes"),
        (b"\x01" * 129, "1 to 128 bytes"),
        (b"\x00" + bytes(50), "another version"),
        (b"\x03" + bytes(50), "another version"),
        (b"\x01" + bytes(32), "no printable address"),
        (b"\x01" + bytes(20), "no printable address"),
        (b"\x01" + bytes(32) + b"s3://\xc3\xa4", "not ASCII"),
        (b"\x01" + bytes(32) + b"s3://\xff", "not ASCII"),
        (b"\x01" + bytes(32) + b"s3://a\n", "no printable address"),
        (b"\x02" + bytes(64), "no printable address"),
        (b"\x02" + bytes(64) + b"http://example.org", "not https"),
        (b"\x02" + bytes(64) + b"https://", "not https"),
        (b"\x02" + bytes(64) + b"https://a b", "not https"),
        (b"\x02" + bytes(64) + b"file:///etc/passwd", "not https"),
    ],
)
def test_a_hostile_commitment_names_no_bucket(commitment, match):
    with pytest.raises(NoBucket, match=match):
        decode(commitment)


@given(st.binary(max_size=140))
def test_any_bytes_are_a_bucket_or_none(data):
    try:
        link = decode(data)
    except NoBucket:
        return
    assert 33 < len(data) <= 128
    assert bool(link.address) != bool(link.url)
    assert (link.address or link.url).isprintable()
    assert len(link.public_key) == 64


@given(st.binary(max_size=600))
def test_whatever_lies_below_a_url_is_checked(found):
    link = decode(encode(KEY, LONG, URL))._replace(digest=hashlib.sha256(found).hexdigest())
    try:
        address = address_of(link, lambda url, most: found)
    except NoBucket:
        return
    assert 0 < len(address) <= bucket_commitment.MAX_ADDRESS
    assert address.isascii()
    assert address.isprintable()
