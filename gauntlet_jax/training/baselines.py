"""What the peers' result is held against: one trusted AdamW run on the same data."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gauntlet_jax.training.sharding import Shardings
from gauntlet_jax.training.train_step import GradientSteps
from gauntlet_jax.types import Batch, Params


class AdamW:
    """Data-parallel AdamW: each round, one step on the mean gradient of all honest peers' batches.

    Attributes:
      params: its current parameters.
      state: the optimizer's moments.
    """

    name = "adamw"

    def __init__(
        self,
        params: Params,
        schedule: optax.Schedule,
        gradient: GradientSteps,
        shardings: Shardings,
        *,
        compile_step: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda step: step,
    ):
        """Starts from ``params`` (copied) with the learning rate of ``schedule``; ``compile_step`` wraps the jitted step."""
        self._gradient = gradient
        optimizer = optax.adamw(schedule, b1=0.9, b2=0.95, weight_decay=0.0)

        def step(params: Params, state: Any, gradient: Params) -> tuple[Params, Any]:
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        p = shardings.params
        s = shardings.of_optimizer(optimizer, params)
        self._step = compile_step(
            jax.jit(step, in_shardings=(p, s, p), out_shardings=(p, s), donate_argnums=(0, 1))
        )
        self.params = jax.tree.map(jnp.copy, params)
        self.state = jax.jit(optimizer.init, out_shardings=s)(self.params)

    def run_round(self, batches: Sequence[Batch]) -> None:
        """One step on the mean gradient of equal batches."""
        mean = self._gradient.mean(self.params, batches)
        self.params, self.state = self._step(self.params, self.state, mean)
