"""Why a peer got what it got, in plain English, read off the round records.

``explain`` prints these sentences and the report shows them.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gauntlet_jax.nodes.record import PeerRecord, RoundRecord

REFUSALS: Mapping[str, str] = {
    "missing": "it uploaded nothing",
    "unreachable": "its bucket did not answer",
    "early": "its upload came before the put window opened",
    "late": "its upload came after the put window closed",
    "malformed": "its artifact was not well-formed",
    "out_of_sync": "its probe showed parameters that are not this round's",
    "duplicate": "its payload was the same as another peer's, which came first",
    "uncommitted": "it had not committed to it in time",
    "altered": "it had changed an artifact that was judged already",
}


def why(peer: PeerRecord, record: RoundRecord, before: PeerRecord | None, config: Mapping[str, Any]) -> str:
    """One sentence on why a peer was paid what it was paid in a round.

    Args:
      peer: its part of ``record``.
      record: the round.
      before: its part of the round before; None in the first.
      config: ``config.json``.
    """
    said = [_paid(peer, record, config)]
    if peer.refusal is not None:
        said.append(f"this round's artifact was refused as {peer.refusal}: {because(peer)}")
    if peer.slashed:
        was = before.standing if before is not None else 1.0
        change = (
            f"fell from {was:.2f} to {peer.standing:.2f}"
            if peer.standing < was
            else "stayed (one outage is only slashed so often)"
        )
        said.append(f"its standing {change}")
    elif before is not None and peer.standing > before.standing:
        said.append(f"clean rounds raised its standing to {peer.standing:.2f}")
    if peer.aggregated:
        said.append("its pseudo-gradient is part of this round's update")
    return f"In round {record.round} {peer.name} {'; '.join(said)}."


def verdict(records: Sequence[RoundRecord], name: str, config: Mapping[str, Any]) -> str:
    """The sentence on why a peer got its share of all payouts."""
    own = [peer for record in records if (peer := peer_of(record, name)) is not None]
    share, even, last = share_of_payouts(records, own), 1 / len(records[-1].peers), own[-1]
    got = f"{name} got {share:.2%} of all payouts" if share else f"{name} got nothing"
    causes = _shortfalls(own, config)
    if share and not causes:
        causes = [
            f"its updates lowered the loss (LossRating {last.loss_rating:.2f}) and helped its own "
            f"assigned data most (proof {last.proof_of_computation:+.2f})"
        ]
    return f"{got} (an equal share would be {even:.2%}){': ' if causes else ''}{'; '.join(causes)}."


@dataclasses.dataclass(frozen=True)
class Event:
    """Something of note in a peer's run: the rounds from ``first`` to ``last``, and what."""

    first: int
    last: int
    what: str

    @property
    def when(self) -> str:
        """Its rounds, for a reader."""
        return f"round {self.first}" if self.first == self.last else f"rounds {self.first}-{self.last}"


def timeline(records: Sequence[RoundRecord], name: str) -> list[Event]:
    """The events of a peer's run in order of their first round; runs of equal ones are one."""
    own = [(record.round, peer) for record in records if (peer := peer_of(record, name)) is not None]
    events = [
        *_firsts(own),
        *_folded(_stretches(own, lambda peer: f"refused as {peer.refusal}" if peer.refusal else "")),
        *_folded(_stretches(own, lambda peer: "slashed for overlap" if "overlap" in peer.slashed else "")),
    ]
    return sorted(events, key=lambda event: (event.first, event.last))


@dataclasses.dataclass(frozen=True)
class PayRule:
    """When a peer may be paid, as ``config.json`` says it.

    Attributes:
      evaluations: that it needs first.
      proof: the gate: its bias-corrected proof of computation must be above it.
      decay: gamma of the proof of computation.
    """

    evaluations: int
    proof: float
    decay: float

    def corrected(self, peer: PeerRecord) -> float:
        """mu_p / (1 - gamma^n), what the gate is held against.

        ``scoring.bias_corrected`` is the same; importing it would start jax, for seconds.
        """
        return peer.proof_of_computation / (1 - self.decay**peer.evaluations) if peer.evaluations else 0.0


def pay_rule(config: Mapping[str, Any]) -> PayRule | None:
    """The rule of a run; None where its ``config.json`` names none."""
    try:
        rewards, decay = config["rewards"], config["validator"]["proof_decay"]
        return PayRule(int(rewards["payable_after"]), float(rewards["payable_proof"]), float(decay))
    except (KeyError, TypeError, ValueError):
        return None


def unpayable(peer: PeerRecord, config: Mapping[str, Any]) -> str:
    """The clause on why a peer may not be paid in a round."""
    rule = pay_rule(config)
    counted = f"{peer.evaluations} evaluation{'' if peer.evaluations == 1 else 's'} so far"
    if peer.evaluations == 0:
        return "it has not been evaluated yet"
    if rule is None:
        return f"it is not past warm-up and gate ({counted}, proof {peer.proof_of_computation:+.2f})"
    if peer.evaluations >= rule.evaluations and rule.corrected(peer) > rule.proof:
        return "this round's artifact was refused or overlaps with another's"
    if peer.evaluations < rule.evaluations:
        return f"it is in its warm-up ({counted}, {rule.evaluations} needed)"
    return f"its proof, bias-corrected {rule.corrected(peer):+.2f}, is not above the gate {rule.proof:g}"


