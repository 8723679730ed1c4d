import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.signed_json import BadDocument, canonical, json_of, parse, read, sign

ADA, EVE = Identity(bytes(range(32))), Identity(bytes(32))
MOST = 10_000

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
FIELDS = st.dictionaries(
    st.text(max_size=6).filter(lambda name: name not in ("key", "signature")), JSON, max_size=4
)


def refused(data, match, *, domain="d", key=ADA.public_key, max_bytes=MOST):
    with pytest.raises(BadDocument, match=match) as caught:
        read(data, domain=domain, key=key, max_bytes=max_bytes)
    assert "\n" not in str(caught.value)


def test_canonical_by_hand():
    assert canonical({"b": [1, 2.5, None, True], "a": "\u00e9\n"}) == (
        b'{"a":"\\u00e9\\n","b":[1,2.5,null,true]}'
    )
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON compliant"):
            canonical({"a": value})


@given(FIELDS)
def test_what_was_signed_is_read(fields):
    data = sign(ADA, "d", fields)
    assert read(data, domain="d", key=ADA.public_key, max_bytes=MOST) == {**fields, "key": ADA.public_key}
    assert read(data, domain="d", key=None, max_bytes=MOST) == {**fields, "key": ADA.public_key}
    refused(data, "signed by another key", key=EVE.public_key)
    refused(data, "its signature does not hold", domain="e")
    refused(data, r"longer than \d+ bytes", max_bytes=len(data) - 1)
    assert parse(data, max_bytes=len(data)) == json.loads(data)


@given(FIELDS, st.data())
def test_there_is_one_text_of_a_document(fields, data):
    document = json.loads(sign(ADA, "d", fields))
    spaces = json.dumps(document, sort_keys=True).encode()
    unsorted = json.dumps(dict(reversed(sorted(document.items()))), separators=(",", ":")).encode()
    twice = canonical(document)[:-1] + b',"key":' + canonical(document["key"]) + b"}"
    for other in (
        spaces,
        unsorted,
        twice,
        canonical(document) + b"\n",
        b"\xef\xbb\xbf" + canonical(document),
    ):
        refused(other, "not in its canonical form|not JSON")
    place = data.draw(st.integers(0, len(canonical(document)) - 1))
    altered = bytearray(canonical(document))
    altered[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadDocument):
        read(bytes(altered), domain="d", key=ADA.public_key, max_bytes=MOST)


@settings(max_examples=300)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_refused(data):
    with pytest.raises(BadDocument):
        read(data, domain="d", key=None, max_bytes=MOST)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not JSON"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b"{}", "not signed"),
        (b"{} ", "canonical"),
        (b'{"a":NaN}', "not JSON"),
        (b'{"a":-Infinity}', "not JSON"),
        (b'{"a":1e999}', "not JSON"),
        (b'{"a":1.0e1}', "canonical"),
        (b'{"a":-0}', "canonical"),
        (b'{"a":"\xc3\xa9"}', "canonical"),
        (b'{"a":"\xff"}', "not JSON"),
        (b'{"a":1,"a":1}', "canonical"),
        (b"[" * 9_000, "not JSON"),
        (b'{"a":' * 1_900, "not JSON"),
        (b'{"a":' * 1_600 + b"1" + b"}" * 1_600, "not JSON"),
        (b'{"a":' + b"9" * 9_000 + b"}", "not JSON"),
        (b'{"signature":"aa"}', "not signed"),
        (b'{"key":1,"signature":"aa"}', "not signed"),
        (b'{"key":"aa","signature":[]}', "not signed"),
        (b'{"key":"aa","signature":"aa"}', "signed by another key"),
        (canonical({"key": ADA.public_key, "signature": "a" * 128}), "does not hold"),
        (canonical({"key": ADA.public_key, "signature": "\ud800"}), "text that is no Unicode"),
    ],
)
def test_refusals(data, match):
    refused(data, match)


def test_size_comes_before_anything_else():
    refused(b"[" * (MOST + 1), "longer than 10000 bytes")


def test_nested_just_below_the_limit_of_recursion():
    """No depth is found at which the check of one step passes what the next cannot take."""
    for depth in range(300, 1100, 7):
        fields = b'{"a":' * depth + b"1" + b"}" * depth
        document = (
            fields[:-1] + b',"key":"' + ADA.public_key.encode() + b'","signature":"' + b"a" * 128 + b'"}'
        )
        refused(document, "not JSON|does not hold|canonical", max_bytes=10**6)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc00\ud800", "\ud83d"])
def test_half_a_character_is_refused_though_it_is_signed(text):
    """It would crash who prints, hashes or stores it."""
    for fields in ({"a": text}, {text: 1}, {"a": [{"b": text}]}):
        refused(sign(ADA, "d", fields), "text that is no Unicode")


def test_whole_characters_are_taken():
    fields = {"a": "\U0001f600 \ue000 \\ud800"}
    assert read(sign(ADA, "d", fields), domain="d", key=None, max_bytes=MOST)["a"] == fields["a"]


def test_signing_takes_no_reserved_field():
    for name in ("key", "signature"):
        with pytest.raises(AssertionError):
            sign(ADA, "d", {name: 1})


def test_json_in_any_form():
    assert json_of(b' {"b": 1, "a": 2}\n') == {"a": 2, "b": 1}
    for data in (b"[1]", b"", b"\xff", b"[" * 10**5):
        with pytest.raises(BadDocument):
            json_of(data)
