"""A Llama of 8 billion parameters trained by SparseLoCo: 30 inner AdamW steps a round, 64 of 4096 values sent, 2 bits each.

    gauntlet peer configs/sparseloco_8b.py --ledger URL --name NAME --bucket URL --data-path data/fineweb-edu

On a slice of 32 v5p chips a node's round, compiled by the TPU's own compiler,

    gauntlet plan configs/sparseloco_8b.py --topology v5p:2x4x4

fits: 12.79 of 95.74 GiB a chip (the inner steps; between steps 3.74). A peer trains for about 120 s on 30 steps of 192 sequences of 2048
tokens, uploads 161 MB in 12 s at 110 Mbps and reads 15 such in 39 s at 500: a round takes 170 s, of which the chips compute 70 %.
A validator evaluates two peers, each on as many sequences as a peer trains on, in 99 s each: 275 s a round.

The inner rate, the batch and the times are ours; the rest is SparseLoCo's (H, beta, k, bits, alpha from 1.0 to 0.65).
"""

from gauntlet_jax.config import CompressionConfig, Config, DataConfig, MeshConfig, PeerConfig, ScheduleConfig
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.training.model import DecoderConfig


def get_config() -> Config:
    """The run."""
    return Config(
        name="sparseloco_8b",
        peers=tuple(PeerConfig(f"P{number}") for number in range(1, 16)),
        slots=16,
        rounds=10_000,
        model=DecoderConfig(
            vocabulary=128_256,
            width=4096,
            layers=32,
            heads=32,
            kv_heads=8,
            intermediate=14_336,
            rope_base=500_000.0,
            compute_dtype="bfloat16",
            remat=True,
            scan=True,
            microbatch=64,
        ),
        data=DataConfig(
            path="data/fineweb-edu",
            tokenizer="data/tokenizer.json",
            max_bytes=None,
            length=2048,
            batch=30 * 192,
            capacity=2,
            heldout=30 * 192,
        ),
        compression=CompressionConfig(
            method="sparseloco", beta=0.95, k=64, bits=2, inner_steps=30, inner_learning_rate=2e-4, parts=32
        ),
        learning_rate=ScheduleConfig(peak=1.0, warmup_rounds=0, schedule_rounds=10_000, final_fraction=0.65),
        validator=ValidatorRules(sample_size=2),
        times=RoundTimes(seconds=660, opens=180, closes=240),
        commit_reveal=True,
        beacon="ledger",
        heldout_every=10,
        mesh=MeshConfig(fsdp=32),
    )
