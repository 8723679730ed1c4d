"""Looks at a config before anything is loaded or written: what no run can have is refused with one line that names it."""

import dataclasses
import math
import re

from gauntlet_jax.config import Config
from gauntlet_jax.nodes.attacks import BEHAVIORS
from gauntlet_jax.nodes.peer import Behavior
from gauntlet_jax.nodes.validator_attacks import VALIDATOR_BEHAVIORS, ValidatorBehavior
from gauntlet_jax.rewards.ledger import REMAINDER, RESERVE
from gauntlet_jax.rewards.rules import RegistrationRules
from gauntlet_jax.types import PeerId


def check(config: Config) -> None:
    """Looks for settings that no run can have, before anything is loaded or written.

    Raises:
      ValueError: one is out of its range; the line names it.
    """
    data, rewards = config.data, config.rewards
    _check_ranges(config)
    _check_registration(config.registration)
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
    settings = config.compression
    if settings.method == "sparseloco" and data.batch % settings.inner_steps:
        raise ValueError(
            f"compression.inner_steps: H = {settings.inner_steps} must divide data.batch, {data.batch}"
        )
    if settings.method == "sparseloco" and data.batch // settings.inner_steps % (
        config.mesh.data * config.mesh.fsdp
    ):
        raise ValueError(
            f"data.batch: {data.batch} sequences make {settings.inner_steps} inner steps of"
            f" {data.batch // settings.inner_steps}, which cannot be split over mesh.data x mesh.fsdp,"
            f" {config.mesh.data} x {config.mesh.fsdp}"
        )


def slots_of(config: Config) -> int:
    """Places for peers in the assignment of data."""
    return len(config.peers) if config.slots is None else config.slots


def check_name(name: str) -> None:
    """Raises ValueError if a node cannot be called so: its name is one of a folder too."""
    if name in (RESERVE, REMAINDER) or re.fullmatch(r"\w[\w.-]{0,63}", name, re.ASCII) is None:
        raise ValueError(
            f"the name {name[:80]!r} must be 1 to 64 letters, digits, _ . or -, and not {RESERVE!r}"
            f" or {REMAINDER!r}"
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


def validator_behaviors_of(config: Config) -> list[ValidatorBehavior]:
    """The validators' behaviors in a simulation, in the config's order.

    Raises:
      ValueError: a behavior or a friend is not possible; the line names the validator.
    """
    found = []
    for validator in config.validators:
        behavior = validator.behavior
        acts = VALIDATOR_BEHAVIORS.get(behavior) if isinstance(behavior, str) else behavior
        if acts is None:
            raise ValueError(
                f"validators: {validator.name} has the unknown behavior {behavior!r};"
                f" known are {', '.join(VALIDATOR_BEHAVIORS)}"
            )
        names = [peer.name for peer in config.peers]
        if validator.friend is None and behavior in ("liar", "lying_lead"):
            raise ValueError(
                f"validators: {validator.name} is a {behavior} and needs a friend, one of {names}"
            )
        if validator.friend is not None and validator.friend not in names:
            raise ValueError(f"validators: {validator.name}'s friend {validator.friend!r} is none of {names}")
        found.append(acts)
    return found


def _check_ranges(config: Config) -> None:
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
        "compression.parts": config.compression.parts,
        "compression.inner_steps": config.compression.inner_steps,
        "learning_rate.schedule_rounds": config.learning_rate.schedule_rounds,
        "validator.sample_size": 1 if rules.sample_size is None else rules.sample_size,
        "validator.sample_batches": rules.sample_batches,
        "validator.forgiven_after": rules.forgiven_after,
        "validator.negative_scores_exclude": rules.negative_scores_exclude,
        "rewards.top": 1 if rewards.top is None else rewards.top,
        **{
            f"model.{name}": value
            for name, value in dataclasses.asdict(config.model).items()
            if type(value) is int
        },
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
        "finality.weights_seconds": (config.finality.weights_seconds, math.inf),
        "finality.succession_seconds": (config.finality.succession_seconds, math.inf),
        "finality.veto_seconds": (config.finality.veto_seconds, math.inf),
        **{f"validators: {v.name}'s stake": (v.stake, math.inf) for v in config.validators},
    }
    for name, (value, below) in above.items():
        if not 0 < value < below:
            raise ValueError(f"{name}: {value} must be above 0 and below {below}")
    fractions = {"validator.proof_decay": rules.proof_decay, "compression.beta": config.compression.beta}
    for name, value in fractions.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}: {value} must be at least 0 and below 1")


def _check_registration(registration: RegistrationRules) -> None:
    for name, units in {"cost": registration.cost, **registration.grants}.items():
        if not 0 <= units < 2**63:
            raise ValueError(f"registration: {name} of {units} units must be at least 0 and below 2**63")
    if registration.immunity_rounds < 1:
        raise ValueError(
            f"registration.immunity_rounds: {registration.immunity_rounds}, at least 1 is needed"
        )
