"""Every compiled function of a run's nodes, timed by kind: what runs is what ``gauntlet plan`` compiles."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

from gauntlet_jax import compression, scoring
from gauntlet_jax.build.task import Task
from gauntlet_jax.compression import Aggregator
from gauntlet_jax.compression.chunking import is_layout
from gauntlet_jax.config import Config
from gauntlet_jax.nodes.hosts import SOLE_HOST, Hosts
from gauntlet_jax.nodes.payload import Payload
from gauntlet_jax.nodes.peer import PeerSteps
from gauntlet_jax.nodes.primary_evaluation import BUILT_IN_SCORES
from gauntlet_jax.nodes.stopwatch import Step, Stopwatch, Work
from gauntlet_jax.nodes.validator import ValidatorSteps
from gauntlet_jax.storage.artifact import PROBE
from gauntlet_jax.storage.digest import ParamsDigest, leaf_name
from gauntlet_jax.storage.zarr_arrays import ArraySpec, Schema
from gauntlet_jax.training.eval_step import make_evaluation, make_loss
from gauntlet_jax.training.sharding import AXES
from gauntlet_jax.training.train_step import (
    GradientSteps,
    LocalTraining,
    apply_step,
    gradient_steps,
    gradient_training,
    inner_training,
)
from gauntlet_jax.types import Params, PseudoGradient


class Steps:
    """Every compiled function of the run, timed by kind."""

    def __init__(self, config: Config, task: Task, *, hosts: Hosts = SOLE_HOST):
        """The steps of a run; nothing is compiled yet.

        Args:
          config: of the run.
          task: its parameters may be shapes.
          hosts: that the node consists of.
        """
        self._config, self._task = config, task
        self.stopwatch = Stopwatch()
        fmt, shardings, timed = task.compressor.format, task.shardings, self.stopwatch.step
        p, specs, everywhere = shardings.params, shardings.specs, PartitionSpec()
        self.payload = Payload(fmt, p, parts=config.compression.parts)
        self.digest = ParamsDigest(
            parts=config.compression.parts,
            axes={
                leaf_name(path): layout.cut_axis(config.compression.parts)
                for path, layout in jax.tree_util.tree_leaves_with_path(fmt.layouts, is_leaf=is_layout)
            },
            exchanged=hosts.merged,
        )
        self.gradient = self.timed_gradient("train")
        self.loss = timed("evaluate", make_loss(task.loss_fn, shardings))
        self.apply = timed("aggregate", apply_step(shardings))

        def take_probe(params: Params, key: jax.Array) -> jax.Array:
            return scoring.take_probe(params, jax.random.wrap_key_data(key))

        self._probe = timed("evaluate", jax.jit(take_probe, out_shardings=shardings.replicated))

        # A key's numbers lie on no device yet, so that they can go to all of those of several hosts.
        def probe(params: Params, key: jax.Array) -> jax.Array:
            return self._probe(params, np.asarray(jax.random.key_data(key)))

        def encode(residual: Any, gradient: Params) -> tuple[Any, Any]:
            sent, residual = task.compressor.update(residual, gradient)
            return compression.pack(fmt, sent), residual

        encode = shardings.per_shard(encode, inputs=(specs, specs), outputs=(specs, specs))
        self._encode = timed(
            "encode", jax.jit(encode, in_shardings=(p, p), out_shardings=(p, p), donate_argnums=0)
        )

        def inspect(packed: Any) -> tuple[PseudoGradient, jax.Array]:
            sent, well_formed = compression.unpack(fmt, packed)
            return sent, jax.lax.pmin(well_formed.astype(jnp.int32), AXES) == 1

        inspect = shardings.per_shard(inspect, inputs=(specs,), outputs=(specs, everywhere))
        taken = jax.tree.map(lambda shape: shape.sharding, self.payload.taken)
        self._inspect = timed(
            "evaluate", jax.jit(lambda arrays: inspect(self.payload.cut(arrays)), in_shardings=(taken,))
        )

        def to_update(sent: PseudoGradient) -> Params:
            return task.aggregator.direction(task.compressor.decode(sent))

        to_update = shardings.per_shard(to_update, inputs=(specs,), outputs=specs)
        self.peer = PeerSteps(
            training=self._training(),
            init=jax.jit(task.compressor.init, out_shardings=p),
            encode=self._encoded,
            probe=probe,
        )
        scores = {**BUILT_IN_SCORES, **config.scores}
        largest_block = max(layout.size for layout in fmt.leaves())
        rules = config.validator
        self._measure: Step | None = None
        self.validator = ValidatorSteps(
            inspect=lambda arrays: self._inspect(self.payload.take(arrays)),
            probe=probe,
            loss=self.loss,
            evaluate=timed("evaluate", make_evaluation(task.loss_fn, to_update, scores, shardings)),
            overlap=timed(
                "evaluate", jax.jit(functools.partial(scoring.index_overlap, chunk_size=largest_block))
            ),
            rate=timed(
                "evaluate",
                jax.jit(functools.partial(scoring.rate, beta=rules.rating_beta, tau=rules.rating_tau)),
            ),
            combine=self._combine(),
        )
        shown = jax.eval_shape(scoring.take_probe, task.params, jax.random.key(0))
        self.schema: Schema = {
            **self.payload.schema,
            PROBE: ArraySpec(shown.shape, np.dtype(shown.dtype)),
        }

    def work(self, *, peer: bool = True, validator: bool = True) -> list[Work]:
        """The large steps with shapes of their arguments, the slowest to compile first.

        Args:
          peer: with those of a peer.
          validator: with those of a validator.
        """
        config, task = self._config, self._task
        params, shardings = _shapes(task.params, task.shardings.params), task.shardings
        length = config.data.length + 1
        batch = jax.ShapeDtypeStruct((config.data.batch, length), jnp.int32, sharding=shardings.batch)
        sample = jax.ShapeDtypeStruct(
            (config.validator.sample_batches * config.data.batch, length), jnp.int32, sharding=shardings.batch
        )
        scalar = jax.ShapeDtypeStruct((), jnp.float32, sharding=shardings.replicated)
        key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        residual = _shapes(jax.eval_shape(task.compressor.init, params), shardings.params)
        sent = _shapes(jax.eval_shape(self._inspect.function, self.payload.taken)[0], shardings.params)
        total = _shapes(jax.eval_shape(task.aggregator.start), task.sum_shardings)
        scale = scalar if self._measure is None else jax.tree.map(lambda _: scalar, shardings.params)
        work = [
            Work("inspect", self._inspect, (self.payload.taken,)),
            Work("add", self.validator.combine.add, (total, sent, scale)),
            Work("finish", self.validator.combine.finish, (total,)),
            Work("apply", self.apply, (params, params, scalar)),
            Work("probe", self._probe, (params, key)),
        ]
        if self._measure is not None:
            work.append(Work("measure", self._measure, (sent,)))
        if validator:
            work.insert(0, Work("loss", self.loss, (params, batch)))
            if config.validator.sample_batches > 1:
                work.insert(0, Work("loss of a sample", self.loss, (params, sample)))
        if peer:
            work.insert(0, Work("encode", self._encode, (residual, params)))
            work.insert(0, self._training_work(params, batch))
        if validator and not config.scores_read_aggregate:
            work.insert(
                0,
                Work(
                    "evaluate", self.validator.evaluate, (params, sent, None, sample, sample, scalar, scalar)
                ),
            )
        return work

    def timed_gradient(self, kind: str) -> GradientSteps:
        """Steps of a mean gradient that count as ``kind``."""
        return GradientSteps(
            *(
                self.stopwatch.step(kind, step)
                for step in gradient_steps(self._task.loss_fn, self._task.shardings)
            )
        )

    def _encoded(self, residual: Any, gradient: Params) -> tuple[Mapping[str, np.ndarray], Any]:
        # A stage of a peer may hand over a gradient that lies elsewhere than the model does.
        packed, residual = self._encode(residual, jax.device_put(gradient, self._task.shardings.params))
        return self.payload.arrays(packed), residual

    def _combine(self) -> Aggregator:
        aggregator, shardings, timed = self._task.aggregator, self._task.shardings, self.stopwatch.step
        p, specs, everywhere = shardings.params, shardings.specs, PartitionSpec()
        sums = self._task.sum_shardings
        sum_specs = jax.tree.map(lambda sharding: sharding.spec, sums)
        add = shardings.per_shard(aggregator.add, inputs=(sum_specs, specs, everywhere), outputs=sum_specs)
        finish = shardings.per_shard(aggregator.finish, inputs=(sum_specs,), outputs=specs)
        add = jax.jit(add, in_shardings=(sums, p, shardings.replicated), out_shardings=sums, donate_argnums=0)
        compiled = aggregator._replace(
            start=jax.jit(aggregator.start, out_shardings=sums),
            # On one device the next peer's bytes are read while this peer is added; several could mix up what they say.
            add=timed("aggregate", add, waits=shardings.mesh.size > 1),
            finish=timed("aggregate", jax.jit(finish, in_shardings=(sums,), out_shardings=p)),
        )
        if aggregator.measure is None or aggregator.scales is None:
            return compiled
        measure = shardings.per_shard(aggregator.measure, inputs=(specs,), outputs=everywhere)
        measure = timed("aggregate", jax.jit(measure, in_shardings=(p,)))
        scales = timed("aggregate", jax.jit(aggregator.scales))
        self._measure = measure
        # A few numbers that every host of a node has: from the host they can go to all devices again.
        return compiled._replace(
            measure=lambda sent: jax.device_get(measure(sent)),
            scales=lambda rows, weights: jax.device_get(scales(rows, weights)),
        )

    def _training(self) -> LocalTraining:
        settings = self._config.compression
        if settings.method == "demo":
            return gradient_training(self.gradient)
        inner = inner_training(
            self._task.loss_fn,
            optax.adamw(settings.inner_learning_rate, b2=0.95, weight_decay=0.0),
            self._task.params,
            self._task.shardings,
            steps=settings.inner_steps,
        )
        return inner._replace(run=self.stopwatch.step("train", inner.run))

    def _training_work(self, params: Any, batch: Any) -> Work:
        if self._config.compression.method == "demo":
            return Work("gradient", self.gradient.gradient, (params, batch))
        state = jax.eval_shape(self.peer.training.init, params)
        return Work("inner steps", self.peer.training.run, (params, state, [batch]))


def _shapes(tree: Any, shardings: Any) -> Any:
    """Shapes of arrays that lie where a tree of shardings, or a prefix of one, says."""

    def place(sharding: Any, part: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), part
        )

    return jax.tree.map(place, shardings, tree)
