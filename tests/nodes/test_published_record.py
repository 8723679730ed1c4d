"""A validator may be anybody's: what it publishes as its record is checked like a peer's artifact."""

import dataclasses
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet_jax.nodes.published_record import max_record_bytes, publish, read_published, record_key
from gauntlet_jax.nodes.record import PeerRecord, RoundRecord
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.signed_json import BadDocument

ANN, EVE = Identity(bytes([3]) * 32), Identity(bytes([4]) * 32)
SLOTS = 3

ADA = PeerRecord(
    name="ada", behavior="unknown", declared=8, uploaded_at=31.5, bytes=5000, digest="ab" * 32, sync_score=0.1, refusal=None,
    slashed=(), detail="", scores={"assigned": 0.5, "random": 0.25}, rank=0, rating_mu=25.0, rating_sigma=8.3, loss_rating=0.1,
    proof_of_computation=0.4, evaluations=3, standing=1.0, peer_score=0.1, aggregated=True, incentive=0.5, payable=True,
    payout=0, committed_at=-20.0,
)  # fmt: skip
BEN = dataclasses.replace(
    ADA, name="ben", declared=None, uploaded_at=None, bytes=None, digest=None, sync_score=None, refusal="missing",
    slashed=("missing",), detail="no artifact in its bucket", scores={}, rank=None, evaluations=0, aggregated=False, payable=False,
    committed_at=None,
)  # fmt: skip
RECORD = RoundRecord(7, 3e-3, 3.25, None, "cd" * 32, 0, 0, (ADA, BEN), validator="ann")
TERMS: dict[str, Any] = {
    "run": "demo",
    "validator": "ann",
    "corpus": "ef" * 32,
    "update_planes": 1,
    "update_sha256": "01" * 32,
}


def published(record: RoundRecord = RECORD, identity: Identity = ANN, **terms: Any):
    return publish(record, **{**TERMS, **terms}, identity=identity)


def read(document: bytes, **expected: Any):
    own = {"run": "demo", "round": 7, "validator": "ann", "public_key": ANN.public_key, "slots": SLOTS}
    return read_published(document, **{**own, **expected})


def refused(document: bytes, match: str, **expected: Any) -> None:
    with pytest.raises(BadDocument, match=match) as caught:
        read(document, **expected)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 100


def signed(change: dict[str, Any], *, peer: dict[str, Any] | None = None, top: dict[str, Any] | None = None):
    """A record that its validator has signed, of any content: what a lying validator publishes."""
    fields = json.loads(published().document)
    del fields["key"], fields["signature"]
    fields["record"]["peers"][0].update(peer or {})
    fields["record"].update(change)
    return signed_json.sign(ANN, "record", {**fields, **(top or {})})


@pytest.mark.parametrize(("planes", "sha256"), [(0, ""), (1, "01" * 32), (2, "01" * 32)])
def test_what_was_published_is_read(planes, sha256):
    own = published(update_planes=planes, update_sha256=sha256)
    assert read(own.document) == own
    assert (own.record, own.update_planes, own.update_sha256) == (RECORD, planes, sha256)


def test_the_digest_is_of_the_very_bytes():
    own = published()
    assert own.digest == hashlib.sha256(own.document).hexdigest()
    assert record_key(12, own.digest) == f"records/00000012/{own.digest}.json"


def test_the_document_by_hand():
    document = json.loads(published().document)
    signature = document.pop("signature")
    record = {
        **vars(RECORD),
        "validators": [],
        "peers": [{**vars(peer), "slashed": list(peer.slashed)} for peer in (ADA, BEN)],
    }
    assert document == {**TERMS, "record": record, "key": ANN.public_key}
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert signature == ANN.sign("record", text)


def test_a_record_of_the_size_of_a_run_fits():
    """With the longest names and a clause each, so that no honest record of a full run is too large."""
    peers = tuple(
        dataclasses.replace(BEN, name=f"{number:064}", detail="x" * 1000, digest="ab" * 32)
        for number in range(64)
    )
    own = published(dataclasses.replace(RECORD, peers=peers))
    assert len(own.document) < max_record_bytes(64)
    assert read(own.document, slots=64) == own


