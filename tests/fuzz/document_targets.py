"""Records, and signed documents by themselves."""

import dataclasses
from typing import Any

from fuzz.hostile_bucket import HostileBucket, Objects
from fuzz.mutations import GIANT
from fuzz.target import ADA, EVE, Case, Target, document_cases

from gauntlet_jax.nodes.published_record import max_record_bytes, publish, read_published
from gauntlet_jax.nodes.record import PeerRecord, RoundRecord
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.bucket import ObjectTooLarge
from gauntlet_jax.storage.commit import (
    MAX_COMMIT_BYTES,
)
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.signed_json import BadDocument

_SLOTS = 4


def _peer_record(name: str) -> PeerRecord:
    return PeerRecord(
        name, "unknown", 8, 1.5, 5000, "ab" * 32, 0.1, None, (), "", {"assigned": 0.5, "random": 0.25}, 0, 25.0, 8.3, 0.1,
        0.4, 3, 1.0, 0.1, True, 0.5, True, 0,
    )  # fmt: skip


RECORD = RoundRecord(
    7, 3e-3, None, None, "cd" * 32, 0, 0, (_peer_record("ada"), _peer_record("ben")), validator="V1"
)


def _record(identity: Identity = ADA, *, run: str = "demo", validator: str = "V1", **changes: Any) -> Objects:
    published = publish(
        dataclasses.replace(RECORD, **changes),
        run=run,
        validator=validator,
        corpus="ef" * 32,
        update_planes=1,
        update_sha256="01" * 32,
        identity=identity,
    )
    return {"record": published.document}


def _read_record(bucket: HostileBucket) -> Any:
    # Twice what it may have, so that its own bound is tried, too.
    document = bucket.one("record", max_bytes=2 * max_record_bytes(_SLOTS))
    return read_published(
        document, run="demo", round=7, validator="V1", public_key=ADA.public_key, slots=_SLOTS
    )


def _record_cases() -> dict[str, Case]:
    cases = document_cases(_record(), "record", "record", max_record_bytes(_SLOTS))
    cases["of 100 MB"] = ({"record": GIANT}, "has 100000000 bytes")
    ada, ben = RECORD.peers
    replaced = dataclasses.replace
    return {
        **cases,
        "another validator's": (_record(EVE, validator="V2"), "signed by another key"),
        "of another validator": (_record(validator="V2"), "another run or validator"),
        "of another run": (_record(run="demo2"), "another run or validator"),
        "of the round before": (_record(round=6), "another round or schema"),
        "payouts from nothing": (_record(peers=(replaced(ada, payout=61), ben)), "it says what was paid"),
        "a negative payout": (
            _record(peers=(replaced(ada, payout=61), replaced(ben, payout=-1))),
            "it says what was paid",
        ),
        "a payout past 64 bits": (
            _record(peers=(replaced(ada, payout=2**70), ben)),
            "(it says what was paid|no round record)",
        ),
        "a peer twice": (_record(peers=(ada, replaced(ada, payout=0))), "or one twice"),
        "more peers than slots": (
            _record(peers=tuple(replaced(ben, name=f"p{n}") for n in range(5))),
            "more peers",
        ),
        "parameters without a digest": (_record(params_digest="x"), "no sha256"),
        "a payload without a digest": (_record(peers=(replaced(ada, digest="x"), ben)), "no sha256"),
        "what was refused": (
            _record(peers=(replaced(ada, refusal="late"), ben)),
            "aggregates what was refused",
        ),
    }


def _document() -> Objects:
    return {
        "document": signed_json.sign(ADA, "test", {"run": "demo", "round": 7, "list": [1, 2.5, "x", None]})
    }


def _read_document(bucket: HostileBucket) -> Any:
    data = bucket.one("document", max_bytes=2 * MAX_COMMIT_BYTES)
    return signed_json.canonical(
        signed_json.read(data, domain="test", key=ADA.public_key, max_bytes=MAX_COMMIT_BYTES)
    )


def _bare_document_cases() -> dict[str, Case]:
    cases = document_cases(_document(), "document", "test", MAX_COMMIT_BYTES)
    del cases["a field more"]  # that is for who reads the fields
    cases["of 100 MB"] = ({"document": GIANT}, "has 100000000 bytes")
    return cases


_REFUSALS = (BadDocument, ObjectTooLarge, FileNotFoundError)
RECORDS = Target(
    "records",
    sample=_record,
    read=_read_record,
    refusals=_REFUSALS,
    most_bytes=2 * max_record_bytes(_SLOTS),
    cases=_record_cases,
    signed=("record", "record"),
    free=True,
)
DOCUMENTS = Target(
    "signed documents",
    sample=_document,
    read=_read_document,
    refusals=_REFUSALS,
    most_bytes=2 * MAX_COMMIT_BYTES,
    cases=_bare_document_cases,
)
