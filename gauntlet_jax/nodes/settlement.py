"""Between a validator's record and the ledger: the weights that follow from a record, and the payouts that follow from weights."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gauntlet_jax.nodes.record import PeerRecord, RoundRecord, ValidatorRecord
from gauntlet_jax.rewards.incentive import weights_of
from gauntlet_jax.rewards.ledger import RESERVE, Epoch
from gauntlet_jax.types import PeerId


def weights_in(peers: Sequence[PeerRecord]) -> dict[PeerId, float]:
    """The weights that a validator posts for a round that it has judged so.

    Returns:
      Shares by peer, and ``RESERVE``'s for what nobody may have; they sum to 1.
    """
    shares = np.array([peer.incentive for peer in peers])
    weights, reserve = weights_of(shares, np.array([peer.payable for peer in peers], bool))
    named = {peer.name: float(weight) for peer, weight in zip(peers, weights, strict=True)}
    return {**named, RESERVE: reserve}


def paid(
    record: RoundRecord,
    epoch: Epoch,
    *,
    stakes: Mapping[str, float],
    behaviors: Mapping[str, str],
    vetoed: Mapping[str, str],
) -> RoundRecord:
    """The record with what the ledger paid.

    Args:
      record: as judged.
      epoch: of the same round.
      stakes: by validator.
      behaviors: by validator; who is not there is "unknown".
      vetoed: why the records of some validators were rejected.
    """
    peers = tuple(
        dataclasses.replace(
            peer, payout=epoch.payouts.get(peer.name, 0), consensus=epoch.consensus.get(peer.name, 0.0)
        )
        for peer in record.peers
    )
    validators = tuple(
        ValidatorRecord(
            name=name,
            behavior=behaviors.get(name, "unknown"),
            stake=stake,
            trust=epoch.trust.get(name),
            dividends=epoch.dividends.get(name, 0.0),
            payout=epoch.payouts.get(name, 0),
            vetoed=vetoed.get(name, ""),
        )
        for name, stake in stakes.items()
    )
    return dataclasses.replace(
        record,
        emission=epoch.emission,
        reserve=epoch.reserve,
        remainder=epoch.remainder,
        peers=peers,
        validators=validators,
    )
