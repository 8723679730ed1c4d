"""LossScore: by how much a peer's update, applied alone, lowers the loss (Gauntlet, section on LossScore)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from gauntlet_jax.types import Batch, LossFn, Params, Scalar, ScoreFn, ScoreInputs


def loss_score(
    params: Params,
    update: Params,
    batch: Batch,
    *,
    loss_fn: LossFn,
    step_size: Scalar | float,
    loss_before: Scalar | None = None,
) -> Scalar:
    """How much the loss on a batch falls along one peer's update.

    ``LossScore_p(D) = L(theta, D) - L(theta - beta_t * Delta_p, D)`` with ``beta_t = c * alpha_t``. The
    probing step is smaller than the training step (c = 0.2 in the paper), because too long a step makes the
    order of the peers inconsistent from round to round.

    Neither ``params`` nor ``update`` is donated: the same ``params`` score the next peer.

    Args:
      params: theta_t, any pytree of floating-point arrays.
      update: Delta_p, shaped like ``params``, any real dtype (signs may come as int8); it is subtracted.
      batch: D, whatever ``loss_fn`` takes.
      loss_fn: ``(params, batch) -> mean loss``, nats/token.
      step_size: beta_t.
      loss_before: L(theta, D) where it is known already, nats/token; None computes it.

    Returns:
      nats/token, positive = the loss went down. Exactly 0 for an update that moves no parameter. NaN or -inf
      if the update breaks the model: rank those last.

    Raises:
      ValueError: ``update`` has another structure or other shapes than ``params``.
    """
    moved = jax.tree.map(lambda weight, direction: _step(weight, direction, step_size), params, update)
    if loss_before is None:
        loss_before = loss_fn(params, batch)
    fall = loss_before - loss_fn(moved, batch)
    # Two programs may round one loss differently: who sends nothing must not profit from the last bit.
    moves = jax.tree.map(lambda before, after: jnp.any(after != before), params, moved)
    return jnp.where(jnp.any(jnp.stack(jax.tree.leaves(moves))), fall, 0.0)


def assigned_loss_score(inputs: ScoreInputs) -> Scalar:
    """LossScore on the data that was assigned to the peer.

    Args:
      inputs: one peer's update and the batches of the round.

    Returns:
      nats/token, positive = the loss went down.
    """
    return loss_score(
        inputs.params,
        inputs.update,
        inputs.assigned_batch,
        loss_fn=inputs.loss_fn,
        step_size=inputs.step_size,
    )


def random_loss_score(inputs: ScoreInputs) -> Scalar:
    """LossScore on data that nobody was assigned; the round's match is ranked by it.

    Args:
      inputs: one peer's update and the batches of the round; the random batch, and the loss on it, are the
        same for every peer.

    Returns:
      nats/token, positive = the loss went down.
    """
    return loss_score(
        inputs.params,
        inputs.update,
        inputs.random_batch,
        loss_fn=inputs.loss_fn,
        step_size=inputs.step_size,
        loss_before=inputs.random_loss,
    )


def score_all(inputs: ScoreInputs, scores: Mapping[str, ScoreFn]) -> dict[str, Scalar]:
    """Applies every score to one peer's inputs.

    Example::

        score_all(inputs, {"assigned": assigned_loss_score, "random": random_loss_score, "norm": my_score})

    Args:
      inputs: one peer's update and the batches of the round.
      scores: score functions by the name under which they are recorded.

    Returns:
      One scalar a name, in the order given.

    Raises:
      ValueError: a score is not a scalar.
    """
    results = {}
    for name, score in scores.items():
        result = score(inputs)
        if jnp.shape(result) != ():
            raise ValueError(
                f"score {name!r} returned shape {jnp.shape(result)}; a score is one number a peer"
            )
        results[name] = result
    return results


def _step(weight: jax.Array, direction: jax.Array, step_size: Scalar | float) -> jax.Array:
    if jnp.shape(weight) != jnp.shape(direction):
        raise ValueError(
            f"an update of shape {jnp.shape(direction)} does not fit parameters of {jnp.shape(weight)}"
        )
    # Half-precision parameters are stepped in float32 and rounded once: beta_t alone may vanish beside them.
    wide = weight.dtype if jnp.finfo(weight.dtype).bits >= 32 else jnp.float32
    return (weight.astype(wide) - jnp.asarray(step_size, wide) * direction.astype(wide)).astype(weight.dtype)
