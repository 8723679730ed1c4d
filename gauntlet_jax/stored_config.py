"""A config from the ``config.json`` of a run folder: no code is run for it, so one that holds code of its own is refused."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gauntlet_jax import scoring
from gauntlet_jax.config import Config, MeshConfig, PeerConfig, ValidatorConfig
from gauntlet_jax.config_check import check
from gauntlet_jax.terms import SECTIONS, config_of
from gauntlet_jax.types import PeerScoreFn

_SCALARS: Mapping[str, Any] = {
    "name": str,
    "seed": int,
    "rounds": int,
    "baseline": Literal["none", "adamw"],
    "baseline_learning_rate": float,
    "slots": int | None,
    "commit_reveal": bool,
    "beacon": Literal["seeded", "ledger"],
    "artifacts_kept": int,
    "store": Literal["file", "memory"],
    "heldout_every": int,
    "checkpoint_every": int,
    "checkpoints_kept": int,
}
_PAPER = "gauntlet_jax.scoring.peer_score:paper_peer_score"
_GATED = "gauntlet_jax.scoring.peer_score:_gated"


def from_json(text: str) -> Config:
    """The config of a run, but for how its nodes behave: that decides nothing for who looks at it from outside.

    Raises:
      ValueError: it is no config of this version, or a part of it is code that only its file has.
    """
    try:
        raw = json.loads(text)
        kinds: dict[str, Any] = {**SECTIONS, "mesh": MeshConfig, **_SCALARS}
        fields = {name: msgspec.convert(raw[name], kind, strict=True) for name, kind in kinds.items()}
        config = Config(
            peers=tuple(PeerConfig(msgspec.convert(peer["name"], str)) for peer in raw["peers"]),
            validators=tuple(
                ValidatorConfig(
                    msgspec.convert(one["name"], str),
                    msgspec.convert(one["stake"], float),
                    msgspec.convert(one["key"], str | None),
                )
                for one in raw["validators"]
            ),
            peer_score=_peer_score(raw["peer_score"]),
            **fields,
        )
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise ValueError(f"it is no config of this version: {error}") from error
    if raw["build_model"] is not None or raw["scores"] != {}:
        raise ValueError(_needs_file(raw["build_model"] or raw["scores"]))
    check(config)
    return config


def from_terms(terms: Mapping[str, Any]) -> Config:
    """The config of a shared run's terms, with the PeerScore that they name.

    Raises:
      ValueError: they are no terms of this version, or name code that only the run's config file has.
    """
    config = config_of(terms)
    functions = terms["config"]["functions"]
    if functions["scores"]:
        raise ValueError(_needs_file(", ".join(functions["scores"])))
    try:
        return dataclasses.replace(config, peer_score=_peer_score(functions["peer_score"]))
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise ValueError(f"its PeerScore is none of this version: {error}") from error


def _peer_score(spec: Any) -> PeerScoreFn:
    if spec == _PAPER:
        return scoring.paper_peer_score
    if isinstance(spec, dict) and spec.get("function") == _GATED and spec.get("arguments") == []:
        threshold, gamma = (msgspec.convert(spec["keywords"][name], float) for name in ("threshold", "gamma"))
        return scoring.gated_peer_score(threshold=threshold, gamma=gamma)
    raise ValueError(_needs_file(spec.get("function") if isinstance(spec, dict) else spec))


def _needs_file(function: Any) -> str:
    return f"it uses {function}, which is code of its own: give the config file that has it"
