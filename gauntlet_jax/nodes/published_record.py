"""A validator's published record: the signed document that it puts into its bucket and whose digest goes on the ledger.

It carries the round record and how the signed update can be had, one bit a parameter, by nodes whose hardware rounds otherwise
or whose copy of an artifact is gone. The validator may be anybody's: what is read here is checked like a peer's.
"""

import dataclasses
import hashlib
import re
from typing import Any, NamedTuple

import msgspec

from gauntlet_jax.nodes.record import SCHEMA, PeerRecord, RoundRecord, as_judged
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.signed_json import BadDocument

_DOMAIN = "record"
_FIELDS = {"run", "validator", "corpus", "update_planes", "update_sha256", "record", "key"}
_BASE_BYTES = 16 * 1024
_PEER_BYTES = 4 * 1024
_LARGEST_STEP = 1e6
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 2**63 - 1


class PublishedRecord(NamedTuple):
    """A published record, read and checked.

    Attributes:
      run: the run's name.
      validator: who publishes it.
      corpus: sha256 of the training text that it was made with.
      update_planes: planes of sign bits of the update; 0 where the update is not a signed one.
      update_sha256: of those planes; "" without.
      record: what was seen and decided.
      document: its bytes, as signed.
      digest: their sha256, what the ledger has.
    """

    run: str
    validator: str
    corpus: str
    update_planes: int
    update_sha256: str
    record: RoundRecord
    document: bytes
    digest: str


def record_key(round: int, digest: str) -> str:
    """Where in its bucket a validator publishes its record of a round, and copies of others' final ones."""
    return f"records/{round:08d}/{digest}.json"


def judged_key(round: int) -> str:
    """Where in its bucket a validator publishes how it has judged a round itself, whoever's record is final: for an audit."""
    return f"judged/{round:08d}.json"


def max_record_bytes(slots: int) -> int:
    """The most that a record of a run with so many slots may have."""
    return _BASE_BYTES + slots * _PEER_BYTES


def publish(
    record: RoundRecord,
    *,
    run: str,
    validator: str,
    corpus: str,
    update_planes: int,
    update_sha256: str,
    identity: Identity,
) -> PublishedRecord:
    """Signs a record; the arguments are the fields of ``PublishedRecord``."""
    document = signed_json.sign(
        identity,
        _DOMAIN,
        {
            "run": run,
            "validator": validator,
            "corpus": corpus,
            "update_planes": update_planes,
            "update_sha256": update_sha256,
            "record": dataclasses.asdict(record),
        },
    )
    digest = hashlib.sha256(document).hexdigest()
    return PublishedRecord(run, validator, corpus, update_planes, update_sha256, record, document, digest)


def read_published(
    document: bytes, *, run: str, round: int, validator: str, public_key: str, slots: int
) -> PublishedRecord:
    """Reads a validator's record.

    Args:
      document: what its bucket holds.
      run: the run that it must be of, as with ``round`` and ``validator``.
      round: t.
      validator: who must have signed it.
      public_key: that validator's.
      slots: of the run: a bound on its size.

    Raises:
      BadDocument: it is none; the text is one clause.
    """
    raw = signed_json.read(document, domain=_DOMAIN, key=public_key, max_bytes=max_record_bytes(slots))
    if set(raw) != _FIELDS:
        raise BadDocument("it has other fields than a record")
    if (raw["run"], raw["validator"]) != (run, validator):
        raise BadDocument("it is of another run or validator")
    planes, sha256 = raw["update_planes"], raw["update_sha256"]
    if type(planes) is not int or planes not in (0, 1, 2) or not _is_digest(raw["corpus"]):
        raise BadDocument("its corpus or update is misshapen")
    if not (sha256 == "" if planes == 0 else _is_digest(sha256)):
        raise BadDocument("its update has no sha256")
    try:
        record = msgspec.convert(raw["record"], RoundRecord, strict=True)
    except msgspec.ValidationError as error:
        raise BadDocument("it is no round record") from error
    of_round, of_peer = (
        {field.name for field in dataclasses.fields(schema)} for schema in (RoundRecord, PeerRecord)
    )
    if set(raw["record"]) != of_round or any(set(peer) != of_peer for peer in raw["record"]["peers"]):
        raise BadDocument("its record has other fields than the schema's")
    if record.validator != validator:
        raise BadDocument("its record is another validator's")
    if record.schema != SCHEMA or record.round != round:
        raise BadDocument("its record is of another round or schema")
    _check(record, slots)
    digest = hashlib.sha256(document).hexdigest()
    return PublishedRecord(run, validator, raw["corpus"], planes, sha256, record, document, digest)


def _check(record: RoundRecord, slots: int) -> None:
    """What types alone do not say; numbers are finite, since the document is JSON."""
    names = [peer.name for peer in record.peers]
    if len(names) > slots or len(set(names)) < len(names):
        raise BadDocument("it names more peers than there are slots, or one twice")
    if not _is_digest(record.params_digest):
        raise BadDocument("its parameters have no sha256")
    if record != as_judged(record):
        raise BadDocument("it says what was paid, which its validator cannot know")
    if not 0 <= record.learning_rate <= _LARGEST_STEP:
        raise BadDocument("its step size is none")
    for peer in record.peers:
        # Names and clauses end on terminals, counts in sums of floats and exponents.
        words = (peer.name, peer.behavior, peer.detail, peer.refusal or "", *peer.slashed, *peer.scores)
        if not all(map(str.isprintable, words)):
            raise BadDocument("it holds text that cannot be printed")
        counts = (peer.declared, peer.bytes, peer.rank, peer.evaluations)
        if not all(count is None or 0 <= count <= _LARGEST for count in counts):
            raise BadDocument("a count is negative or past 64 bits")
        if not (peer.digest is None or _is_digest(peer.digest)):
            raise BadDocument("a payload has no sha256")
        if peer.aggregated and (peer.digest is None or peer.refusal is not None):
            raise BadDocument("it aggregates what was refused")


def _is_digest(text: Any) -> bool:
    return type(text) is str and _SHA256.fullmatch(text) is not None
