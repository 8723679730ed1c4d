"""A model, scores and a PeerScore of one's own, the other compressor, and a mesh."""

import dataclasses
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gauntlet_jax.build import build_simulation
from gauntlet_jax.config import CompressionConfig, DataConfig, MeshConfig, ScheduleConfig
from gauntlet_jax.training.model import DecoderConfig
from gauntlet_jax.types import PeerHistory, ScoreInputs, Scores


def bigrams(key):
    """A table of next-byte logits and its loss."""
    params = {"table": 0.01 * jax.random.normal(key, (256, 256))}

    def loss_fn(params, tokens):
        tokens = jnp.asarray(tokens, jnp.int32)
        logits = params["table"][tokens[:, :-1]]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))

    return params, loss_fn


def agreement(inputs: ScoreInputs) -> jax.Array:
    """The share of signs that an update has in common with everybody's."""
    same = jax.tree.map(lambda one, all: jnp.mean(one == all), inputs.update, inputs.aggregate)
    return jnp.mean(jnp.stack(jax.tree.leaves(same)))


def by_agreement(scores: Scores, history: PeerHistory) -> float:
    return 10.0 * scores["agreement"] + history.evaluations


def test_a_model_scores_and_a_peer_score_of_ones_own(tiny, started):
    simulation = started(
        tiny(
            build_model=bigrams,
            learning_rate=ScheduleConfig(peak=0.1, warmup_rounds=1, schedule_rounds=20),
            scores={"agreement": agreement},
            scores_read_aggregate=True,
            peer_score=by_agreement,
        )
    )
    simulation.compile()
    records = [simulation.run_round() for _ in range(6)]
    losses = [record.heldout_loss for record in records]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(np.log(256), abs=0.2) and losses[-1] < losses[0] - 0.2
    for record in records:
        for peer in record.peers:
            assert set(peer.scores) == {"assigned", "random", "agreement"}
            assert 0 < peer.scores["agreement"] < 1
            own = by_agreement(peer.scores, PeerHistory(evaluations=record.round + 1))
            assert peer.peer_score == own * peer.standing
    assert simulation.summary(records, 1.0)["parameters"] == 256 * 256


def test_sparseloco_trains(tiny, started):
    simulation = started(
        tiny(
            compression=CompressionConfig(
                method="sparseloco", beta=0.95, k=32, bits=2, inner_steps=2, inner_learning_rate=1e-2
            ),
            learning_rate=ScheduleConfig(peak=1.0, warmup_rounds=1, schedule_rounds=100),
        )
    )
    simulation.compile()
    records = [simulation.run_round() for _ in range(8)]
    assert all(peer.refusal is None for record in records for peer in record.peers)
    initial = simulation.summary(records, 1.0)["loss"]["initial"]
    assert records[-1].heldout_loss < records[2].heldout_loss < initial
    simulation.save_checkpoint()


def test_four_devices_agree_with_one(tiny, tmp_path_factory):
    # Wide enough that both axes of the matrices are cut: a block is never split.
    config = tiny(
        model=DecoderConfig(width=128, layers=1, heads=2, kv_heads=2, intermediate=128),
        data=DataConfig(max_bytes=400_000, length=8, batch=8, heldout=64),
        baseline="adamw",
    )
    assert len(jax.devices()) >= 4
    results = []
    for mesh in (MeshConfig(), MeshConfig(fsdp=2, tensor=2)):
        folder = tmp_path_factory.mktemp("mesh")
        with closing(build_simulation(dataclasses.replace(config, mesh=mesh), folder)) as simulation:
            simulation.compile()
            if mesh.fsdp == 2:
                shards = {
                    leaf.addressable_shards[0].data.size / leaf.size
                    for leaf in jax.tree.leaves(simulation.params)
                }
                assert 0.25 in shards
            results.append([simulation.run_round() for _ in range(2)])
            simulation.save_checkpoint()
    for one, four in zip(*results, strict=True):
        assert four.heldout_loss == pytest.approx(one.heldout_loss, abs=1e-3)
        assert four.baseline_loss == pytest.approx(one.baseline_loss, abs=1e-4)
        assert [peer.refusal for peer in four.peers] == [None] * 4
        for ours, theirs in zip(one.peers, four.peers, strict=True):
            assert theirs.scores["random"] == pytest.approx(ours.scores["random"], abs=1e-4)
