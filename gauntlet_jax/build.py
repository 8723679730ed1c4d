"""From a config to the nodes of a simulation: the one place where every layer meets."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gauntlet_jax import compression, scoring
from gauntlet_jax.compression import Aggregator, Compressor
from gauntlet_jax.config import Config, behaviors_of, check
from gauntlet_jax.nodes.attacks import BEHAVIORS
from gauntlet_jax.nodes.beacon import SeededBeacon
from gauntlet_jax.nodes.clock import ManualClock
from gauntlet_jax.nodes.peer import Arrays, Peer, PeerSteps, artifact_key
from gauntlet_jax.nodes.simulation import Baseline, Heldout, Simulation
from gauntlet_jax.nodes.stopwatch import Step, Stopwatch
from gauntlet_jax.nodes.validator import BUILT_IN_SCORES, Validator, ValidatorSteps
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.storage.artifact import PROBE, MalformedArtifact, head_artifact, read_artifact
from gauntlet_jax.storage.bucket import open_bucket
from gauntlet_jax.storage.checkpoint import Checkpoints
from gauntlet_jax.storage.zarr_arrays import ArraySpec, Schema
from gauntlet_jax.training.assignment import Assignment
from gauntlet_jax.training.baselines import AdamW
from gauntlet_jax.training.corpus import Corpus, load_corpus
from gauntlet_jax.training.eval_step import make_evaluation, make_loss, mean_loss
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
from gauntlet_jax.types import LossFn, Params, PeerId

VALIDATOR = "validator"
_HONEST = ("honest", "double_data")


def build_simulation(config: Config, folder: Path) -> Simulation:
    """Checks a config, loads its corpus and puts a simulation together; nothing is compiled or trained yet.

    Args:
      config: the run.
      folder: the run folder, which gets ``ledger.sqlite``, ``store/`` and ``checkpoints/``.

    Raises:
      ValueError: a setting is wrong; one line says which.
      OSError: corpus or folder cannot be read or written.
    """
    check(config)
    behaviors = behaviors_of(config)
    corpus = _corpus(config)
    task = _task(config, corpus)
    data = _Data(config, corpus)
    steps = _Steps(config, task)
    names = [peer.name for peer in config.peers]

    clock = ManualClock()
    roots = {name: "memory://" if config.store == "memory" else _url(folder, name) for name in names}
    buckets = {name: open_bucket(url, clock=clock) for name, url in roots.items()}
    validator = Validator(
        VALIDATOR,
        names,
        buckets,
        rules=config.validator,
        rewards=config.rewards,
        steps=steps.validator,
        fmt=task.compressor.format,
        schema=steps.schema,
        assignment=data.assignment,
        batch=config.data.batch,
        batch_of=data.batch_of,
        peer_score=config.peer_score,
        aggregate_for_scores=config.scores_read_aggregate,
    )
    baseline = _baseline(config, task, data, steps) if config.baseline == "adamw" else None

    ledger = SqliteLedger(folder / "ledger.sqlite", clock)
    for name in names:
        ledger.register(name, f"store/{name}")

    def others(reader: PeerId, round: int) -> Iterator[tuple[PeerId, Arrays]]:
        """What the other peers' public buckets hold so far, best paid in the last round first."""
        weights = ledger.weights(round - 1).get(VALIDATOR, {}) if round else {}
        by_pay = sorted((name for name in names if name != reader), key=lambda name: -weights.get(name, 0.0))
        for name in by_pay:
            head = head_artifact(buckets[name], artifact_key(round), steps.schema)
            if head is None or head.last_modified > clock():
                continue  # nothing there yet, or what a stopped run left there before it plays this round again
            try:
                arrays, _ = read_artifact(
                    buckets[name],
                    artifact_key(round),
                    steps.schema,
                    run=config.name,
                    round=round,
                    peer=name,
                    max_declared=data.assignment.capacity,
                )
            except MalformedArtifact:
                continue
            yield name, {key: array for key, array in arrays.items() if key != PROBE}

    peers = [
        Peer(
            name,
            slot,
            behaviors[name],
            params=task.params,
            steps=steps.peer,
            batch=config.data.batch,
            batches_of=data.batches_of,
            assignment=data.assignment,
            bucket=buckets[name],
            seed=config.seed,
            others=others,
        )
        for slot, name in enumerate(names)
    ]
    return Simulation(
        name=config.name,
        seed=config.seed,
        rounds=config.rounds,
        params=task.params,
        peers=peers,
        behaviors={
            peer.name: peer.behavior if isinstance(peer.behavior, str) else "custom" for peer in config.peers
        },
        validator=validator,
        apply=steps.apply,
        loss=steps.loss,
        learning_rate=config.learning_rate.schedule(),
        beacon=SeededBeacon(config.seed),
        clock=clock,
        times=config.times,
        ledger=ledger,
        checkpoints=Checkpoints(folder / "checkpoints", keep=config.checkpoints_kept),
        heldout=Heldout(data.heldout, config.heldout_every),
        baseline=baseline,
        sizes=compression.sizes(task.compressor.format),
        stopwatch=steps.stopwatch,
        to_compile=steps.work(),
    )


