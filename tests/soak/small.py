"""A shared run as small as one can be: four peers, two of them cheats, and two validators."""

from gauntlet_jax.config import (
    CompressionConfig,
    Config,
    DataConfig,
    FinalityConfig,
    PeerConfig,
    ScheduleConfig,
    ValidatorConfig,
)
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.training.model import DecoderConfig


def get_config() -> Config:
    """Four rounds of fourteen seconds."""
    return Config(
        name="small",
        peers=(
            PeerConfig("P1"),
            PeerConfig("P2", "double_data"),
            PeerConfig("P3", "lazy"),
            PeerConfig("P4", "sign_flip"),
        ),
        rounds=4,
        slots=5,
        model=DecoderConfig(width=16, layers=1, heads=2, kv_heads=1, intermediate=32),
        data=DataConfig(max_bytes=400_000, length=16, batch=8, capacity=2, heldout=64),
        compression=CompressionConfig(beta=0.9, k=8),
        learning_rate=ScheduleConfig(peak=4e-3, warmup_rounds=2, schedule_rounds=20),
        validator=ValidatorRules(top_g=3, max_sync_score=1.5),
        validators=(ValidatorConfig("V1", stake=2.0), ValidatorConfig("V2", stake=1.0)),
        commit_reveal=True,
        times=RoundTimes(seconds=14, commit_closes=3, opens=4, closes=7),
        finality=FinalityConfig(weights_seconds=3, succession_seconds=2, veto_seconds=2),
        checkpoint_every=2,
    )
