"""What a peer computes between two uploads: gradients, or the change of H inner steps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from gauntlet_jax.training.sharding import Shardings
from gauntlet_jax.types import Batch, LossFn, Params


class LocalTraining(NamedTuple):
    """A peer's local work in a round.

    Attributes:
      init: ``params -> state`` that the peer keeps between rounds.
      run: ``(params, state, batches) -> (gradient, state)``: what to compress, from one or more batches of its data.
        ``params`` is never donated: the round's other work still needs it.
    """

    init: Callable[[Params], Any]
    run: Callable[[Params, Any, Sequence[Batch]], tuple[Params, Any]]


class GradientSteps(NamedTuple):
    """The compiled pieces of a mean gradient over any number of batches."""

    gradient: Callable[[Params, Batch], Params]
    add: Callable[[Params, Params], Params]
    scale: Callable[[Params, Array], Params]

    def mean(self, params: Params, batches: Sequence[Batch]) -> Params:
        """The mean gradient over batches of equal size, in their order; memory of two gradients, however many."""
        total = self.gradient(params, batches[0])
        for batch in batches[1:]:
            total = self.add(total, self.gradient(params, batch))
        return total if len(batches) == 1 else self.scale(total, jnp.float32(1 / len(batches)))


def gradient_steps(loss_fn: LossFn, shardings: Shardings) -> GradientSteps:
    """Jits the gradient under the mesh; sums are donated, parameters are not."""
    p, b, r = shardings.params, shardings.batch, shardings.replicated
    return GradientSteps(
        gradient=jax.jit(jax.grad(loss_fn), in_shardings=(p, b), out_shardings=p),
        add=jax.jit(
            lambda total, more: jax.tree.map(jnp.add, total, more),
            in_shardings=(p, p),
            out_shardings=p,
            donate_argnums=0,
        ),
        scale=jax.jit(
            lambda total, by: jax.tree.map(lambda leaf: leaf * by, total),
            in_shardings=(p, r),
            out_shardings=p,
            donate_argnums=0,
        ),
    )


def gradient_training(steps: GradientSteps) -> LocalTraining:
    """DeMo's local work: the mean gradient at theta_t over the peer's batches, no state."""
    return LocalTraining(
        lambda params: (), lambda params, state, batches: (steps.mean(params, batches), state)
    )


def inner_training(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    params: Params,
    shardings: Shardings,
    *,
    steps: int,
) -> LocalTraining:
    """SparseLoCo's local work: Delta = theta_0 - theta_H after H inner steps, the optimizer's state kept between rounds.

    Args:
      loss_fn: the model's loss.
      optimizer: the inner optimizer, such as ``optax.adamw``.
      params: arrays or shapes of the model.
      shardings: placements of parameters and batches.
      steps: H; each batch is cut into H equal parts along its first axis, one a step. With several batches a step takes
        its part of all of them.
    """

    def run(params: Params, state: Any, batches: Sequence[Batch]) -> tuple[Params, Any]:
        def cut(*leaves: Array) -> Array:
            parts = [leaf.reshape(steps, leaf.shape[0] // steps, *leaf.shape[1:]) for leaf in leaves]
            return jnp.concatenate(parts, axis=1)

        def step(carry: tuple[Params, Any], batch: Batch) -> tuple[tuple[Params, Any], None]:
            inner, opt_state = carry
            updates, opt_state = optimizer.update(jax.grad(loss_fn)(inner, batch), opt_state, inner)
            return (optax.apply_updates(inner, updates), opt_state), None

        (final, state), _ = jax.lax.scan(step, (params, state), jax.tree.map(cut, *batches))
        return jax.tree.map(jnp.subtract, params, final), state

    p, s = shardings.params, shardings.of_optimizer(optimizer, params)
    return LocalTraining(
        jax.jit(optimizer.init, out_shardings=s),
        jax.jit(run, in_shardings=(p, s, shardings.batch), out_shardings=(p, s), donate_argnums=1),
    )


def apply_step(shardings: Shardings) -> Callable[[Params, Params, Array], Params]:
    """``(params, update, alpha_t) -> params - alpha_t * update``, jitted; the old parameters are donated."""
    p, r = shardings.params, shardings.replicated

    def apply(params: Params, update: Params, step_size: Array) -> Params:
        return jax.tree.map(lambda theta, u: (theta - step_size * u).astype(theta.dtype), params, update)

    return jax.jit(apply, in_shardings=(p, p, r), out_shardings=p, donate_argnums=0)


def learning_rate(
    *,
    peak: float,
    warmup_rounds: int,
    schedule_rounds: int,
    final_fraction: float,
    start_fraction: float = 0.1,
) -> optax.Schedule:
    """alpha_t: linear warm-up from ``start_fraction * peak``, then a cosine down to ``final_fraction * peak``.

    Args:
      peak: the largest signed step (for AdamW: the usual learning rate).
      warmup_rounds: rounds until the peak.
      schedule_rounds: rounds until the cosine ends, the warm-up included; later rounds stay at its end. Apart from how many
        rounds are run, so that a run that stops and goes on sees the same rates.
      final_fraction: the end of the cosine, as a part of the peak.
      start_fraction: the first round's rate, as a part of the peak.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=start_fraction * peak,
        peak_value=peak,
        warmup_steps=warmup_rounds,
        decay_steps=schedule_rounds,
        end_value=final_fraction * peak,
    )
