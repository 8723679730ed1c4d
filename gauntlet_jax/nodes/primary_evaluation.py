"""Primary evaluation: by how much the loss falls along each drawn peer's update, on its own data and on random data."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from gauntlet_jax import scoring
from gauntlet_jax.nodes.beacon import derive_int
from gauntlet_jax.nodes.memory import ASSIGNED, RANDOM
from gauntlet_jax.nodes.peer import Opening
from gauntlet_jax.training.assignment import Assignment
from gauntlet_jax.types import Batch, Params, PseudoGradient

BUILT_IN_SCORES = {ASSIGNED: scoring.assigned_loss_score, RANDOM: scoring.random_loss_score}


class Evaluation(Protocol):
    """What scores the drawn peers of a round; see ``PrimaryEvaluation``."""

    def __call__(
        self,
        opening: Opening,
        closing: bytes,
        params: Params,
        *,
        declared: Mapping[int, int],
        sent: Callable[[int], PseudoGradient],
        aggregate: Params | None,
    ) -> list[dict[str, float]]:
        """The scores of the drawn peers by slot; {} for the others."""
        ...


class PrimaryEvaluation:
    """The scores of S_t, measured."""

    def __init__(
        self,
        *,
        slots: int,
        assignment: Assignment,
        sample: int,
        batch_of: Callable[[np.ndarray], Batch],
        loss: Callable[..., Any],
        evaluate: Callable[..., dict[str, Any]],
        step_fraction: float,
    ):
        """The evaluation of a run.

        Args:
          slots: places for peers.
          assignment: SelectData.
          sample: sequences that a peer is evaluated on, of its own and of random ones.
          batch_of: window indices to a batch.
          loss: ``(params, batch) -> nats/token``, compiled.
          evaluate: one peer's scores, compiled (see ``training.eval_step.make_evaluation``).
          step_fraction: c in beta_t = c * alpha_t.
        """
        self._slots = slots
        self._assignment = assignment
        self._sample = sample
        self._batch_of = batch_of
        self._loss = loss
        self._evaluate = evaluate
        self._step_fraction = step_fraction

    def __call__(
        self,
        opening: Opening,
        closing: bytes,
        params: Params,
        *,
        declared: Mapping[int, int],
        sent: Callable[[int], PseudoGradient],
        aggregate: Params | None,
    ) -> list[dict[str, float]]:
        """The scores of the drawn peers by slot; {} for the others.

        Args:
          opening: what everybody knew when the round opened.
          closing: the beacon that nobody knew before its put window closed.
          params: theta_t, not donated.
          declared: by slot of who was drawn, the sequences that it says it trained on.
          sent: a slot's pseudo-gradient.
          aggregate: of all accepted peers, where a score reads it.
        """
        random_windows = self._assignment.unassigned(
            opening.round, derive_int(closing, "random batch", bits=63), self._sample
        )
        random_batch = self._batch_of(random_windows)
        random_loss = self._loss(params, random_batch)
        step_size = np.float32(self._step_fraction * opening.step_size)

        def evaluate(slot: int) -> dict[str, float]:
            assigned = self._sample_of_assigned(opening.round, closing, slot, declared[slot])
            values = self._evaluate(
                params, sent(slot), aggregate, self._batch_of(assigned), random_batch, random_loss, step_size
            )
            return {name: float(value) for name, value in values.items()}

        return [evaluate(slot) if slot in declared else {} for slot in range(self._slots)]

    def _sample_of_assigned(self, round: int, closing: bytes, slot: int, declared: int) -> np.ndarray:
        """Windows drawn from all that the peer declared, over and over if those are few: what was trained on can be checked."""
        windows = self._assignment.assigned(round, slot, declared)
        words = np.random.Philox(key=derive_int(closing, "assigned sample", slot, bits=128)).random_raw(
            len(windows)
        )
        return np.resize(windows[np.argsort(words, kind="stable")], self._sample)
