"""What is measured: a peer and a validator of a run whose model has ten million parameters, all in blocks of 64 x 64."""

from types import SimpleNamespace
from typing import NamedTuple

import jax
import numpy as np

from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import Task, make_task
from gauntlet_jax.config import CompressionConfig, Config, DataConfig, PeerConfig
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.training.model import DecoderConfig, parameter_count
from gauntlet_jax.types import Params

PEERS = 15
MODEL = DecoderConfig(vocabulary=4096, width=320, layers=6, heads=5, kv_heads=5, intermediate=960, scan=True)
SMALL = DecoderConfig(vocabulary=256, width=64, layers=1, heads=1, kv_heads=1, intermediate=64, scan=True)


class Subject(NamedTuple):
    """A node's task and compiled steps.

    Attributes:
      config, task, steps: of the run.
      parameters: how many the model has.
      gradient: something to encode, float32, shaped like the model.
    """

    config: Config
    task: Task
    steps: Steps
    parameters: int
    gradient: Params


def subject(model: DecoderConfig = MODEL, *, batch: int = 64, length: int = 128) -> Subject:
    """The node: DeMo's compression with k = 32 of 4096 and 8 bits; ``batch * length`` tokens a batch."""
    config = Config(
        name="bench",
        peers=(PeerConfig("ada"),),
        model=model,
        data=DataConfig(length=length, batch=batch),
        compression=CompressionConfig(beta=0.999, k=32, bits=8),
        validator=ValidatorRules(top_g=PEERS),
    )
    task = make_task(config, SimpleNamespace(vocabulary=model.vocabulary))  # pyright: ignore[reportArgumentType]
    generator = np.random.default_rng(0)
    gradient = jax.tree.map(
        lambda leaf: jax.device_put(generator.standard_normal(leaf.shape, np.float32), leaf.sharding),
        task.params,
    )
    return Subject(config, task, Steps(config, task), parameter_count(task.params), gradient)
