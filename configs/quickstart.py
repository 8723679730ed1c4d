"""Twelve peers, half of them cheats, train a small Llama on the text of the Python standard library.

    gauntlet simulate configs/quickstart.py

Takes under two minutes on two CPU cores. Expected: the six honest peers share the payouts, the one with twice the data gets
most, the six cheats together get less than 3 %, and the held-out loss ends at or below that of AdamW on the same data.
"""

from gauntlet_jax import scoring
from gauntlet_jax.config import CompressionConfig, Config, DataConfig, PeerConfig, ScheduleConfig
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.rewards.rules import RewardRules
from gauntlet_jax.training.model import DecoderConfig


def get_config() -> Config:
    """The demo's config."""
    return Config(
        name="quickstart",
        peers=(
            PeerConfig("ada", "honest"),
            PeerConfig("ben", "honest"),
            PeerConfig("cleo", "honest"),
            PeerConfig("dov", "honest"),
            PeerConfig("eva", "honest"),
            PeerConfig("fay", "double_data"),
            PeerConfig("gus", "copycat"),
            PeerConfig("hal", "lazy"),
            PeerConfig("ivy", "noise"),
            PeerConfig("jon", "sign_flip"),
            PeerConfig("kim", "stale"),
            PeerConfig("lea", "late"),
        ),
        rounds=60,
        baseline="adamw",
        baseline_learning_rate=1e-2,
        model=DecoderConfig(vocabulary=256, width=64, layers=2, heads=2, kv_heads=1, intermediate=192),
        data=DataConfig(length=64, batch=32, capacity=2, heldout=256),
        compression=CompressionConfig(beta=0.9, k=64, bits=8),
        learning_rate=ScheduleConfig(peak=8e-3, warmup_rounds=5, schedule_rounds=60),
        validator=ValidatorRules(
            top_g=6,
            max_sync_score=1.5,  # the paper's 3 lets a peer five rounds behind through; honest peers read 0
        ),
        rewards=RewardRules(payable_after=15, payable_proof=0.5),
        heldout_every=2,
        peer_score=scoring.gated_peer_score(threshold=0.5),
    )
