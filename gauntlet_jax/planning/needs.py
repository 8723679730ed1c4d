"""What a run's model needs, counted from shapes alone: nothing is computed and nothing allocated."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gauntlet_jax import compression, scoring
from gauntlet_jax.build.task import abstract_task
from gauntlet_jax.config import Config, MeshConfig

_PEER_COPIES = 4  # parameters, their successor, the gradient and the sum of gradients
_VALIDATOR_COPIES = 5  # parameters, their successor, a candidate, an update and the update of a round


class Needs(NamedTuple):
    """Sizes of one run; all but the first two in bytes.

    Attributes:
      parameters: numbers of the model.
      values: coefficients of a pseudo-gradient.
      params: one copy of the parameters.
      residual: what error feedback keeps between rounds.
      activations: what one batch leaves for its backward pass.
      artifact: the arrays that a peer uploads in a round.
    """

    parameters: int
    values: int
    params: int
    residual: int
    activations: int
    artifact: int

    @property
    def peer(self) -> int:
        """Device memory of a peer, an estimate: compilers need more or less."""
        return _PEER_COPIES * self.params + self.residual + self.activations

    @property
    def validator(self) -> int:
        """Device memory of a validator, an estimate too."""
        return _VALIDATOR_COPIES * self.params + self.activations


def needs_of(config: Config) -> Needs:
    """Counts what a config's model needs.

    Raises:
      ValueError: a setting does not go with the model.
    """
    task = abstract_task(dataclasses.replace(config, mesh=MeshConfig()))
    params, loss_fn, compressor = task.params, task.loss_fn, task.compressor
    counted = compression.sizes(compressor.format)
    probe = jax.eval_shape(scoring.take_probe, params, jax.random.key(0))
    batch = jax.ShapeDtypeStruct((config.data.batch, config.data.length + 1), jnp.int32)

    def saved(params: Any, batch: Any) -> Any:
        return jax.vjp(lambda p: loss_fn(p, batch), params)[1]

    return Needs(
        parameters=counted.parameters,
        values=counted.values,
        params=_bytes(params),
        residual=_bytes(jax.eval_shape(compressor.init, params)),
        # What a gradient keeps of the forward pass, less the parameters, which are counted apart.
        activations=max(0, _bytes(jax.eval_shape(saved, params, batch)) - _bytes(params)),
        artifact=counted.bytes + _bytes(probe),
    )


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))
