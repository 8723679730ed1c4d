"""A Llama of 72.7 billion parameters trained by SparseLoCo: 80 layers, 8192 wide, vocabulary 262,208, 30 inner AdamW steps a round.

    gauntlet peer configs/sparseloco_72b.py --ledger URL --name NAME --bucket URL --data-path data/fineweb-edu

On a slice of 512 v5p chips a node's round, compiled by the TPU's own compiler,

    gauntlet plan configs/sparseloco_72b.py --topology v5p:8x8x8

is to say whether it fits. On a mesh of fsdp 64 x tensor 8 it did: 41.33 of 95.74 GiB a chip (the inner steps), training 6.1 min on 30
steps of 1024 sequences of 2048 tokens, an artifact of 1.46 GB, 106 s at 110 Mbps. The mesh below keeps tensor within a host of four chips
and cuts all matrices into 512 pieces, the embedding into 128; it has not been compiled yet.

The vocabulary is 64 x 4097, so a cut between blocks runs along the width alone. The inner rate, the batch and the times are ours;
the rest is SparseLoCo's (H, beta, k, bits, alpha from 1.0 to 0.65).
"""

from gauntlet_jax.config import CompressionConfig, Config, DataConfig, MeshConfig, PeerConfig, ScheduleConfig
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.training.model import DecoderConfig


def get_config() -> Config:
    """The run."""
    return Config(
        name="sparseloco_72b",
        peers=tuple(PeerConfig(f"P{number}") for number in range(1, 16)),
        slots=16,
        rounds=10_000,
        model=DecoderConfig(
            vocabulary=262_208,
            width=8192,
            layers=80,
            heads=64,
            kv_heads=8,
            intermediate=28_672,
            rope_base=500_000.0,
            compute_dtype="bfloat16",
            remat=True,
            scan=True,
            microbatch=512,
        ),
        data=DataConfig(
            path="data/fineweb-edu",
            tokenizer="data/tokenizer.json",
            max_bytes=None,
            length=2048,
            batch=30 * 1024,
            capacity=2,
            heldout=30 * 1024,
        ),
        compression=CompressionConfig(
            method="sparseloco",
            beta=0.95,
            k=64,
            bits=2,
            inner_steps=30,
            inner_learning_rate=1.2e-4,
            parts=128,
        ),
        learning_rate=ScheduleConfig(peak=1.0, warmup_rounds=0, schedule_rounds=10_000, final_fraction=0.65),
        validator=ValidatorRules(sample_size=1),
        times=RoundTimes(seconds=1560, opens=420, closes=600),
        commit_reveal=True,
        beacon="ledger",
        heldout_every=10,
        mesh=MeshConfig(fsdp=128, tensor=4),
    )