@pytest.mark.parametrize(
    ("expected", "match"),
    [
        ({"run": "other"}, "it is of another run or validator"),
        ({"validator": "eve"}, "it is of another run or validator"),
        ({"round": 6}, "its record is of another round or schema"),
        ({"public_key": EVE.public_key}, "signed by another key"),
        ({"slots": 1}, "more peers than there are slots"),
    ],
)
def test_a_record_of_something_else(expected, match):
    refused(published().document, match, **expected)


def test_a_record_signed_for_another_purpose_or_by_another():
    fields = json.loads(published().document)
    del fields["key"], fields["signature"]
    refused(signed_json.sign(ANN, "manifest", fields), "its signature does not hold")
    refused(published(identity=EVE).document, "signed by another key")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "not signed"),
        (b"[" * 20_000, "not JSON"),
        (b" " * (max_record_bytes(SLOTS) + 1), "longer than 28672 bytes"),
        (published().document + b"\n", "canonical"),
        (published().document[:-1], "not JSON"),
        (published().document.replace(b'"rank":0', b'"rank":1'), "its signature does not hold"),
    ],
)
def test_hostile_bytes(data, match):
    refused(data, match)


TOP_LIES = [
    ({"update_planes": 3}, "its corpus or update is misshapen"),
    ({"update_planes": -1}, "its corpus or update is misshapen"),
    ({"update_planes": True}, "its corpus or update is misshapen"),
    ({"update_planes": 1.0}, "its corpus or update is misshapen"),
    ({"update_planes": None}, "its corpus or update is misshapen"),
    ({"corpus": ""}, "its corpus or update is misshapen"),
    ({"corpus": "EF" * 32}, "its corpus or update is misshapen"),
    ({"corpus": ["ef" * 32]}, "its corpus or update is misshapen"),
    ({"update_sha256": ""}, "its update has no sha256"),
    ({"update_sha256": "01" * 31}, "its update has no sha256"),
    ({"update_planes": 0}, "its update has no sha256"),
    ({"run": None}, "another run or validator"),
    ({"validator": ["ann"]}, "another run or validator"),
    ({"note": "x"}, "other fields than a record"),
    ({"record": None}, "no round record"),
    ({"record": []}, "no round record"),
    ({"record": "x"}, "no round record"),
]


@pytest.mark.parametrize(("change", "match"), TOP_LIES)
def test_lies_around_the_record(change, match):
    refused(signed({}, top=change), match)


VALIDATOR = {
    "name": "ann", "behavior": "honest", "stake": 1.0, "trust": 1.0, "dividends": 1.0, "payout": 1, "vetoed": "",
}  # fmt: skip
ROUND_LIES = [
    ({"round": 8}, "another round or schema"),
    ({"schema": 2}, "another round or schema"),
    ({"schema": True}, "no round record"),
    ({"round": True}, "no round record"),
    ({"round": 7.0}, "no round record"),
    ({"learning_rate": "0.1"}, "no round record"),
    ({"learning_rate": 10**400}, "no round record"),
    ({"peers": {}}, "no round record"),
    ({"peers": [None]}, "no round record"),
    ({"peers": [{}]}, "no round record"),
    ({"note": "x"}, "its record has other fields than the schema's"),
    ({"params_digest": "x"}, "its parameters have no sha256"),
    ({"params_digest": "CD" * 32}, "its parameters have no sha256"),
    ({"emission": 1}, "it says what was paid"),
    ({"reserve": -1}, "it says what was paid"),
    ({"remainder": 1}, "it says what was paid"),
    ({"validators": [VALIDATOR]}, "it says what was paid"),
    ({"validators": [{}]}, "no round record"),
    ({"validator": "eve"}, "its record is another validator's"),
]


@pytest.mark.parametrize(("change", "match"), ROUND_LIES)
def test_lies_about_the_round(change, match):
    refused(signed(change), match)


