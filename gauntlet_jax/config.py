"""A run as one frozen object (layer 5: nothing below sees a config).

Objects of the library go in as they are (``DecoderConfig``, ``ValidatorRules``, score functions), so that a setting is
described once, where it is used.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import optax
import tyro
from jaxtyping import Array

from gauntlet_jax import scoring
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.peer import Behavior
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.nodes.validator_attacks import ValidatorBehavior
from gauntlet_jax.rewards.rules import RegistrationRules, RewardRules
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
class ValidatorConfig:
    """One validator of a run.

    Attributes:
      name: its public name.
      stake: its weight when records become final and when weights are merged; the largest leads.
      key: its public key (64 hexadecimal characters); None gives the name to the first key that registers it.
      behavior: in a simulation: "honest", "copier", "liar", "lying_lead" or "silent"; in a config file also a
        ``ValidatorBehavior`` of your own.
      friend: the peer that a "liar" or "lying_lead" favors.
    """

    name: str = "validator"
    stake: float = 1.0
    key: str | None = None
    behavior: Annotated[str | ValidatorBehavior, tyro.conf.arg(constructor=str)] = "honest"
    friend: str | None = None


@dataclasses.dataclass(frozen=True)
class FinalityConfig:
    """When a validator's record of a round becomes the final one, where validators are processes.

    Attributes:
      weights_seconds: W: validators may commit to their weights so long after the put window; records are posted after that.
      succession_seconds: T: the validator of the next lower stake may post so much later.
      veto_seconds: V: more than half the stake may reject a posted record within this time.
    """

    weights_seconds: float = 3.0
    succession_seconds: float = 5.0
    veto_seconds: float = 3.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    Attributes:
      path: folder of text, .jsonl, .parquet or ArrayRecord files, one such file, or a .npy or .bin file; None takes the text of the running Python's
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
      parts: what an artifact is cut into, each written and read by one host of a node: a multiple of the hosts of the largest node.
      inner_steps: SparseLoCo: H; divides data.batch.
      inner_learning_rate: SparseLoCo: the inner AdamW's.
    """

    method: Literal["demo", "sparseloco"] = "demo"
    beta: float = 0.999
    k: int = 32
    bits: Literal[2, 8, 32] = 8
    norm: Literal["tensor", "chunk"] = "tensor"
    divisor: Literal["peers", "senders"] = "peers"
    parts: int = 1
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
      registration: what it takes to become a peer of a shared run that does not name one.
      times: length of a round and its put window.
      mesh: devices.
      validators: who judges, by name and stake.
      slots: places for peers, taken or not; None has one for each of ``peers``. Strangers may join a shared run up to it.
      commit_reveal: peers commit to their artifacts before anyone may show one, so there is nothing to copy in time.
      beacon: "seeded" can be foretold by whoever knows the seed, as in a simulation; "ledger" by nobody (processes only).
      finality: when a record is final, where validators are processes.
      artifacts_kept: rounds that a peer's own process keeps its artifacts.
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
    registration: RegistrationRules = RegistrationRules()
    times: RoundTimes = RoundTimes()
    mesh: MeshConfig = MeshConfig()
    validators: tuple[ValidatorConfig, ...] = (ValidatorConfig(),)
    slots: int | None = None
    commit_reveal: bool = False
    beacon: Literal["seeded", "ledger"] = "seeded"
    finality: FinalityConfig = FinalityConfig()
    artifacts_kept: int = 100
    store: Literal["file", "memory"] = "file"
    heldout_every: int = 1
    checkpoint_every: int = 10
    checkpoints_kept: int = 2
    build_model: Annotated[ModelFn | None, tyro.conf.Suppress] = None
    scores: Annotated[Mapping[str, ScoreFn], tyro.conf.Suppress] = dataclasses.field(default_factory=dict)
    scores_read_aggregate: Annotated[bool, tyro.conf.Suppress] = False
    peer_score: Annotated[PeerScoreFn, tyro.conf.Suppress] = scoring.paper_peer_score


def config_digest(text: str) -> str:
    """sha256 (hex) of a config's JSON without the number of rounds, which a resumed run may change.

    Raises:
      ValueError: the text is no JSON object.
    """
    given = json.loads(text)
    if not isinstance(given, dict):
        raise ValueError("a config is a JSON object")
    whole = {name: value for name, value in given.items() if name != "rounds"}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(config: Config) -> str:
    """A config as indented JSON; a function stands there as ``module:name``."""

    def plain(value: Any) -> Any:
        if isinstance(value, functools.partial):
            return {
                "function": plain(value.func),
                "arguments": plain(value.args),
                "keywords": plain(value.keywords),
            }
        if callable(value) and not dataclasses.is_dataclass(value):
            named = value if hasattr(value, "__qualname__") else type(value)
            return f"{named.__module__}:{named.__qualname__}"
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return json.dumps(plain(config), indent=2) + "\n"
