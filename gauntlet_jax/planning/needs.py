"""What a run's model needs, counted from shapes alone: nothing is computed and nothing allocated."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gauntlet_jax import compression, scoring
from gauntlet_jax.config import Config
from gauntlet_jax.training.model import init_params, make_loss_fn, stacked_axes
from gauntlet_jax.types import LossFn

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
      ValueError: the model's shapes do not go together.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    if config.build_model is None:
        params = jax.eval_shape(functools.partial(init_params, config.model), key)
        loss_fn, stacked = make_loss_fn(config.model), stacked_axes(params)
    else:
        params, loss_fn = _shapes_of_own_model(config)
        stacked = None
    settings = config.compression
    make = compression.demo if settings.method == "demo" else compression.sparseloco
    compressor = make(params, beta=settings.beta, k=settings.k, bits=settings.bits, stacked=stacked)
    counted = compression.sizes(compressor.format)
    probe = jax.eval_shape(scoring.take_probe, params, key)
    batch = jax.ShapeDtypeStruct((config.data.batch, config.data.length + 1), jnp.int32)

    def saved(params: Any, batch: Any) -> Any:
        return jax.vjp(lambda p: loss_fn(p, batch), params)[1]

    return Needs(
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        values=counted.values,
        params=_bytes(params),
        residual=_bytes(jax.eval_shape(compressor.init, params)),
        # What a gradient keeps of the forward pass, less the parameters, which are counted apart.
        activations=max(0, _bytes(jax.eval_shape(saved, params, batch)) - _bytes(params)),
        artifact=counted.bytes + _bytes(probe),
    )


def _shapes_of_own_model(config: Config) -> tuple[Any, LossFn]:
    assert config.build_model is not None
    build, losses = config.build_model, []

    def init(key: Any) -> Any:
        params, loss_fn = build(key)
        losses.append(loss_fn)
        return params

    return jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0))), losses[0]


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))
