"""What a run's records come to, peer by peer and validator by validator, in its ``summary.json``."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gauntlet_jax.nodes.record import RoundRecord


def peer_summary(name: str, records: Sequence[RoundRecord]) -> dict[str, Any]:
    """A peer's entry of the summary; shares are of what peers were paid, the reserve apart.

    Args:
      name: the peer, who is in one of the records at least.
      records: of every round up to now.
    """
    rows = [peer for record in records for peer in record.peers if peer.name == name]
    last = rows[-1]
    return {
        "name": name,
        "behavior": last.behavior,
        "rating_mu": last.rating_mu,
        "rating_sigma": last.rating_sigma,
        "loss_rating": last.loss_rating,
        "proof_of_computation": last.proof_of_computation,
        "peer_score": last.peer_score,
        "incentive": last.incentive,
        "payout": sum(row.payout for row in rows),
        "payout_share": _share(name, records),
        "payout_share_second_half": _share(name, records[len(records) // 2 :]),
        "rounds_aggregated": sum(row.aggregated for row in rows),
        "slashes": dict(Counter(reason for row in rows for reason in row.slashed)),
        "refusals": dict(Counter(row.refusal for row in rows if row.refusal)),
    }


def validator_summary(name: str, records: Sequence[RoundRecord]) -> dict[str, Any]:
    """A validator's entry of the summary.

    Args:
      name: the validator, who is in one of the records at least.
      records: of every round up to now, with what was paid.
    """
    rows = [one for record in records for one in record.validators if one.name == name]
    everyone = sum(one.payout for record in records for one in record.validators)
    payout = sum(row.payout for row in rows)
    trusts = [row.trust for row in rows if row.trust is not None]
    return {
        "name": name,
        "behavior": rows[-1].behavior,
        "stake": rows[-1].stake,
        "trust": sum(trusts) / len(trusts) if trusts else 0.0,
        "dividends": payout / everyone if everyone else 0.0,
        "payout": payout,
        "vetoed": sum(bool(row.vetoed) for row in rows),
    }


def _share(name: str, records: Sequence[RoundRecord]) -> float:
    paid = sum(peer.payout for record in records for peer in record.peers)
    own = sum(peer.payout for record in records for peer in record.peers if peer.name == name)
    return own / paid if paid else 0.0