def sweep_baseline(config: Config, rates: Sequence[float]) -> dict[float, float]:
    """AdamW alone at several peak rates, on the data and schedule that a simulation's baseline sees.

    Args:
      config: the run.
      rates: peak learning rates.

    Returns:
      The final held-out loss by rate, in nats/token.
    """
    corpus = _corpus(config)
    task, data = _task(config, corpus), _Data(config, corpus)
    steps = _Steps(config, task)

    def final_loss(rate: float) -> float:
        baseline = _baseline(dataclasses.replace(config, baseline_learning_rate=rate), task, data, steps)
        for round in range(config.rounds):
            baseline.optimizer.run_round(baseline.data(round))
        return mean_loss(steps.loss, baseline.optimizer.params, list(data.heldout))

    return {rate: final_loss(rate) for rate in rates}


class Task(NamedTuple):
    """What is learned, and how it is sent: the parts that depend on the model."""

    params: Params
    loss_fn: LossFn
    compressor: Compressor
    aggregator: Aggregator
    shardings: Shardings


def _corpus(config: Config) -> Corpus:
    data = config.data
    return load_corpus(
        data.path,
        length=data.length,
        heldout_windows=data.heldout,
        tokenizer=data.tokenizer,
        max_bytes=data.max_bytes,
        text_column=data.text_column,
    )


def _task(config: Config, corpus: Corpus) -> Task:
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


class _Data:
    """The corpus as batches, and who is assigned which."""

    def __init__(self, config: Config, corpus: Corpus):
        self.batch = config.data.batch
        self.heldout = corpus.heldout.reshape(-1, config.data.batch, config.data.length + 1)
        self.assignment = Assignment(
            pool=len(corpus.windows),
            seed=config.seed,
            peers=len(config.peers),
            capacity=config.data.capacity * config.data.batch,
        )
        self._windows = corpus.windows

    def batch_of(self, windows: np.ndarray) -> np.ndarray:
        """int32[windows, length + 1]."""
        return np.asarray(self._windows[windows], np.int32)

    def batches_of(self, windows: np.ndarray) -> list[np.ndarray]:
        """The windows cut into batches."""
        return [self.batch_of(part) for part in np.split(windows, len(windows) // self.batch)]


class _Steps:
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

    def work(self) -> list[tuple[Step, tuple[Any, ...]]]:
        """The large steps with shapes of their arguments, to be compiled side by side before the first round."""
        config, params = self._config, self._task.params
        batch = jax.ShapeDtypeStruct((config.data.batch, config.data.length + 1), jnp.int32)
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        residual = jax.eval_shape(self.peer.init, params)
        arrays = compression.array_shapes(self._task.compressor.format)
        unpack = functools.partial(compression.unpack, self._task.compressor.format)
        sent, _ = jax.eval_shape(unpack, arrays)
        peers = len(config.peers)
        stack = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((peers, *leaf.shape), leaf.dtype), sent)
        work: list[tuple[Any, tuple[Any, ...]]] = [
            (self.loss, (params, batch)),
            (self._encode, (residual, params)),
            (self.validator.inspect, (arrays,)),
            (self.validator.combine, (stack, jax.ShapeDtypeStruct((peers,), jnp.float32))),
            (self.apply, (params, params, scalar)),
            (self.peer.probe, (params, jax.random.key(0))),
        ]
        if config.compression.method == "demo":
            work.insert(0, (self.gradient.gradient, (params, batch)))
        if not config.scores_read_aggregate:
            work.insert(0, (self.validator.evaluate, (params, sent, None, batch, batch, scalar, scalar)))
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


def _baseline(config: Config, task: Task, data: _Data, steps: _Steps) -> Baseline:
    """AdamW on all that the G best-behaved peers are assigned: at least the data that the update is made of."""
    honest = [
        (slot, BEHAVIORS[peer.behavior].batches)
        for slot, peer in enumerate(config.peers)
        if isinstance(peer.behavior, str) and peer.behavior in _HONEST
    ][: config.validator.top_g]
    if not honest:
        raise ValueError("baseline: adamw trains on the honest peers' data, and there is no honest peer")

    def batches(round: int) -> Sequence[np.ndarray]:
        return [
            batch
            for slot, count in honest
            for batch in data.batches_of(data.assignment.assigned(round, slot, count * data.batch))
        ]

    optimizer = AdamW(
        task.params,
        config.learning_rate.schedule(config.baseline_learning_rate),
        steps.timed_gradient("baseline"),
        task.shardings,
        compile_step=functools.partial(steps.stopwatch.step, "baseline"),
    )
    return Baseline(optimizer, config.baseline_learning_rate, batches)


def _url(folder: Path, peer: PeerId) -> str:
    return (folder / "store" / peer).absolute().as_uri()
