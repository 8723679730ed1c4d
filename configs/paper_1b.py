"""The Gauntlet paper's run: a Llama of 1.2 billion parameters, DeMo, 250 places for peers, 20,000 rounds.

A peer or validator needs FineWeb-Edu as ArrayRecord, .parquet or text files, and the tokenizer's JSON with 32,000 tokens:

    gauntlet peer configs/paper_1b.py --ledger URL --name NAME --bucket URL --data-path data/fineweb-edu

On a slice of 16 v5e chips a node's round, compiled by the TPU's own compiler,

    gauntlet plan configs/paper_1b.py --topology v5e:4x4

fits: 4.33 of 15.75 GiB a chip (the gradient; between steps 0.56). A peer uploads 20.6 MB in 1.5 s at 110 Mbps and reads 15 such in
5.0 s at 500; training takes about 3.0 s, a round 9.5. A validator reads 250 artifacts in 83 s and computes for 16.

On one card of 80 GB the same config is laid out on one device, and takes fewer sequences at a time:

    gauntlet plan configs/paper_1b.py --topology h100:1 --mesh.fsdp 1 --model.microbatch 24

fits: 45.96 of 72.00 GiB, an estimate (CPUs compile in its place); training takes about 14 s, a peer's round 20.

An artifact is dealt out into 16 parts, one for each chip along fsdp, so that each host of a slice writes its own.

What is the paper's: model, beta, k, bits, norm, rates, G, S_t, c, phi, gamma, the power of incentives, context, tokens a round
(192 x 2048 = 393,216, "about 400K"). What is not known of it, and ours: the length of a round and its put window, how much
held-out text is measured, that peers commit to artifacts before they show them, that the ledger gives the randomness; microbatch
and mesh change no result but rounding.
"""

import dataclasses

from gauntlet_jax.config import CompressionConfig, Config, DataConfig, MeshConfig, PeerConfig, ScheduleConfig
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.rewards.rules import RewardRules
from gauntlet_jax.training.model import PAPER_1B


def get_config() -> Config:
    """The paper's run."""
    return Config(
        name="paper_1b",
        # The first 15 have a place; the others are for whoever comes.
        peers=tuple(PeerConfig(f"P{number}") for number in range(1, 16)),
        slots=250,
        rounds=20_000,
        model=dataclasses.replace(PAPER_1B, microbatch=64),
        data=DataConfig(
            path="data/fineweb-edu",
            tokenizer="data/tokenizer.json",
            max_bytes=None,
            length=2048,
            batch=192,
            capacity=2,
            heldout=384,
        ),
        compression=CompressionConfig(
            method="demo", beta=0.999, k=32, bits=8, norm="tensor", divisor="peers", parts=16
        ),
        learning_rate=ScheduleConfig(
            peak=4e-4, warmup_rounds=250, schedule_rounds=20_000, final_fraction=0.1
        ),
        validator=ValidatorRules(
            sample_size=5,
            top_g=15,
            step_fraction=0.2,
            max_sync_score=3.0,
            proof_decay=0.95,
            slash_factor=0.75,
        ),
        rewards=RewardRules(power=2.0),
        # A validator reads everybody's artifact after the put window: that takes most of the rest.
        times=RoundTimes(seconds=300, opens=60, closes=120),
        commit_reveal=True,
        beacon="ledger",
        mesh=MeshConfig(fsdp=16),
        heldout_every=10,
    )
