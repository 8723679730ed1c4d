"""How often a node runs each step in a round, and what lies on its devices meanwhile."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from gauntlet_jax.config import Config
from gauntlet_jax.config_check import slots_of
from gauntlet_jax.nodes.stopwatch import Work

Role = Literal["peer", "validator"]
ROLES: tuple[Role, ...] = ("peer", "validator")

TRAINING = ("gradient", "inner steps")
"""A peer's local work, by the method of compression."""

# The steps that take what a node keeps as arguments; all others run beside the whole of it.
_TAKES: Mapping[str, tuple[str, ...]] = {
    "gradient": ("params",),
    "inner steps": ("params", "optimizer"),
    "encode": ("residual",),
    "apply": ("params",),
    "probe": ("params",),
    "evaluate": ("params",),
    "loss": ("params",),
    "loss of a sample": ("params",),
}


class Resident(NamedTuple):
    """What a node keeps on each device from step to step, in bytes.

    Attributes:
      params: theta_t.
      residual: of error feedback; a peer's.
      optimizer: of the inner steps; a peer's.
    """

    params: int
    residual: int
    optimizer: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)

    def beside(self, step: str) -> int:
        """What lies beside a step's own arguments while it runs."""
        return self.total - sum(getattr(self, name) for name in _TAKES.get(step, ()))


def residents_of(work: Sequence[Work]) -> dict[Role, Resident]:
    """What each role keeps, from the arguments of the steps that take it.

    Args:
      work: all steps of a round of both roles.
    """
    by_name = {one.name: one.arguments for one in work}
    params = bytes_on_device(by_name["apply"][0])
    optimizer = bytes_on_device(by_name["inner steps"][1]) if "inner steps" in by_name else 0
    residual = bytes_on_device(by_name["encode"][0])
    return {
        "peer": Resident(params, residual, optimizer),
        "validator": Resident(params, 0, 0),
    }


def bytes_on_device(shapes: Any) -> int:
    """Bytes of a tree of shapes on each device of the mesh that they lie on."""

    def one(leaf: Any) -> int:
        shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
        return math.prod(shape) * np.dtype(leaf.dtype).itemsize

    return sum(map(one, jax.tree.leaves(shapes)))


def runs_in_round(config: Config) -> dict[Role, dict[str, float]]:
    """How often a node of each role runs each step in a round, by the step's name.

    An honest peer trains on one batch of data; a validator evaluates |S_t| peers, inspects everybody's artifact and
    measures the held-out loss every ``heldout_every`` rounds.
    """
    places, slots = config.validator.top_g, slots_of(config)
    sample = slots if config.validator.sample_size is None else min(slots, config.validator.sample_size)
    applied: dict[str, float] = {"measure": places, "add": places, "finish": 1, "apply": 1, "probe": 1}
    random_loss = "loss of a sample" if config.validator.sample_batches > 1 else "loss"
    validator: dict[str, float] = {"evaluate": sample, "inspect": slots, **applied}
    validator["loss"] = config.data.heldout // config.data.batch / config.heldout_every
    validator[random_loss] = validator.get(random_loss, 0) + 1
    return {
        "peer": {"gradient": 1, "inner steps": 1, "encode": 1, "inspect": places, **applied},
        "validator": validator,
    }
