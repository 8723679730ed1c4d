"""An epoch by names: the weights that stand, the stakes and the bonds of before, made into payouts by Yuma consensus."""

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

import numpy as np

from gauntlet_jax.rewards.ledger import RESERVE, Epoch
from gauntlet_jax.rewards.yuma import split_emission, to_u16, yuma
from gauntlet_jax.types import PeerId

WEIGHTS_STAND = 5
"""Rounds for which weights count without newer ones of their validator: after so many it is taken to have left."""


def epoch_of(
    round: int,
    weights: Mapping[str, Mapping[PeerId, float]],
    *,
    stakes: Mapping[str, float],
    peers: Sequence[PeerId],
    bonds: Mapping[str, Mapping[PeerId, int]],
    emission: int,
    vetoed: Collection[str] = (),
) -> Epoch:
    """What a round's weights come to; pure, so that anybody can compute it again from a ledger.

    Args:
      round: t.
      weights: >= 0 by validator, then by peer or ``RESERVE``: the newest of each validator that still stand. Validators without
        any have no say in this epoch, and weights of who is no peer of the round do not count.
      stakes: > 0, by validator.
      peers: of the round.
      bonds: u16 of the epoch before, by validator, then by peer.
      emission: units that the round gives out.
      vetoed: validators whose record of the round more than half of the stake has rejected: who lies there has no say here either
        (a rule of ours: a chain knows of no records). Where all of them are, it has no effect.

    Where nobody gives anybody a weight, the reserve has all: a chain would pay validators by stake, who need only be silent then.

    Raises:
      ValueError: a weight or the emission is out of range.
    """
    weights = {name: given for name, given in weights.items() if name not in vetoed} or weights
    validators, targets = list(stakes), [*peers, RESERVE]
    first = len(validators)
    n = first + len(targets)

    def matrix(rows: Mapping[str, Mapping[PeerId, float]]) -> np.ndarray:
        numbers = np.zeros((n, n))
        for i, validator in enumerate(validators):
            given = rows.get(validator, {})
            numbers[i, first:] = [given.get(target, 0.0) for target in targets]
        return numbers

    # As it is written: 0.1 is a tenth here, not the float next to it, and so the same on any machine.
    exact = [Fraction(repr(float(stake))) for stake in stakes.values()] + [Fraction(0)] * len(targets)
    permits = np.array([validator in weights for validator in validators] + [False] * len(targets))
    found = yuma(matrix(weights), exact, matrix(bonds), permits)
    if not found.incentive.any():
        # A chain pays by stake then; here silence must not earn validators the peers' half as well.
        found.incentive[-1] = 1.0
    to_targets, to_validators, remainder = split_emission(found.incentive, found.dividends, exact, emission)
    units = {target: int(to_targets[first + j]) for j, target in enumerate(targets)}
    reserve = units.pop(RESERVE)
    units |= {validator: int(to_validators[i]) for i, validator in enumerate(validators)}
    held = to_u16(found.bonds[:first, first:])
    return Epoch(
        round=round,
        consensus={target: float(found.consensus[first + j]) for j, target in enumerate(targets)},
        incentive={target: float(found.incentive[first + j]) for j, target in enumerate(targets)},
        trust={name: float(found.trust[i]) for i, name in enumerate(validators) if permits[i]},
        dividends={name: float(found.dividends[i]) for i, name in enumerate(validators)},
        bonds={
            name: {target: int(bond) for target, bond in zip(targets, held[i], strict=True) if bond}
            for i, name in enumerate(validators)
            if held[i].any()
        },
        payouts={name: amount for name, amount in units.items() if amount},
        reserve=reserve,
        remainder=remainder,
    )
