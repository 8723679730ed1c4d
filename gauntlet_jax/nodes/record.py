"""The round record: what a validator saw and decided in one round, and what it came to, one JSON line in ``rounds.jsonl``.

Schema 1 (fields may be added, none renamed). ``explain``, ``report`` and the laboratory read nothing else.
A number that does not exist is ``null``, never a stand-in value. A validator signs the record ``as_judged``, whose digest goes
on the ledger; what the ledger then makes of all validators' weights is put in by ``settlement.paid``.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class PeerRecord:
    """One peer in one round.

    Attributes:
      name: the peer.
      behavior: how it was configured to behave in a simulation; "unknown" in the field.
      declared: sequences of its assigned stream that it says it trained on; None without an artifact.
      uploaded_at: the storage provider's time of the upload, seconds since the put window opened; None without one.
      bytes: size of its artifact as stored; None without one.
      digest: sha256 (hex) of the decoded payload; None without a well-formed artifact.
      sync_score: mean distance of its probe from the validator's parameters, in signed steps; None without one.
      refusal: why the artifact was not evaluated: "missing", "early", "late", "malformed", "out_of_sync",
        "duplicate"; None if it was accepted.
      slashed: reasons of this round for which its standing was lowered (a refusal, or "overlap").
      detail: one clause for a reader, such as "uploaded 3.0 s after the window closed" or "same payload as ada".
      scores: ``assigned``, ``random`` (nats/token, positive = the loss went down) and a config's own; {} if unevaluated.
      rank: place in the round's match, 0 = best; None if it did not play.
      rating_mu, rating_sigma, loss_rating: OpenSkill after the round; loss_rating = mu - 3 sigma.
      proof_of_computation: mu_p after the round, in [-1, 1].
      evaluations: rounds in which it has been evaluated so far.
      standing: s_p after the round, in (0, 1].
      peer_score: PeerScore times standing.
      aggregated: whether it is one of the top-G whose pseudo-gradients made this round's update.
      incentive: its normalised weight; what an unpayable peer would have had goes to the reserve.
      payable: whether it may be paid (past the warm-up of evaluations and above the gate on its proof).
      payout: integer units that it was paid.
      committed_at: the storage provider's time of its commit, seconds since the put window opened; None without one.
      consensus: the weight that the validators together give it, in [0, 1]; None before that is known.
    """

    name: str
    behavior: str
    declared: int | None
    uploaded_at: float | None
    bytes: int | None
    digest: str | None
    sync_score: float | None
    refusal: str | None
    slashed: tuple[str, ...]
    detail: str
    scores: Mapping[str, float]
    rank: int | None
    rating_mu: float
    rating_sigma: float
    loss_rating: float
    proof_of_computation: float
    evaluations: int
    standing: float
    peer_score: float
    aggregated: bool
    incentive: float
    payable: bool
    payout: int
    committed_at: float | None = None
    consensus: float | None = None


@dataclasses.dataclass(frozen=True)
class ValidatorRecord:
    """One validator in one round, as the ledger paid it.

    Attributes:
      name: the validator.
      behavior: how it was configured to behave in a simulation; "unknown" in the field.
      stake: its weight.
      trust: the part of its weights that the consensus left to it, in [0, 1]; None where no weights of it stood.
      dividends: its part of what validators earned, in [0, 1].
      payout: integer units that it was paid.
      vetoed: why others rejected the record that it posted, as one clause; "" if they did not.
    """

    name: str
    behavior: str
    stake: float
    trust: float | None
    dividends: float
    payout: int
    vetoed: str


@dataclasses.dataclass(frozen=True)
class RoundRecord:
    """One round.

    Attributes:
      round: t, from 0.
      learning_rate: alpha_t, the size of the signed step.
      heldout_loss: nats/token on the held-out split after the round's update; None in rounds that do not measure it.
      baseline_loss: the same for the baseline trained beside it; None without one.
      params_digest: sha256 (hex) of theta_{t+1}.
      emission: integer units given out this round; 0 until they are.
      reserve: the part of them that nobody may have.
      peers: in the configuration's order.
      validators: as the ledger paid them; empty until it has.
      remainder: units lost to flooring; the payouts of peers and validators, the reserve and it sum to ``emission``.
      validator: whose record it is.
    """

    round: int
    learning_rate: float
    heldout_loss: float | None
    baseline_loss: float | None
    params_digest: str
    emission: int
    reserve: int
    peers: tuple[PeerRecord, ...]
    schema: int = SCHEMA
    validators: tuple[ValidatorRecord, ...] = ()
    remainder: int = 0
    validator: str = ""


def as_judged(record: RoundRecord) -> RoundRecord:
    """The record without what its validator cannot know: what the ledger paid."""
    peers = tuple(dataclasses.replace(peer, payout=0, consensus=None) for peer in record.peers)
    return dataclasses.replace(record, emission=0, reserve=0, remainder=0, validators=(), peers=peers)


def digest_of(record: RoundRecord) -> str:
    """sha256 (hex) of the record as it was judged: what a ledger has of a run in one process."""
    return hashlib.sha256(to_json(as_judged(record)).encode()).hexdigest()


def to_json(record: RoundRecord) -> str:
    """One line of strict JSON (no NaN or infinity: those are refused, since a record must be readable anywhere)."""
    return json.dumps(dataclasses.asdict(record), allow_nan=False, separators=(",", ":"))


def from_json(line: str) -> RoundRecord:
    """Reads one line; fields that a later schema added are passed over.

    Raises:
      ValueError: the line is not a record of a schema that this version reads.
    """
    try:
        raw = json.loads(line, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("not JSON that a record could be: nested too deeply") from error
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise ValueError(f"not a round record of schema {SCHEMA}")
    try:
        peers = tuple(
            PeerRecord(**_known(PeerRecord, {**p, "slashed": tuple(p["slashed"])})) for p in raw["peers"]
        )
        validators = tuple(
            ValidatorRecord(**_known(ValidatorRecord, one)) for one in raw.get("validators", ())
        )
        return RoundRecord(**_known(RoundRecord, {**raw, "peers": peers, "validators": validators}))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"a round record of schema {SCHEMA} lacks a field: {error}") from error


def read_records(path: Path) -> Iterator[RoundRecord]:
    """The records of a ``rounds.jsonl``, in order.

    Raises:
      ValueError: a line is not a record; it names the line.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield from_json(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error


def finite_or_none(value: float) -> float | None:
    """A number for JSON: None in place of NaN and infinity (a peer may make any score overflow)."""
    return float(value) if math.isfinite(value) else None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _known(cls: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {key: value for key, value in raw.items() if key in names}
