"""Small runs of the real system: what most studies measure, and what they keep of one."""

import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from gauntlet_jax import scoring
from gauntlet_jax.build import build_simulation
from gauntlet_jax.config import CompressionConfig, Config, DataConfig, PeerConfig, ScheduleConfig
from gauntlet_jax.lab import recorded
from gauntlet_jax.nodes.peer import Behavior
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.rewards.rules import RewardRules
from gauntlet_jax.training.model import DecoderConfig

PROOF_GATE = 0.5
_WIDTH = 32


def small_config(
    name: str, peers: Mapping[str, str | Behavior], *, seed: int, rounds: int, capacity: int = 2
) -> Config:
    """The quickstart made small: 12,000 parameters, without a baseline, artifacts in memory, everybody evaluated and aggregated.

    Args:
      name: of the run.
      peers: behaviors by name.
      seed: of everything random in it.
      rounds: of the run; a quarter of them is not paid.
      capacity: batches that one peer may declare.
    """
    return Config(
        name=name,
        seed=seed,
        peers=tuple(PeerConfig(peer, behavior) for peer, behavior in peers.items()),
        rounds=rounds,
        model=DecoderConfig(
            vocabulary=256, width=_WIDTH, layers=1, heads=2, kv_heads=1, intermediate=3 * _WIDTH
        ),
        data=DataConfig(length=32, batch=16, capacity=capacity, heldout=64, max_bytes=4_000_000),
        compression=CompressionConfig(beta=0.9, k=64, bits=8),
        learning_rate=ScheduleConfig(
            peak=8e-3, warmup_rounds=min(5, rounds - 1), schedule_rounds=max(2, rounds)
        ),
        validator=ValidatorRules(top_g=len(peers), max_sync_score=1.5),
        rewards=RewardRules(payable_after=rounds // 4, payable_proof=PROOF_GATE),
        store="memory",
        heldout_every=rounds,
        peer_score=scoring.gated_peer_score(threshold=PROOF_GATE),
    )


def seconds_of(rounds: int) -> float:
    """About how long a small run takes on a laptop's core."""
    return 3.0 + 0.1 * rounds


def measured(config: Config, *, own: int = 1) -> dict[str, Any]:
    """Runs a config from its first round to its last, and keeps the columns of its records for JSON.

    Args:
      config: of the run.
      own: see ``recorded.Recorded``.
    """
    with (
        tempfile.TemporaryDirectory(prefix="gauntlet-lab-") as folder,
        closing(build_simulation(config, Path(folder))) as simulation,
    ):
        simulation.compile()
        records = [simulation.run_round() for _ in range(config.rounds)]
    return recorded.to_document(recorded.from_records(records, own=own))
