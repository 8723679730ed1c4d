"""A run's public terms: what its ledger tells everybody, so that a stranger needs nothing else to take part.

Terms are plain JSON. What only concerns one node (its devices, where its text lies) is not among them, and code never is:
a run whose model is a function of its config file can be joined by those who have that file.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from gauntlet_jax.config import (
    CompressionConfig,
    Config,
    DataConfig,
    FinalityConfig,
    PeerConfig,
    ScheduleConfig,
    ValidatorConfig,
    to_json,
)
from gauntlet_jax.config_check import check, slots_of
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.rewards.rules import RegistrationRules, RewardRules
from gauntlet_jax.storage.artifact import PROTOCOL
from gauntlet_jax.training.model import DecoderConfig

SECTIONS: Mapping[str, type] = {
    "model": DecoderConfig,
    "data": DataConfig,
    "compression": CompressionConfig,
    "learning_rate": ScheduleConfig,
    "validator": ValidatorRules,
    "rewards": RewardRules,
    "times": RoundTimes,
    "finality": FinalityConfig,
    "registration": RegistrationRules,
}
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
_SCALARS: Mapping[str, Any] = {
    "seed": int,
    "rounds": _Count,
    "slots": _Count,
    "commit_reveal": bool,
    "checkpoint_every": _Count,
    "heldout_every": _Count,
    "artifacts_kept": _Count,
}
_VALIDATOR = ("name", "stake", "key")  # how it behaves is a matter of simulations
_LOCAL = ("path",)  # of "data": where a node keeps the text


class _Validator(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    stake: float
    key: str | None


def terms_of(config: Config) -> dict[str, Any]:
    """The terms that a run's founder gives to its ledger.

    Raises:
      ValueError: a setting is wrong; one line says which.
    """
    check(config)
    left = config.times.seconds - config.times.closes
    needed = config.finality.weights_seconds + config.finality.veto_seconds
    if needed > left:
        raise ValueError(
            f"finality: weights_seconds + veto_seconds, {needed}, is more than a round has left after its put window, {left}:"
            " no round could become final before the next one should begin"
        )
    if config.registration.immunity_rounds <= config.rewards.payable_after:
        raise ValueError(
            f"registration.immunity_rounds: {config.registration.immunity_rounds} must be more than rewards.payable_after,"
            f" {config.rewards.payable_after}: else peers lose their slots before anybody can have earned anything"
        )
    whole = json.loads(to_json(config))
    shared = {name: whole[name] for name in (*SECTIONS, *_SCALARS)}
    shared["slots"] = slots_of(config)
    shared["data"] = {key: value for key, value in shared["data"].items() if key not in _LOCAL}
    shared["functions"] = {name: whole[name] for name in ("build_model", "scores", "peer_score")}
    return {
        "run": config.name,
        "protocol": PROTOCOL,
        "rounds": config.rounds,
        "slots": slots_of(config),
        "peers": [peer.name for peer in config.peers],
        "validators": [{key: entry[key] for key in _VALIDATOR} for entry in whole["validators"]],
        "registration": whole["registration"],
        "emission": config.rewards.emission,
        "times": whole["times"],
        "finality": whole["finality"],
        "beacon": config.beacon,
        "seed": config.seed,
        "config": shared,
    }


def config_of(terms: Mapping[str, Any]) -> Config:
    """A config that follows a ledger's terms, for a node that has no config file.

    Raises:
      ValueError: the terms are none of this version, or the run's model is made by code.
    """
    if terms.get("protocol") != PROTOCOL:
        raise ValueError(
            f"the run follows version {terms.get('protocol')!r} of the protocol, and this package {PROTOCOL}:"
            " use a package of the run's version"
        )
    try:
        shared = terms["config"]
        if shared["functions"]["build_model"] is not None:
            raise ValueError(
                f"the run's model is made by {shared['functions']['build_model']}: give the config file that has it"
            )
        sections = {name: msgspec.convert(shared[name], kind, strict=True) for name, kind in SECTIONS.items()}
        scalars = {name: msgspec.convert(shared[name], kind, strict=True) for name, kind in _SCALARS.items()}
        config = Config(
            name=msgspec.convert(terms["run"], str),
            peers=tuple(PeerConfig(name) for name in msgspec.convert(terms["peers"], list[str])),
            validators=tuple(
                ValidatorConfig(entry.name, entry.stake, entry.key)
                for entry in msgspec.convert(terms["validators"], tuple[_Validator, ...], strict=True)
            ),
            beacon=msgspec.convert(terms["beacon"], Literal["seeded", "ledger"]),
            **sections,
            **scalars,
        )
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise ValueError(f"the ledger's terms are not those of a run: {error}") from error
    check(config)
    return config


def check_terms(config: Config, terms: Mapping[str, Any]) -> None:
    """Compares a node's own config with the ledger's terms.

    Raises:
      ValueError: a setting differs; the line names the first.
    """
    own = terms_of(config)
    for name in own:
        here, there = own[name], terms.get(name)
        if name == "config" and isinstance(there, dict):
            for key in here:
                if here[key] != there.get(key):
                    raise ValueError(_differs(f"config.{key}", here[key], there.get(key)))
        elif here != there:
            raise ValueError(_differs(name, here, there))


def _differs(name: str, here: Any, there: Any) -> str:
    if isinstance(here, dict) and isinstance(there, dict):
        for key in here:
            if here[key] != there.get(key):
                return _differs(f"{name}.{key}", here[key], there.get(key))
    return f"{name} is {here!r} here and {there!r} in the run's terms on the ledger: use the run's config"
