"""How validators behave in a simulation: the honest one, and misbehaviors as honest ones with one stage replaced."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gauntlet_jax.nodes.validator import Validator, Verdict
from gauntlet_jax.types import PeerId

Weights = Mapping[PeerId, float]


class Turn(NamedTuple):
    """What a validator has when it commits to its weights of a round.

    Attributes:
      own: the weights of its own verdict; None where it does not judge.
      shown: every validator's newest revealed weights, which are those of earlier rounds.
      stakes: by validator.
      name: its own.
      friend: the peer that it favors; "" for none.
    """

    own: Weights | None
    shown: Mapping[str, Weights]
    stakes: Mapping[str, float]
    name: str
    friend: PeerId


@dataclasses.dataclass(frozen=True)
class ValidatorBehavior:
    """The stages of a validator; the defaults are the honest ones.

    Attributes:
      judges: whether it evaluates peers at all, posts records and examines those of others.
      weights: ``turn -> weights`` that it commits to and reveals; None for none.
      verdict: ``(verdict, itself, friend) -> verdict`` that it posts as its record, when it is its turn.
    """

    judges: bool = True
    weights: Callable[[Turn], Weights | None] = lambda turn: turn.own
    verdict: Callable[[Verdict, Validator, PeerId], Verdict] = lambda verdict, validator, friend: verdict


def copied_weights(turn: Turn) -> Weights | None:
    """The stake-weighted mean of what the others have shown: the best that can be had without work."""
    others = {name: shown for name, shown in turn.shown.items() if name != turn.name}
    total = sum(turn.stakes[name] for name in others)
    if not total:
        return None
    names = dict.fromkeys(peer for shown in others.values() for peer in shown)
    return {
        peer: sum(turn.stakes[name] * shown.get(peer, 0.0) for name, shown in others.items()) / total
        for peer in names
    }


def all_to_its_friend(turn: Turn) -> Weights | None:
    """Everything to one peer."""
    return {turn.friend: 1.0} if turn.friend else turn.own


def update_of_its_friend(verdict: Verdict, validator: Validator, friend: PeerId) -> Verdict:
    """The same record, with parameters that follow from its friend's artifact alone."""
    alone = [
        dataclasses.replace(peer, aggregated=True)
        for peer in verdict.peers
        if peer.name == friend and peer.digest is not None
    ]
    update = validator.update_of(alone) if alone else None
    return verdict if update is None else verdict._replace(update=update)


VALIDATOR_BEHAVIORS: Mapping[str, ValidatorBehavior] = {
    "honest": ValidatorBehavior(),
    "copier": ValidatorBehavior(judges=False, weights=copied_weights),
    "liar": ValidatorBehavior(weights=all_to_its_friend),
    "lying_lead": ValidatorBehavior(verdict=update_of_its_friend),
    "silent": ValidatorBehavior(judges=False, weights=lambda turn: None),
}
"""By the name that a config gives."""
