"""A shared run whose nodes have eight devices each, and whose artifacts are dealt out into four parts."""

import dataclasses

from small import get_config as small

from gauntlet_jax.config import CompressionConfig, Config, MeshConfig, PeerConfig, ValidatorConfig
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.training.model import DecoderConfig


def get_config() -> Config:
    """Two rounds of fourteen seconds."""
    return dataclasses.replace(
        small(),
        name="sharded",
        peers=(PeerConfig("P1"), PeerConfig("P2")),
        rounds=2,
        slots=2,
        # Attention's two by two blocks of 64 stay whole; all other matrices are dealt out.
        model=DecoderConfig(width=128, layers=2, heads=2, kv_heads=2, intermediate=256, scan=True),
        compression=CompressionConfig(beta=0.9, k=8, parts=4),
        validator=ValidatorRules(top_g=2, max_sync_score=1.5),
        validators=(ValidatorConfig("V1"),),
        mesh=MeshConfig(fsdp=4, tensor=2),
    )
