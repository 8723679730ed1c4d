"""The parts that every node of a run is made of besides its task and its compiled steps: data, and a validator."""

import hashlib
from collections.abc import Callable

import jax
import numpy as np

from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import Task
from gauntlet_jax.config import Config
from gauntlet_jax.config_check import slots_of
from gauntlet_jax.nodes.primary_evaluation import Evaluation, PrimaryEvaluation
from gauntlet_jax.nodes.validator import Validator
from gauntlet_jax.training.assignment import Assignment
from gauntlet_jax.training.corpus import Corpus, load_corpus
from gauntlet_jax.training.sharding import Shardings
from gauntlet_jax.types import Batch


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


class Data:
    """The corpus as batches, and who is assigned which."""

    def __init__(self, config: Config, corpus: Corpus, shardings: Shardings):
        self.batch = config.data.batch
        self.heldout = corpus.heldout.reshape(-1, config.data.batch, config.data.length + 1)
        self.assignment = Assignment(
            pool=len(corpus.windows),
            seed=config.seed,
            peers=slots_of(config),
            capacity=config.data.capacity * config.data.batch,
        )
        self._windows = corpus.windows
        self._placement = shardings.batch if jax.process_count() > 1 else None

    def batch_of(self, windows: np.ndarray) -> Batch:
        """int32[windows, length + 1]; where a node has several hosts, each reads the rows of its own devices."""
        if self._placement is None:
            return self._rows(windows)
        shape = (len(windows), self.heldout.shape[-1])

        def rows(index: tuple[slice, ...] | None) -> np.ndarray:
            return self._rows(windows if index is None else windows[index[0]])

        return jax.make_array_from_callback(shape, self._placement, rows)

    def batches_of(self, windows: np.ndarray) -> list[Batch]:
        """The windows cut into batches."""
        return [self.batch_of(part) for part in np.split(windows, len(windows) // self.batch)]

    def _rows(self, windows: np.ndarray) -> np.ndarray:
        return np.asarray(self._windows[windows], np.int32)


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
