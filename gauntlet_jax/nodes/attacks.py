"""Behaviors: the honest peer, and attacks as honest peers with one stage replaced.

Write your own in the same way: ``dataclasses.replace(HONEST, gradient=...)``, and name it in a config.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gauntlet_jax.nodes.beacon import derive_int
from gauntlet_jax.nodes.peer import Arrays, Behavior, Turn
from gauntlet_jax.types import Params

STALE_ROUNDS = 5

HONEST = Behavior()

DOUBLE_DATA = dataclasses.replace(HONEST, batches=2)
"""Honest, with twice the data; it declares all of it."""


def unassigned_data(turn: Turn, count: int) -> np.ndarray:
    """Windows of its own choice, while it declares the assigned ones."""
    own_choice = derive_int(b"unassigned data", turn.peer, turn.opening.round)
    return turn.assignment.unassigned(turn.opening.round, own_choice, count)


def random_gradient(turn: Turn, gradient: Params) -> Params:
    """Gaussian noise of each tensor's own norm in place of the gradient."""
    return _noise_like(turn.key, gradient)


@jax.jit
def _noise_like(key: Array, gradient: Params) -> Params:
    def noise(number: int, leaf: Array) -> Array:
        drawn = jax.random.normal(jax.random.fold_in(key, number), leaf.shape, leaf.dtype)
        return drawn * (jnp.sqrt(jnp.sum(leaf**2)) / jnp.sqrt(jnp.sum(drawn**2)))

    leaves, structure = jax.tree.flatten(gradient)
    return jax.tree.unflatten(structure, [noise(number, leaf) for number, leaf in enumerate(leaves)])


def flipped_gradient(turn: Turn, gradient: Params) -> Params:
    """The gradient with its sign turned: it trains the model backwards."""
    del turn
    return jax.tree.map(jnp.negative, gradient)


def best_of_the_others(turn: Turn, arrays: Arrays) -> Arrays:
    """The artifact of the best-paid peer that has uploaded; its own where nobody has."""
    return next((theirs for _, theirs in turn.others(0)), arrays)


def remember_past_rounds(params: Params) -> tuple[Params, ...]:
    """A queue of past parameters, all theta_0 at the start."""
    return tuple(jax.tree.map(jnp.copy, params) for _ in range(STALE_ROUNDS))


def past_round(memory: tuple[Params, ...], params: Params) -> tuple[Params, tuple[Params, ...]]:
    """The parameters of ``STALE_ROUNDS`` rounds ago; today's are copied, since the run donates them."""
    return memory[0], (*memory[1:], jax.tree.map(jnp.copy, params))


STALE = dataclasses.replace(HONEST, remember=remember_past_rounds, view=past_round)
"""Trains on old parameters, and its sync probe shows it."""

BEHAVIORS: Mapping[str, Behavior] = {
    "honest": HONEST,
    "double_data": DOUBLE_DATA,
    "lazy": dataclasses.replace(HONEST, data=unassigned_data),
    "noise": dataclasses.replace(HONEST, gradient=random_gradient),
    "sign_flip": dataclasses.replace(HONEST, gradient=flipped_gradient),
    "copycat": dataclasses.replace(HONEST, artifact=best_of_the_others, uploads_at=0.9),
    "stale": STALE,
    "stale_with_fresh_probe": dataclasses.replace(STALE, probe=lambda seen, current: current),
    "late": dataclasses.replace(HONEST, uploads_at=1.15),
    "offline": dataclasses.replace(HONEST, uploads_at=None),
}
"""By the name that a config gives."""
