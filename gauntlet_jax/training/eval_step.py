"""What a validator computes: a peer's scores, and the loss on the held-out split. Parameters are never donated here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jaxtyping import Array, Float

from gauntlet_jax.scoring.loss_score import score_all
from gauntlet_jax.training.sharding import Shardings
from gauntlet_jax.types import Batch, LossFn, Params, PseudoGradient, ScoreFn, ScoreInputs


def make_evaluation(
    loss_fn: LossFn,
    to_update: Callable[[PseudoGradient], Params],
    scores: Mapping[str, ScoreFn],
    shardings: Shardings,
) -> Callable[..., dict[str, Array]]:
    """One peer's primary evaluation, jitted.

    Args:
      loss_fn: the model's loss.
      to_update: a pseudo-gradient to the update it stands for (decode, then the aggregator's direction).
      scores: what to compute, by name.
      shardings: placements.

    Returns:
      ``(params, pseudo_gradient, aggregate, assigned_batch, random_batch, random_loss, step_size) -> scores by name``;
      ``random_loss`` is L(theta_t) on the random batch, which all peers of a round share.
    """

    def evaluate(
        params: Params,
        sent: PseudoGradient,
        aggregate: Params | None,
        assigned: Batch,
        random: Batch,
        random_loss: Array,
        step_size: Array,
    ) -> dict[str, Array]:
        inputs = ScoreInputs(
            params, to_update(sent), aggregate, assigned, random, random_loss, loss_fn, step_size
        )
        return score_all(inputs, scores)

    p, b, r = shardings.params, shardings.batch, shardings.replicated
    return jax.jit(evaluate, in_shardings=(p, p, None, b, b, r, r), out_shardings=r)


def make_loss(loss_fn: LossFn, shardings: Shardings) -> Callable[[Params, Batch], Float[Array, ""]]:
    """The loss of one batch under the mesh, jitted, in nats/token."""
    return jax.jit(
        loss_fn, in_shardings=(shardings.params, shardings.batch), out_shardings=shardings.replicated
    )


def mean_loss(loss: Callable[[Params, Batch], Any], params: Params, batches: Sequence[Batch]) -> float:
    """The mean of ``loss`` over batches of equal size, in nats/token."""
    return sum(float(loss(params, batch)) for batch in batches) / len(batches)