PEER_LIES = [
    ({"payout": 1}, "it says what was paid"),
    ({"payout": -1}, "it says what was paid"),
    ({"consensus": 0.0}, "it says what was paid"),
    ({"payout": 60.0}, "no round record"),
    ({"payout": True}, "no round record"),
    ({"aggregated": 1}, "no round record"),
    ({"scores": {"assigned": "x"}}, "no round record"),
    ({"scores": []}, "no round record"),
    ({"slashed": "late"}, "no round record"),
    ({"name": None}, "no round record"),
    ({"name": "ben"}, "names more peers than there are slots, or one twice"),
    ({"digest": ""}, "a payload has no sha256"),
    ({"digest": "AB" * 32}, "a payload has no sha256"),
    ({"digest": None}, "it aggregates what was refused"),
    ({"refusal": "late"}, "it aggregates what was refused"),
    ({"refusal": ""}, "it aggregates what was refused"),
    ({"note": "x"}, "its record has other fields than the schema's"),
    ({"name": "ada\x1b[2J"}, "text that cannot be printed"),
    ({"name": "ada\u202e"}, "text that cannot be printed"),
    ({"detail": "one\ntwo"}, "text that cannot be printed"),
    ({"behavior": "\x07"}, "text that cannot be printed"),
    ({"slashed": ["\r"]}, "text that cannot be printed"),
    ({"scores": {"\x00": 1.0}}, "text that cannot be printed"),
    ({"refusal": "\x1b", "aggregated": False}, "text that cannot be printed"),
    ({"evaluations": -1}, "a count is negative or past 64 bits"),
    ({"evaluations": 2**63}, "a count is negative or past 64 bits"),
    ({"bytes": 10**400}, "a count is negative or past 64 bits"),
    ({"declared": -1}, "a count is negative or past 64 bits"),
    ({"rank": -1}, "a count is negative or past 64 bits"),
]


@pytest.mark.parametrize(("change", "match"), PEER_LIES)
def test_lies_about_a_peer(change, match):
    refused(signed({}, peer=change), match)


@pytest.mark.parametrize("name", sorted({field.name for field in dataclasses.fields(PeerRecord)}))
def test_a_field_that_is_missing(name):
    fields = json.loads(published().document)
    del fields["key"], fields["signature"], fields["record"]["peers"][0][name]
    refused(signed_json.sign(ANN, "record", fields), "no round record|other fields")


@pytest.mark.parametrize("name", sorted({field.name for field in dataclasses.fields(RoundRecord)}))
def test_a_field_of_the_round_that_is_missing(name):
    fields = json.loads(published().document)
    del fields["key"], fields["signature"], fields["record"][name]
    refused(signed_json.sign(ANN, "record", fields), "no round record|other fields")


def test_a_lie_about_nothing_is_none():
    """Or every refusal above would be one of the way in which the documents are made."""
    assert read(signed({})).record == RECORD
    unusual = {"detail": "caf\u00e9 \U0001f600", "evaluations": 2**63 - 1, "rank": None}
    assert read(signed({}, peer=unusual)).record.peers[0].detail == "caf\u00e9 \U0001f600"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


FIELDS = [
    *(("top", name) for name in (*TERMS, "record")),
    *(("change", name) for name in vars(RECORD)),
    *(("peer", name) for name in vars(ADA)),
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FIELDS), JSON)
def test_any_value_in_any_field_is_read_or_refused(field, value):
    place, name = field
    document = signed(**{"change": {}, place: {name: value}})
    try:
        found = read(document)
    except BadDocument as refusal:
        assert len(str(refusal)) < 100
    else:
        assert found.document == document


@pytest.mark.parametrize("step", [-1e308, 10**40, -3e-3])
def test_a_step_that_no_schedule_has(step):
    refused(signed({"learning_rate": step}), "its step size is none")


def test_a_field_more_in_a_peer():
    refused(signed({}, peer={"incentive2": 1.0}), "other fields")
