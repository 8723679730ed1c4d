"""A run as one frozen object (layer 5: nothing below sees a config).

Objects of the library go in as they are (``DecoderConfig``, ``ValidatorRules``, score functions), so that a setting is
described once, where it is used.
"""

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import optax
import tyro
from jaxtyping import Array

from gauntlet_jax import scoring
from gauntlet_jax.nodes.attacks import BEHAVIORS
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.peer import Behavior
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.rewards.ledger import RESERVE
from gauntlet_jax.rewards.rules import RewardRules
from gauntlet_jax.training.model import DecoderConfig
from gauntlet_jax.training.train_step import learning_rate
from gauntlet_jax.types import LossFn, Params, PeerId, PeerScoreFn, ScoreFn

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
      name: its public name; a single process judges as the first one.
      stake: its weight when records become final; the largest leads.
      key: its public key (64 hexadecimal characters); None gives the name to the first key that registers it.
    """

    name: str = "validator"
    stake: float = 1.0
    key: str | None = None


@dataclasses.dataclass(frozen=True)
class FinalityConfig:
    """When a validator's record of a round becomes the final one, where validators are processes.

    Attributes:
      succession_seconds: T: the validator of the next lower stake may post so much later.
      veto_seconds: V: more than half the stake may reject a posted record within this time.
    """

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


def check(config: Config) -> None:
    """Looks for settings that no run can have, before anything is loaded or written.

    Raises:
      ValueError: one is out of its range; the line names it.
    """
    rules, data, rewards = config.validator, config.data, config.rewards
    at_least_one = {
        "rounds": config.rounds,
        "heldout_every": config.heldout_every,
        "checkpoint_every": config.checkpoint_every,
        "checkpoints_kept": config.checkpoints_kept,
        "artifacts_kept": config.artifacts_kept,
        "data.length": data.length,
        "data.batch": data.batch,
        "data.capacity": data.capacity,
        "data.heldout": data.heldout,
        "data.max_bytes": 1 if data.max_bytes is None else data.max_bytes,
        "compression.k": config.compression.k,
        "compression.inner_steps": config.compression.inner_steps,
        "learning_rate.schedule_rounds": config.learning_rate.schedule_rounds,
        "validator.sample_size": 1 if rules.sample_size is None else rules.sample_size,
        "validator.forgiven_after": rules.forgiven_after,
        "validator.negative_scores_exclude": rules.negative_scores_exclude,
        "rewards.top": 1 if rewards.top is None else rewards.top,
        "mesh.data": config.mesh.data,
        "mesh.fsdp": config.mesh.fsdp,
        "mesh.tensor": config.mesh.tensor,
    }
    for name, value in at_least_one.items():
        if value < 1:
            raise ValueError(f"{name}: {value}, at least 1 is needed")
    above = {
        "learning_rate.peak": (config.learning_rate.peak, math.inf),
        "baseline_learning_rate": (config.baseline_learning_rate, math.inf),
        "validator.step_fraction": (rules.step_fraction, math.inf),
        "validator.max_sync_score": (rules.max_sync_score, math.inf),
        "validator.slash_factor": (rules.slash_factor, 1.0),
        "rewards.power": (rewards.power, math.inf),
        "finality.succession_seconds": (config.finality.succession_seconds, math.inf),
        "finality.veto_seconds": (config.finality.veto_seconds, math.inf),
        **{f"validators: {v.name}'s stake": (v.stake, math.inf) for v in config.validators},
    }
    for name, (value, below) in above.items():
        if not 0 < value < below:
            raise ValueError(f"{name}: {value} must be above 0 and below {below}")
    window = config.times.commit_window(0.0)
    if config.commit_reveal and not window.opens < window.closes:
        raise ValueError("times: with commit_reveal there must be time to commit before the put window opens")
    if slots_of(config) < len(config.peers):
        raise ValueError(f"slots: {config.slots} is less than the {len(config.peers)} peers that have one")
    if not config.validators:
        raise ValueError("validators: a run needs at least one")
    taken = {"assigned", "random"} & set(config.scores)
    if taken:
        raise ValueError(f"scores: {', '.join(sorted(taken))} is a name of the built-in scores, give another")
    fractions = {"validator.proof_decay": rules.proof_decay, "compression.beta": config.compression.beta}
    for name, value in fractions.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}: {value} must be at least 0 and below 1")
    if not 0 <= rewards.emission < 2**63:
        raise ValueError(f"rewards.emission: {rewards.emission} must be at least 0 and below 2**63")
    if not 0 <= config.learning_rate.warmup_rounds < config.learning_rate.schedule_rounds:
        raise ValueError(
            f"learning_rate.warmup_rounds: {config.learning_rate.warmup_rounds} must be at least 0 and below"
            f" schedule_rounds, {config.learning_rate.schedule_rounds}"
        )
    if data.heldout % data.batch:
        raise ValueError(
            f"data.heldout: {data.heldout} sequences are no multiple of data.batch, {data.batch}"
        )
    if data.batch % (config.mesh.data * config.mesh.fsdp):
        raise ValueError(
            f"data.batch: {data.batch} sequences cannot be split over mesh.data x mesh.fsdp,"
            f" {config.mesh.data} x {config.mesh.fsdp}"
        )


def slots_of(config: Config) -> int:
    """Places for peers in the assignment of data."""
    return len(config.peers) if config.slots is None else config.slots


def check_name(name: str) -> None:
    """Raises ValueError if a node cannot be called so: its name is one of a folder too."""
    if name == RESERVE or re.fullmatch(r"\w[\w.-]{0,63}", name, re.ASCII) is None:
        raise ValueError(
            f"the name {name[:80]!r} must be 1 to 64 letters, digits, _ . or -, and not {RESERVE!r}"
        )


def behaviors_of(config: Config) -> dict[PeerId, Behavior]:
    """The peers' behaviors by name.

    Raises:
      ValueError: a name, a behavior, its data or its time of upload is not possible; the line names the peer.
    """
    if not config.peers:
        raise ValueError("peers: a run needs at least one")
    names = [*(peer.name for peer in config.peers), *(validator.name for validator in config.validators)]
    if len(set(names)) < len(names):
        raise ValueError(f"peers, validators: names must differ, {names} do not")
    for name in names:
        try:
            check_name(name)
        except ValueError as error:
            raise ValueError(f"peers: {error}") from error
    found = {}
    for peer in config.peers:
        behavior = BEHAVIORS.get(peer.behavior) if isinstance(peer.behavior, str) else peer.behavior
        if behavior is None:
            raise ValueError(
                f"peers: {peer.name} has the unknown behavior {peer.behavior!r}; known are {', '.join(BEHAVIORS)}"
            )
        if behavior.batches > config.data.capacity:
            raise ValueError(
                f"data.capacity: {peer.name} trains on {behavior.batches} batches, {config.data.capacity} may be declared"
            )
        window, part = config.times.window(0), behavior.uploads_at
        if (
            part is not None
            and not 0 <= window.opens + part * (window.closes - window.opens) <= config.times.seconds
        ):
            raise ValueError(
                f"times: {peer.name} uploads at {part} of the put window, which is not within the round"
            )
        found[peer.name] = behavior
    return found


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
