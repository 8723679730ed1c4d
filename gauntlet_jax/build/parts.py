"""The parts that every node of a run is made of: its task, its data and its compiled steps."""

import functools
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gauntlet_jax import compression, scoring
from gauntlet_jax.compression import Aggregator, Compressor
from gauntlet_jax.config import Config
from gauntlet_jax.config_check import slots_of
from gauntlet_jax.nodes.peer import PeerSteps
from gauntlet_jax.nodes.primary_evaluation import BUILT_IN_SCORES, Evaluation, PrimaryEvaluation
from gauntlet_jax.nodes.stopwatch import Step, Stopwatch
from gauntlet_jax.nodes.validator import Validator, ValidatorSteps
from gauntlet_jax.storage.zarr_arrays import ArraySpec, Schema
from gauntlet_jax.training.assignment import Assignment
from gauntlet_jax.training.corpus import Corpus, load_corpus
from gauntlet_jax.training.eval_step import make_evaluation, make_loss
from gauntlet_jax.training.model import init_params, make_loss_fn, stacked_axes
from gauntlet_jax.training.sharding import Shardings, make_mesh, make_shardings
from gauntlet_jax.training.train_step import (
    GradientSteps,
    LocalTraining,
    apply_step,
    gradient_steps,
    gradient_training,
    inner_training,
)
from gauntlet_jax.types import LossFn, Params


class Task(NamedTuple):
    """What is learned, and how it is sent: the parts that depend on the model."""

    params: Params
    loss_fn: LossFn
    compressor: Compressor
    aggregator: Aggregator
    shardings: Shardings


def read_corpus(config: Config) -> Corpus:
    """The text that a config names, cut into windows."""
    data = config.data
    return load_corpus(
        data.path,
        length=data.length,
        heldout_windows=data.heldout,
        tokenizer=data.tokenizer,
        max_bytes=data.max_bytes,
        text_column=data.text_column,
    )


def digest_of(corpus: Corpus) -> str:
    """sha256 of the training windows: two nodes train on the same text exactly when these are equal."""
    running = hashlib.sha256(repr((corpus.windows.shape, corpus.windows.dtype.name)).encode())
    for start in range(0, len(corpus.windows), 65536):
        running.update(np.ascontiguousarray(corpus.windows[start : start + 65536]).data)
    return running.hexdigest()


def make_task(config: Config, corpus: Corpus) -> Task:
    """Parameters, loss and compression of a run.

    Raises:
      ValueError: a setting does not go with the corpus or the model; the line names it.
    """
    key = jax.random.key(config.seed)
    if config.build_model is not None:
        params, loss_fn = config.build_model(key)
        stacked = None
    else:
        if corpus.vocabulary > config.model.vocabulary:
            raise ValueError(
                f"model.vocabulary: {config.model.vocabulary} is too small, the corpus has {corpus.vocabulary} tokens"
            )
        params, loss_fn = init_params(config.model, key), make_loss_fn(config.model)
        stacked = stacked_axes(params)
    mesh = make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp, tensor=config.mesh.tensor)
    shardings = make_shardings(mesh, params, stacked=stacked)
    settings = config.compression
    make = compression.demo if settings.method == "demo" else compression.sparseloco
    compressor = make(params, beta=settings.beta, k=settings.k, bits=settings.bits, stacked=stacked)
    largest = max(layout.size for layout in compressor.format.leaves())
    if settings.k >= largest:
        raise ValueError(f"compression.k: {settings.k} must be below the size of a block, {largest}")
    aggregator = (
        compression.signed_mean(compressor.format, norm=settings.norm, divisor=settings.divisor)
        if settings.method == "demo"
        else compression.clipped_mean(compressor.format)
    )
    return Task(jax.device_put(params, shardings.params), loss_fn, compressor, aggregator, shardings)