def because(peer: PeerRecord) -> str:
    """The clause on why an artifact was refused."""
    reason = REFUSALS.get(peer.refusal or "", "")
    return (
        f"{reason} ({peer.detail})"
        if reason and peer.detail
        else reason or peer.detail or "no reason recorded"
    )


def counts(counts: Counter[str | None] | Counter[str]) -> str:
    """Reasons with how often, the most frequent first; "never" without one."""
    return ", ".join(f"{reason} x{times}" for reason, times in counts.most_common()) or "never"


def share_of_payouts(records: Sequence[RoundRecord], own: Sequence[PeerRecord]) -> float:
    """A peer's share of what all peers were paid, in [0, 1]."""
    total = sum(peer.payout for record in records for peer in record.peers)
    return sum(peer.payout for peer in own) / total if total else 0.0


def peer_of(record: RoundRecord, name: str) -> PeerRecord | None:
    """A peer's part of a round; None where it took none."""
    return next((peer for peer in record.peers if peer.name == name), None)


def _paid(peer: PeerRecord, record: RoundRecord, config: Mapping[str, Any]) -> str:
    if peer.payout > 0:
        share = peer.payout / record.emission
        return (
            f"was paid {peer.payout:,} units, {share:.2%} of the round's emission, on a "
            f"PeerScore of {peer.peer_score:.3f} (LossRating {peer.loss_rating:.2f}, "
            f"proof {peer.proof_of_computation:+.2f}, standing {peer.standing:.2f})"
        )
    if not peer.payable:
        return f"was paid nothing: {unpayable(peer, config)}"
    if peer.peer_score <= 0:
        return f"was paid nothing: its PeerScore is 0 because {_no_score(peer)}"
    return f"was paid nothing: its incentive of {peer.incentive:.4%} is less than one unit"


def _no_score(peer: PeerRecord) -> str:
    if peer.proof_of_computation <= 0:
        return f"its proof {peer.proof_of_computation:+.2f} is not above 0"
    if peer.loss_rating <= 0:
        return f"its LossRating {peer.loss_rating:.2f} is not above 0"
    return "the config's PeerScore rule gave it none"


def _shortfalls(own: Sequence[PeerRecord], config: Mapping[str, Any]) -> list[str]:
    last, causes = own[-1], []
    refused = Counter(peer.refusal for peer in own if peer.refusal is not None)
    if refused:
        many = "all" if refused.total() == len(own) else f"{refused.total()} of"
        causes.append(f"{many} its {len(own)} artifacts were refused ({counts(refused)})")
    if last.evaluations == 0:
        return [*causes, "it was never evaluated, so nothing speaks for it"]
    rule, proof = pay_rule(config), last.proof_of_computation
    if rule is not None and rule.corrected(last) <= rule.proof:
        causes.append(
            f"its proof of computation, bias-corrected {rule.corrected(last):+.2f}, "
            f"is not above the gate {rule.proof:g}"
        )
    elif proof <= 0:
        causes.append(f"its proof of computation {proof:+.2f} is not above 0")
    if last.loss_rating <= 0:
        causes.append(
            f"its LossRating {last.loss_rating:.2f} is not above 0: "
            "it lost too many matches, or played too few"
        )
    return causes


def _firsts(own: Sequence[tuple[int, PeerRecord]]) -> Iterator[Event]:
    marks = (
        ("first evaluated", lambda peer: peer.rank is not None),
        ("first aggregated", lambda peer: peer.aggregated),
        ("first payable", lambda peer: peer.payable),
        ("first paid", lambda peer: peer.payout > 0),
    )
    for what, holds in marks:
        found = next((number for number, peer in own if holds(peer)), None)
        if found is not None:
            yield Event(found, found, what)
    low = min(own, key=lambda pair: pair[1].standing)
    if low[1].standing < 1.0:
        yield Event(low[0], low[0], f"standing at its lowest, {low[1].standing:.2f}")
    for (_, before), (number, after) in itertools.pairwise(own):
        if before.payable and not after.payable:
            yield Event(number, number, f"no longer payable (proof {after.proof_of_computation:+.2f})")


def _stretches(own: Sequence[tuple[int, PeerRecord]], said: Callable[[PeerRecord], str]) -> Iterator[Event]:
    current: Event | None = None
    for number, peer in own:
        what = said(peer)
        if current is not None and what == current.what:
            current = dataclasses.replace(current, last=number)
            continue
        if current is not None:
            yield current
        current = Event(number, number, what) if what else None
    if current is not None:
        yield current


def _folded(events: Iterator[Event]) -> Iterator[Event]:
    """Stretches of one kind as they are if they are few; else one event over all of them."""
    by_kind: dict[str, list[Event]] = {}
    for event in events:
        by_kind.setdefault(event.what, []).append(event)
    for what, found in by_kind.items():
        if len(found) <= 4:
            yield from found
        else:
            rounds = sum(event.last - event.first + 1 for event in found)
            yield Event(found[0].first, found[-1].last, f"{what} in {rounds} of these rounds")
