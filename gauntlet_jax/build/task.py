"""What is learned and how it is sent, from a config: as shapes alone, or with its parameters on the devices."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from gauntlet_jax import compression
from gauntlet_jax.compression import Aggregator, Compressor
from gauntlet_jax.config import Config
from gauntlet_jax.training.corpus import Corpus
from gauntlet_jax.training.model import init_params, make_loss_fn, stacked_axes
from gauntlet_jax.training.sharding import Shardings, make_mesh, make_shardings
from gauntlet_jax.types import LossFn, Params


class Task(NamedTuple):
    """What is learned, and how it is sent: the parts that depend on the model.

    Attributes:
      params: theta_0, or its shapes.
      loss_fn: of the model.
      compressor: gradients to pseudo-gradients.
      aggregator: those to one update.
      shardings: where everything lies.
    """

    params: Params
    loss_fn: LossFn
    compressor: Compressor
    aggregator: Aggregator
    shardings: Shardings

    @property
    def sum_shardings(self) -> Any:
        """Where a sum of pseudo-gradients lies: each tree of blocks in it like the parameters."""
        return tuple(self.shardings.params for _ in jax.eval_shape(self.aggregator.start))


def abstract_task(
    config: Config,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> Task:
    """A run's task with shapes in place of parameters: nothing is computed and nothing allocated.

    Args:
      config: of the run.
      devices: of the mesh; None takes this machine's.

    Raises:
      ValueError: a setting does not go with the model or the devices; the line names it.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    if config.build_model is None:
        shapes = jax.eval_shape(functools.partial(init_params, config.model), key)
        mesh = _mesh(config, devices)
        return _task(config, shapes, make_loss_fn(config.model, mesh), stacked_axes(shapes), mesh)
    build, losses = config.build_model, []

    def init(key: jax.Array) -> Params:
        params, loss_fn = build(key)
        losses.append(loss_fn)
        return params

    return _task(config, jax.eval_shape(init, key), losses[0], None, _mesh(config, devices))


def make_task(config: Config, corpus: Corpus) -> Task:
    """A run's task with theta_0 on this machine's devices, each of which makes its own piece.

    Raises:
      ValueError: a setting does not go with the corpus or the model; the line names it.
    """
    if config.build_model is not None:
        params, loss_fn = config.build_model(jax.random.key(config.seed))
        task = _task(config, params, loss_fn, None, _mesh(config, None))
        return task._replace(params=jax.device_put(params, task.shardings.params))
    if corpus.vocabulary > config.model.vocabulary:
        raise ValueError(
            f"model.vocabulary: {config.model.vocabulary} is too small, the corpus has {corpus.vocabulary} tokens"
        )
    task = abstract_task(config)
    init = jax.jit(
        lambda: init_params(config.model, jax.random.key(config.seed)), out_shardings=task.shardings.params
    )
    return task._replace(params=init())


def _mesh(config: Config, devices: Sequence[Any] | None) -> Mesh:
    return make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp, tensor=config.mesh.tensor, devices=devices)


def _task(config: Config, params: Params, loss_fn: LossFn, stacked: Any | None, mesh: Mesh) -> Task:
    settings = config.compression
    shardings = make_shardings(mesh, params, stacked=stacked, parts=settings.parts)
    make = compression.demo if settings.method == "demo" else compression.sparseloco
    compressor = make(params, beta=settings.beta, k=settings.k, bits=settings.bits, stacked=stacked)
    largest = max(layout.size for layout in compressor.format.leaves())
    if settings.k >= largest:
        raise ValueError(f"compression.k: {settings.k} must be below the size of a block, {largest}")
    aggregator = (
        compression.signed_mean(
            compressor.format, norm=settings.norm, divisor=settings.divisor, axes=shardings.cuts
        )
        if settings.method == "demo"
        else compression.clipped_mean(compressor.format, axes=shardings.cuts)
    )
    return Task(params, loss_fn, compressor, aggregator, shardings)
