"""A Llama of 72.7 billion parameters trained by SparseLoCo: 80 layers, 8192 wide, vocabulary 262,208, 30 inner AdamW steps a round.

    gauntlet peer configs/sparseloco_72b.py --ledger URL --name NAME --bucket URL --data-path data/fineweb-edu

On a slice of 512 v5p chips a node's round, compiled by the TPU's own compiler,

    gauntlet plan configs/sparseloco_72b.py --topology v5p:8x8x8

fits: 24.31 of 95.74 GiB a chip (the inner steps; between steps 2.51). A peer trains for about 6.1 min on 30 steps of 1024 sequences of 2048
tokens, uploads 1.46 GB in 106 s at 110 Mbps and reads 15 such in 5.8 min at 500: a round takes 13.7 min, of which the chips compute 44 %. A
validator evaluates one peer, on as many sequences as a peer trains on, in 4.9 min: 12.9 min a round. The mesh keeps tensor within a
host of four chips, and cuts all matrices into 512 pieces, the embedding into 128 (on fsdp 64 x tensor 8 the peak is 41.33 GiB).

The vocabulary is 64 x 4097, so a cut between blocks runs along the width alone. The inner rate, the batch and the times are ours;
the rest is SparseLoCo's (H, beta, k, bits, alpha from 1.0 to 0.65).
"""

import dataclasses

from sparseloco_8b import get_config as sparseloco_8b

from gauntlet_jax.config import Config, MeshConfig
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.rules import ValidatorRules


def get_config() -> Config:
    """The 8B run with a larger model and batch, on more chips."""
    base = sparseloco_8b()
    return dataclasses.replace(
        base,
        name="sparseloco_72b",
        model=dataclasses.replace(
            base.model,
            vocabulary=262_208,
            width=8192,
            layers=80,
            heads=64,
            intermediate=28_672,
            microbatch=512,
        ),
        data=dataclasses.replace(base.data, batch=30 * 1024, heldout=30 * 1024),
        compression=dataclasses.replace(base.compression, inner_learning_rate=1.2e-4, parts=128),
        validator=ValidatorRules(sample_size=1),
        times=RoundTimes(seconds=1560, opens=420, closes=600),
        mesh=MeshConfig(fsdp=128, tensor=4),
    )
