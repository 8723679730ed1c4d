"""Several validators in one process: each judges by itself, and together they decide whose record of a round is final."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gauntlet_jax.nodes.examination import disagreement
from gauntlet_jax.nodes.peer import Opening
from gauntlet_jax.nodes.settlement import weights_in
from gauntlet_jax.nodes.validator import Validator, Verdict
from gauntlet_jax.nodes.validator_attacks import Turn, ValidatorBehavior, Weights
from gauntlet_jax.rewards import finality
from gauntlet_jax.types import Params, PeerId


class Seat(NamedTuple):
    """A validator of a simulation.

    Attributes:
      validator: how it judges.
      stake: its weight.
      behavior: the name of how it behaves.
      acts: its stages.
      friend: the peer that it favors; "" for none.
    """

    validator: Validator
    stake: float
    behavior: str
    acts: ValidatorBehavior
    friend: PeerId


class Decision(NamedTuple):
    """What validators make of a round.

    Attributes:
      validator: whose record is final.
      verdict: what it says.
      weights: what each validator commits to; who commits to nothing is not there.
      vetoed: why the records of some validators were rejected, as one clause each.
    """

    validator: str
    verdict: Verdict
    weights: Mapping[str, Weights]
    vetoed: Mapping[str, str]


class Panel:
    """The validators of a simulation.

    Attributes:
      seats: in the order of the config.
    """

    def __init__(self, seats: Sequence[Seat]):
        """Takes the seats.

        Raises:
          ValueError: no one of them judges.
        """
        if not any(seat.acts.judges for seat in seats):
            raise ValueError("validators: none of them judges, so no round could be decided")
        self.seats = tuple(seats)
        self._seats = {seat.validator.name: seat for seat in seats}

    @property
    def stakes(self) -> dict[str, float]:
        """By validator."""
        return {name: seat.stake for name, seat in self._seats.items()}

    @property
    def behaviors(self) -> dict[str, str]:
        """Their names, by validator."""
        return {name: seat.behavior for name, seat in self._seats.items()}

    def decide(
        self,
        opening: Opening,
        closing: Callable[[], bytes],
        params: Params,
        shown: Mapping[str, Weights],
    ) -> Decision:
        """Decides a round whose put window has closed.

        Args:
          opening: what everybody knew when it opened.
          closing: gives the beacon that nobody knew before it closed.
          params: theta_t, not donated.
          shown: every validator's newest revealed weights.
        """
        verdicts = {
            name: seat.validator.judge(opening, closing(), params)
            for name, seat in self._seats.items()
            if seat.acts.judges
        }
        weights = {}
        for name, seat in self._seats.items():
            own = weights_in(verdicts[name].peers) if name in verdicts else None
            given = seat.acts.weights(Turn(own, shown, self.stakes, name, seat.friend))
            if given is not None:
                weights[name] = given
        final, posted, vetoed = self._finality(verdicts)
        return Decision(final, posted[final], weights, vetoed)

    def state(self) -> dict[str, Any]:
        """All that the validators must remember between rounds, for JSON."""
        return {name: seat.validator.state() for name, seat in self._seats.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what ``state`` gave."""
        for name, seat in self._seats.items():
            seat.validator.restore(state[name])

    def _finality(self, verdicts: Mapping[str, Verdict]) -> tuple[str, dict[str, Verdict], dict[str, str]]:
        """Whose record is final, what was posted until then, and why some were vetoed."""
        order = [name for name in finality.succession(self.stakes) if name in verdicts]
        posted: dict[str, Verdict] = {}
        vetoed: dict[str, str] = {}
        for name in order:
            seat = self._seats[name]
            posted[name] = seat.acts.verdict(verdicts[name], seat.validator, seat.friend)
            faults = {
                other: fault
                for other, own in verdicts.items()
                if other != name
                and (fault := _fault(posted[name], own, self._seats[other].validator)) is not None
            }
            if not finality.is_vetoed(self.stakes, faults):
                return name, posted, vetoed
            vetoed[name] = next(iter(faults.values()))
        # Nobody agrees with anybody: the largest stake decides, or the run would stand still for ever.
        return order[0], posted, vetoed


def _fault(theirs: Verdict, own: Verdict, validator: Validator) -> str | None:
    """What a validator has against another's record, as one clause."""
    fault = disagreement(theirs.peers, own.peers)
    if fault is not None:
        return fault
    expected = validator.update_of(theirs.peers)
    if expected is None:
        return "an artifact that it aggregates cannot be had"
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(theirs.update), strict=True)
    if not all(np.array_equal(np.asarray(one), np.asarray(other)) for one, other in pairs):
        return "its parameters do not follow from its artifacts"
    return None