class Data:
    """The corpus as batches, and who is assigned which."""

    def __init__(self, config: Config, corpus: Corpus):
        self.batch = config.data.batch
        self.heldout = corpus.heldout.reshape(-1, config.data.batch, config.data.length + 1)
        self.assignment = Assignment(
            pool=len(corpus.windows),
            seed=config.seed,
            peers=slots_of(config),
            capacity=config.data.capacity * config.data.batch,
        )
        self._windows = corpus.windows

    def batch_of(self, windows: np.ndarray) -> np.ndarray:
        """int32[windows, length + 1]."""
        return np.asarray(self._windows[windows], np.int32)

    def batches_of(self, windows: np.ndarray) -> list[np.ndarray]:
        """The windows cut into batches."""
        return [self.batch_of(part) for part in np.split(windows, len(windows) // self.batch)]


class Steps:
    """Every compiled function of the run, timed by kind."""

    def __init__(self, config: Config, task: Task):
        self._config, self._task = config, task
        self.stopwatch = Stopwatch()
        fmt, shardings, timed = task.compressor.format, task.shardings, self.stopwatch.step
        self.gradient = self.timed_gradient("train")
        self.loss = timed("evaluate", make_loss(task.loss_fn, shardings))
        self.apply = timed("aggregate", apply_step(shardings))
        probe = timed("evaluate", jax.jit(scoring.take_probe))

        def encode(residual: Any, gradient: Params) -> tuple[dict[str, jax.Array], Any]:
            sent, residual = task.compressor.update(residual, gradient)
            return compression.pack(fmt, sent), residual

        self._encode = timed("encode", jax.jit(encode, donate_argnums=0))

        def to_update(sent: Any) -> Params:
            return task.aggregator.direction(task.compressor.decode(sent))

        self.peer = PeerSteps(
            training=self._training(),
            init=task.compressor.init,
            encode=lambda residual, gradient: self._encode(
                # A stage of a peer may hand over a gradient that lies elsewhere than the model does.
                residual,
                jax.device_put(gradient, shardings.params),
            ),
            probe=probe,
        )
        scores = {**BUILT_IN_SCORES, **config.scores}
        largest_block = max(layout.size for layout in fmt.leaves())
        rules = config.validator
        self.validator = ValidatorSteps(
            inspect=timed("evaluate", jax.jit(functools.partial(compression.unpack, fmt))),
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
            combine=timed("aggregate", jax.jit(task.aggregator.combine, out_shardings=shardings.params)),
        )
        arrays = {
            **compression.array_shapes(fmt),
            "probe": jax.eval_shape(scoring.take_probe, task.params, jax.random.key(0)),
        }
        self.schema: Schema = {
            name: ArraySpec(array.shape, np.dtype(array.dtype)) for name, array in arrays.items()
        }

    def work(self, *, peer: bool = True, validator: bool = True) -> list[tuple[Step, tuple[Any, ...]]]:
        """The large steps with shapes of their arguments, to be compiled side by side before the first round.

        Args:
          peer: with those of a peer.
          validator: with those of a validator.
        """
        config, params = self._config, self._task.params
        batch = jax.ShapeDtypeStruct((config.data.batch, config.data.length + 1), jnp.int32)
        sample = jax.ShapeDtypeStruct(
            (config.validator.sample_batches * config.data.batch, config.data.length + 1), jnp.int32
        )
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        arrays = compression.array_shapes(self._task.compressor.format)
        unpack = functools.partial(compression.unpack, self._task.compressor.format)
        sent, _ = jax.eval_shape(unpack, arrays)
        places = config.validator.top_g
        stack = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((places, *leaf.shape), leaf.dtype), sent)
        work: list[tuple[Any, tuple[Any, ...]]] = [
            (self.validator.inspect, (arrays,)),
            (self.validator.combine, (stack, jax.ShapeDtypeStruct((places,), jnp.float32))),
            (self.apply, (params, params, scalar)),
            (self.peer.probe, (params, jax.random.key(0))),
        ]
        if validator:
            work.insert(0, (self.loss, (params, batch)))
            if config.validator.sample_batches > 1:
                work.insert(0, (self.loss, (params, sample)))
        if peer:
            work.insert(0, (self._encode, (jax.eval_shape(self.peer.init, params), params)))
        if peer and config.compression.method == "demo":
            work.insert(0, (self.gradient.gradient, (params, batch)))
        if validator and not config.scores_read_aggregate:
            work.insert(0, (self.validator.evaluate, (params, sent, None, sample, sample, scalar, scalar)))
        return work

    def timed_gradient(self, kind: str) -> GradientSteps:
        """Steps of a mean gradient that count as ``kind``."""
        return GradientSteps(
            *(
                self.stopwatch.step(kind, step)
                for step in gradient_steps(self._task.loss_fn, self._task.shardings)
            )
        )

    def _training(self) -> LocalTraining:
        settings = self._config.compression
        if settings.method == "demo":
            return gradient_training(self.gradient)
        if self._config.data.batch % settings.inner_steps:
            raise ValueError(
                f"compression.inner_steps: H = {settings.inner_steps} must divide data.batch, {self._config.data.batch}"
            )
        inner = inner_training(
            self._task.loss_fn,
            optax.adamw(settings.inner_learning_rate, b2=0.95, weight_decay=0.0),
            self._task.shardings,
            steps=settings.inner_steps,
        )
        return inner._replace(run=self.stopwatch.step("train", inner.run))


def make_validator(
    name: str,
    config: Config,
    task: Task,
    data: Data,
    steps: Steps,
    *,
    readers: int = 1,
    wait_seconds: float | None = None,
    wrap: Callable[[Evaluation], Evaluation] = lambda evaluation: evaluation,
) -> Validator:
    """A validator of a run, who knows no peer yet.

    Args:
      name: its own.
      config, task, data, steps: of the run.
      readers, wait_seconds: how buckets are read (see ``Inspector``).
      wrap: puts something around the evaluation.
    """
    evaluation = PrimaryEvaluation(
        slots=slots_of(config),
        assignment=data.assignment,
        sample=config.validator.sample_batches * config.data.batch,
        batch_of=data.batch_of,
        loss=steps.validator.loss,
        evaluate=steps.validator.evaluate,
        step_fraction=config.validator.step_fraction,
    )
    return Validator(
        name,
        slots=slots_of(config),
        rules=config.validator,
        rewards=config.rewards,
        steps=steps.validator,
        fmt=task.compressor.format,
        schema=steps.schema,
        evaluation=wrap(evaluation),
        batch=config.data.batch,
        capacity=data.assignment.capacity,
        peer_score=config.peer_score,
        stopwatch=steps.stopwatch,
        aggregate_for_scores=config.scores_read_aggregate,
        readers=readers,
        wait_seconds=wait_seconds,
    )
