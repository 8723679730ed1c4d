"""``gauntlet explain RUN --peer NAME [--round T]``: why a peer was paid what it was paid."""

import argparse
import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gauntlet_jax.cli import reasons, run_folder
from gauntlet_jax.cli.leaderboard import printable
from gauntlet_jax.cli.run_folder import UsageError
from gauntlet_jax.nodes.record import PeerRecord, RoundRecord


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def run(arguments: Sequence[str]) -> int:
    """The command.

    Args:
      arguments: what follows ``gauntlet explain``.

    Returns:
      0.

    Raises:
      UsageError: no run there, no such peer (it names the nearest), no such round.
    """
    parser = _Parser(prog="gauntlet explain", description="Says why a peer was paid what it was paid.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--peer", required=True, metavar="NAME", help="the peer, as the leaderboard names it")
    parser.add_argument(
        "--round", type=int, metavar="T", help="one round, from 0 (default: the story of all rounds)"
    )
    given = parser.parse_args(arguments)
    found = run_folder.read_run(given.run)
    name = find_peer(found.records, given.peer)
    if given.round is None:
        print("\n".join(printable(line, 400) for line in story(found.records, name, found.config)))
        return 0
    record = find_round(found.records, given.round)
    print("\n".join(printable(line, 400) for line in one_round(found.records, record, name, found.config)))
    return 0


def find_peer(records: Sequence[RoundRecord], name: str) -> str:
    """The peer of that name.

    Raises:
      UsageError: there is none; it names the nearest.
    """
    names = list(dict.fromkeys(peer.name for record in records for peer in record.peers))
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    hint = f"; the nearest is {near[0]}" if near else ""
    raise UsageError(printable(f"no peer {name} in this run{hint} (peers: {', '.join(names)})", 400))


def find_round(records: Sequence[RoundRecord], number: int) -> RoundRecord:
    """The record of that round.

    Raises:
      UsageError: there is none.
    """
    for record in records:
        if record.round == number:
            return record
    raise UsageError(
        f"no round {number} in this run: it has rounds {records[0].round} to {records[-1].round}"
    )


def one_round(
    records: Sequence[RoundRecord], record: RoundRecord, name: str, config: Mapping[str, Any]
) -> list[str]:
    """The lines on one peer in one round: every factor of its score, every penalty, the sentence why."""
    peer = reasons.peer_of(record, name)
    if peer is None:
        raise UsageError(printable(f"peer {name} took no part in round {record.round}", 400))
    before = _before(records, record, name)
    rows = [
        ("behavior", peer.behavior),
        ("declared", _number(peer.declared, "{} assigned sequences")),
        ("uploaded", _number(peer.uploaded_at, "{:.1f} s after the round opened")),
        (
            "artifact",
            _number(peer.bytes, "{:,} bytes") + (f", sha256 {peer.digest[:16]}" if peer.digest else ""),
        ),
        ("SyncScore", _number(peer.sync_score, "{:.2f} signed steps from the validator's parameters")),
        ("refusal", f"{peer.refusal}: {reasons.because(peer)}" if peer.refusal else "none"),
        ("slashed for", ", ".join(peer.slashed) or "nothing"),
        *((f"LossScore, {key}", f"{value:+.5f} nats per token") for key, value in peer.scores.items()),
        ("rank", _rank(peer, record)),
        (
            "LossRating",
            f"{peer.loss_rating:.2f} = mu {peer.rating_mu:.2f} - 3 x sigma {peer.rating_sigma:.2f}"
            + _moved(before and before.loss_rating, peer.loss_rating),
        ),
        (
            "proof mu_p",
            f"{peer.proof_of_computation:+.3f}"
            + _moved(before and before.proof_of_computation, peer.proof_of_computation)
            + _gate(peer, config),
        ),
        ("evaluations", f"{peer.evaluations}"),
        ("standing", f"{peer.standing:.3f}" + _moved(before and before.standing, peer.standing)),
        (
            "PeerScore",
            f"{peer.peer_score:.4f} (the config's PeerScore times the standing)",
        ),
        ("aggregated", "yes" if peer.aggregated else "no"),
        ("incentive", f"{peer.incentive:.2%} of the round"),
        ("payable", "yes" if peer.payable else f"no: {reasons.unpayable(peer, config)}"),
        ("consensus", _number(peer.consensus, "{:.4f} of the weights, over all validators")),
        (
            "payout",
            f"{peer.payout:,} of {record.emission:,} units (validators"
            f" {sum(one.payout for one in record.validators):,}, reserve {record.reserve:,})",
        ),
    ]
    width = max(len(label) for label, _ in rows)
    lines = [f"{peer.name}, round {record.round}", ""]
    lines += [f"  {label:<{width}}  {value}" for label, value in rows]
    return [*lines, "", reasons.why(peer, record, before, config)]


def story(records: Sequence[RoundRecord], name: str, config: Mapping[str, Any]) -> list[str]:
    """The lines on a peer's whole run: what it got, why, and the timeline."""
    own = [peer for record in records if (peer := reasons.peer_of(record, name)) is not None]
    last, paid = own[-1], sum(peer.payout for peer in own)
    share = reasons.share_of_payouts(records, own)
    refused = Counter(peer.refusal for peer in own if peer.refusal is not None)
    slashed = Counter(reason for peer in own for reason in peer.slashed)
    lines = [
        f"{name} ({last.behavior}), rounds {records[0].round} to {records[-1].round}",
        "",
        f"  paid        {paid:,} units, {share:.2%} of all payouts, "
        f"in {sum(peer.payout > 0 for peer in own)} rounds",
        f"  aggregated  in {sum(peer.aggregated for peer in own)} of {len(own)} rounds",
        f"  evaluated   in {last.evaluations} rounds",
        f"  refused     {reasons.counts(refused)}",
        f"  slashed     {reasons.counts(slashed)}",
        f"  at the end  LossRating {last.loss_rating:.2f} (mu {last.rating_mu:.2f}, "
        f"sigma {last.rating_sigma:.2f}), proof {last.proof_of_computation:+.2f}, "
        f"standing {last.standing:.2f}, PeerScore {last.peer_score:.3f}",
        "",
        reasons.verdict(records, name, config),
        "",
        "Timeline",
    ]
    events = reasons.timeline(records, name)
    return lines + ([f"  {event.when:<14} {event.what}" for event in events] or ["  nothing of note"])


def _rank(peer: PeerRecord, record: RoundRecord) -> str:
    if peer.rank is None:
        return "did not play"
    return (
        f"{peer.rank + 1} of {sum(other.rank is not None for other in record.peers)} (1 = the loss fell most)"
    )


def _gate(peer: PeerRecord, config: Mapping[str, Any]) -> str:
    rule = reasons.pay_rule(config)
    if rule is None:
        return ""
    corrected = rule.corrected(peer)
    side = "above" if corrected > rule.proof else "not above"
    return f"; bias-corrected {corrected:+.3f}, {side} the gate {rule.proof:g}"


def _moved(before: float | None, after: float) -> str:
    return "" if before is None or f"{before:.3f}" == f"{after:.3f}" else f" (was {before:.3f})"


def _number(value: float | None, form: str) -> str:
    return "none" if value is None else form.format(value)


def _before(records: Sequence[RoundRecord], record: RoundRecord, name: str) -> PeerRecord | None:
    earlier = [one for one in records if one.round < record.round]
    return reasons.peer_of(earlier[-1], name) if earlier else None
