"""The folder of a run that is followed from outside: the same files as a simulation's, from what is public.

What an onlooker cannot know stands there as ``null``: a peer's behavior is "unknown", a loss before the first round nobody
published.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gauntlet_jax.config import Config
from gauntlet_jax.config_check import check_name
from gauntlet_jax.nodes.record import RoundRecord
from gauntlet_jax.nodes.summary import peer_summary, validator_summary
from gauntlet_jax.planning.needs import needs_of
from gauntlet_jax.rewards.ledger import Posting
from gauntlet_jax.terms import config_of


def config_for_onlookers(terms: Mapping[str, Any]) -> Config:
    """The config behind a ledger's terms; of a model that is made by code, the built-in one stands in its place.

    Raises:
      ValueError: the terms are none of this version.
    """
    shared = terms.get("config")
    if isinstance(shared, Mapping) and isinstance(shared.get("functions"), Mapping):
        functions = {**shared["functions"], "build_model": None}
        terms = {**terms, "config": {**shared, "functions": functions}}
    config = config_of(terms)
    check_name(config.name)
    return config


def config_text(terms: Mapping[str, Any], config: Config) -> str:
    """What ``config.json`` holds: the terms, and nothing of one node's own."""
    shared = terms["config"]
    whole = {
        "name": config.name,
        "seed": config.seed,
        "rounds": config.rounds,
        "peers": [{"name": peer.name} for peer in config.peers],
        "validators": terms["validators"],
        "beacon": config.beacon,
        # Drawn by the ledger of this one run: another run of the same config has another.
        "beacon_anchor": terms.get("anchor"),
    }
    return json.dumps(whole | {name: shared[name] for name in shared if name not in whole}, indent=2) + "\n"


def is_made_by_code(terms: Mapping[str, Any]) -> bool:
    """Whether a run's model is a function of its config file, which an onlooker need not have."""
    return terms["config"]["functions"]["build_model"] is not None


def summary(
    terms: Mapping[str, Any],
    config: Config,
    records: Sequence[RoundRecord],
    *,
    first: Posting,
    last: Posting,
) -> dict[str, Any]:
    """The content of ``summary.json``, schema 1, as far as the public knows it.

    Args:
      terms: of the run.
      config: ``config_for_onlookers(terms)``.
      records: of all rounds, at least one.
      first: the final posting of the first of them.
      last: of the last.
    """
    needs = None if is_made_by_code(terms) else needs_of(config)
    stored = [peer.bytes for record in records for peer in record.peers if peer.bytes is not None]
    size = round(sum(stored) / len(stored)) if stored else None
    ratios = (None, None) if needs is None or not size else (8 * size / needs.values, needs.params / size)
    heldout = [record.heldout_loss for record in records if record.heldout_loss is not None]
    names = dict.fromkeys(peer.name for record in records for peer in record.peers)
    return {
        "schema": 1,
        "config": config.name,
        "seed": config.seed,
        "rounds": len(records),
        "parameters": None if needs is None else needs.parameters,
        "params_digest": records[-1].params_digest,
        "wall_seconds": None if last.final_at is None else last.final_at - first.start,
        "seconds": {},
        "loss": {"initial": None, "final": heldout[-1] if heldout else None},
        "baseline": None,
        "bytes": {
            "per_peer_round": size,
            "bits_per_value": ratios[0],
            "compression": ratios[1],
        },
        "payout_total": sum(peer.payout for record in records for peer in record.peers),
        "reserve": sum(record.reserve for record in records),
        "remainder": sum(record.remainder for record in records),
        "validators": [validator_summary(one.name, records) for one in records[-1].validators],
        "peers": [peer_summary(name, records) for name in names],
    }
