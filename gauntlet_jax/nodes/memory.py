"""What a validator remembers of the peers from round to round."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gauntlet_jax import scoring
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.types import PeerHistory

RANDOM = "random"
ASSIGNED = "assigned"


class Memory:
    """One validator's memory, by slot.

    Attributes:
      histories: ratings, proofs, counts and standings.
      suspected: bool[slots, slots], the pairs whose indices overlapped too much in the last round.
      evaluated_at: the last round in which each was evaluated, -1 before the first.
    """

    def __init__(self, slots: int):
        self.histories = [PeerHistory() for _ in range(slots)]
        self.suspected = np.zeros((slots, slots), bool)
        self.evaluated_at = np.full(slots, -1)

    def remember(
        self,
        round: int,
        refusals: Mapping[int, scoring.Refusal | None],
        overlapping: np.ndarray,
        scores: Sequence[Mapping[str, float]],
        rules: ValidatorRules,
    ) -> None:
        """Proofs, counts and standings after a round (the match has changed the ratings already).

        Args:
          round: t.
          refusals: by slot of who is registered; None where the artifact was accepted.
          overlapping: bool[slots].
          scores: by slot; {} where the peer was not evaluated.
          rules: decay, slashes and forgiveness.
        """
        for i, refusal in refusals.items():
            before, own = self.histories[i], scores[i]
            history = before
            if own:
                history = before._replace(
                    proof=float(
                        scoring.update_proof(
                            history.proof, own[ASSIGNED], own[RANDOM], gamma=rules.proof_decay
                        )
                    ),
                    evaluations=history.evaluations + 1,
                    negative_in_a_row=0 if own[RANDOM] > 0 else history.negative_in_a_row + 1,
                )
                self.evaluated_at[i] = round
            failure = refusal.reason if refusal else "overlap" if overlapping[i] else None
            self.histories[i] = scoring.update_standing(
                history,
                failure,
                phi=rules.slash_factor,
                most_in_a_row=rules.slashes_per_outage,
                forgiven_after=rules.forgiven_after,
            )

    def forget(self, slot: int) -> None:
        """Begins afresh with whoever has a slot."""
        self.histories[slot] = PeerHistory()
        self.suspected[slot, :] = self.suspected[:, slot] = False
        self.evaluated_at[slot] = -1

    def state(self) -> dict[str, Any]:
        """All that it must remember between rounds, for JSON."""
        return {
            "histories": [list(history) for history in self.histories],
            "suspected": self.suspected.astype(int).tolist(),
            "evaluated_at": self.evaluated_at.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what ``state`` gave."""
        self.histories = [PeerHistory(*row) for row in state["histories"]]
        self.suspected = np.array(state["suspected"], bool)
        self.evaluated_at = np.array(state["evaluated_at"])
