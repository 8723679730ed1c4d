"""A run as one frozen object (layer 5: nothing below sees a config).

Objects of the library go in as they are (``DecoderConfig``, ``ValidatorRules``, score functions), so that a setting is
described once, where it is used.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import optax
import tyro
from jaxtyping import Array

from gauntlet_jax import scoring
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.peer import Behavior
from gauntlet_jax.nodes.validator import ValidatorRules
from gauntlet_jax.rewards.rules import RewardRules
from gauntlet_jax.training.model import DecoderConfig
from gauntlet_jax.training.train_step import learning_rate
from gauntlet_jax.types import LossFn, Params, PeerScoreFn, ScoreFn

ModelFn = Callable[[Array], tuple[Params, LossFn]]


@dataclasses.dataclass(frozen=True)
class PeerConfig:
    """One peer of a simulation.

    Attributes:
      name: its public name.
      behavior: "honest", "double_data", "copycat", "lazy", "noise", "sign_flip", "stale", "stale_with_fresh_probe",
        "late" or "offline"; in a config file also a ``Behavior`` of your own.
    """

    name: str
    behavior: Annotated[str | Behavior, tyro.conf.arg(constructor=str)] = "honest"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    Attributes:
      path: folder of text, .jsonl, .parquet, .npy, .bin or ArrayRecord; None takes the text of the running Python's
        standard library.
      tokenizer: a ``tokenizers`` JSON file; None takes bytes.
      text_column: name of the text field in .jsonl and .parquet.
      max_bytes: read at most so much text; None reads all.
      length: tokens of a sequence.
      batch: sequences of a batch: a single share of data, and the size of a validator's samples.
      capacity: batches that one peer may declare a round.
      heldout: sequences of the held-out split.
    """

    path: str | None = None
    tokenizer: str | None = None
    text_column: str = "text"
    max_bytes: int | None = 8_000_000
    length: int = 64
    batch: int = 32
    capacity: int = 2
    heldout: int = 256


@dataclasses.dataclass(frozen=True)
class CompressionConfig:
    """How gradients become pseudo-gradients, and those one update.

    Attributes:
      method: "demo" (DCT, top-k, sign; the paper) or "sparseloco" (H inner steps, top-k, mean).
      beta: momentum of the error feedback.
      k: coefficients sent of a block of 64x64.
      bits: bits of a value: 2, 8 or 32.
      norm: DeMo: what is scaled to unit length, a peer's "tensor" (the paper) or "chunk".
      divisor: DeMo: "peers" divides by G, "senders" by those who sent a coefficient (open to attack).
      inner_steps: SparseLoCo: H; divides data.batch.
      inner_learning_rate: SparseLoCo: the inner AdamW's.
    """

    method: Literal["demo", "sparseloco"] = "demo"
    beta: float = 0.999
    k: int = 32
    bits: Literal[2, 8, 32] = 8
    norm: Literal["tensor", "chunk"] = "tensor"
    divisor: Literal["peers", "senders"] = "peers"
    inner_steps: int = 8
    inner_learning_rate: float = 3e-3


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """The outer learning rate alpha_t: linear warm-up, then a cosine.

    Attributes:
      peak: largest step.
      warmup_rounds: rounds until the peak.
      schedule_rounds: rounds until the cosine ends; apart from ``rounds``, so that a run can stop and go on.
      final_fraction: its end, as a part of the peak.
    """

    peak: float = 4e-3
    warmup_rounds: int = 5
    schedule_rounds: int = 80
    final_fraction: float = 0.1

    def schedule(self, peak: float | None = None) -> optax.Schedule:
        """alpha_t, or the same shape with another peak."""
        return learning_rate(
            peak=self.peak if peak is None else peak,
            warmup_rounds=self.warmup_rounds,
            schedule_rounds=self.schedule_rounds,
            final_fraction=self.final_fraction,
        )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices of one node, and how the model is laid over them.

    Attributes:
      data: copies that split a batch.
      fsdp: parts that parameters and batch are split into.
      tensor: parts that the matrix products are split into.
    """

    data: int = 1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """A run.

    Attributes:
      name: of the run; names its folder.
      peers: who takes part, by slot of the assignment.
      seed: of everything random: model, data assignment, beacons, noise.
      rounds: how many to run.
      baseline: "adamw" trains a trusted AdamW run beside the peers on the honest peers' data; "none" does not.
      baseline_learning_rate: AdamW's peak rate, on the same schedule.
      model: the decoder's shape.
      data: corpus and batches.
      compression: pseudo-gradients and aggregation.
      learning_rate: of the round's update.
      validator: how peers are judged.
      rewards: how they are paid.
      times: length of a round and its put window.
      mesh: devices.
      store: "file" keeps the round artifacts in the run folder, "memory" forgets them.
      heldout_every: rounds between two measurements of the held-out loss.
      checkpoint_every: rounds between two checkpoints.
      checkpoints_kept: how many are kept.
      build_model: ``key -> (params, loss_fn)``, any pytree and loss in place of the decoder.
      scores: scores of your own, by the name under which they are recorded.
      scores_read_aggregate: whether one of them reads ``ScoreInputs.aggregate``.
      peer_score: scores and history to PeerScore.
    """

    name: str
    peers: tuple[PeerConfig, ...]
    seed: int = 0
    rounds: int = 80
    baseline: Literal["none", "adamw"] = "none"
    baseline_learning_rate: float = 1e-2
    model: DecoderConfig = DecoderConfig()
    data: DataConfig = DataConfig()
    compression: CompressionConfig = CompressionConfig()
    learning_rate: ScheduleConfig = ScheduleConfig()
    validator: ValidatorRules = ValidatorRules()
    rewards: RewardRules = RewardRules()
    times: RoundTimes = RoundTimes()
    mesh: MeshConfig = MeshConfig()
    store: Literal["file", "memory"] = "file"
    heldout_every: int = 1
    checkpoint_every: int = 10
    checkpoints_kept: int = 2
    build_model: Annotated[ModelFn | None, tyro.conf.Suppress] = None
    scores: Annotated[Mapping[str, ScoreFn], tyro.conf.Suppress] = dataclasses.field(default_factory=dict)
    scores_read_aggregate: Annotated[bool, tyro.conf.Suppress] = False
    peer_score: Annotated[PeerScoreFn, tyro.conf.Suppress] = scoring.paper_peer_score


def to_json(config: Config) -> str:
    """A config as indented JSON; a function stands there as ``module:name``."""

    def plain(value: Any) -> Any:
        if callable(value) and not dataclasses.is_dataclass(value):
            return f"{value.__module__}:{value.__qualname__}"
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return json.dumps(plain(config), indent=2) + "\n"
