"""Each attack of ``BEHAVIORS`` is met by what it should be met by."""

import jax
import numpy as np
import pytest

from gauntlet_jax.nodes.attacks import BEHAVIORS
from gauntlet_jax.nodes.beacon import SeededBeacon
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.peer import Opening, Turn
from gauntlet_jax.nodes.record import PeerRecord
from gauntlet_jax.storage.digest import params_digest
from gauntlet_jax.training.assignment import Assignment

HONEST = ("ada", "ben", "honest", "double_data")


def rows(finished, name: str) -> list[PeerRecord]:
    return [peer for record in finished.records for peer in record.peers if peer.name == name]


def test_the_honest_are_never_refused_or_slashed(finished):
    for name in HONEST:
        for row in rows(finished, name):
            assert (row.refusal, row.slashed, row.sync_score, row.standing) == (None, (), 0.0, 1.0)
            assert row.scores["random"] > 0
            assert row.behavior == (name if name in BEHAVIORS else "honest")


def test_the_loss_falls(finished):
    losses = [record.heldout_loss for record in finished.records if record.heldout_loss is not None]
    assert len(losses) == 6  # the first round, and after every second
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize(
    ("name", "refusal", "detail"),
    [
        ("late", "late", "uploaded 3.0 s after the window closed"),
        ("offline", "missing", "no artifact in its bucket"),
        ("copycat", "duplicate", "same payload as "),
    ],
)
def test_refused_in_every_round(finished, name: str, refusal: str, detail: str):
    for row in rows(finished, name):
        assert (row.refusal, row.slashed, row.scores, row.payout) == (refusal, (refusal,), {}, 0)
        assert row.detail.startswith(detail)


def test_one_outage_costs_at_most_three_slashes(finished):
    expected = [0.75, 0.75**2, *[0.75**3] * 8]
    for name in ("late", "offline", "copycat"):
        assert [row.standing for row in rows(finished, name)] == pytest.approx(expected, rel=1e-12)


def test_only_the_copy_of_a_pair_is_refused(finished):
    for record in finished.records:
        by_name = {peer.name: peer for peer in record.peers}
        victim = by_name[by_name["copycat"].detail.removeprefix("same payload as ")]
        assert victim.refusal is None
        assert victim.digest == by_name["copycat"].digest
        assert victim.rank is not None


def test_stale_is_refused_once_it_is_far_enough_behind(finished):
    stale = rows(finished, "stale")
    assert stale[0].sync_score == 0.0
    steps = [row.sync_score for row in stale]
    assert [row.refusal for row in stale] == ["out_of_sync" if score > 1.5 else None for score in steps]
    assert [row.refusal for row in stale[5:]] == ["out_of_sync"] * 5
    assert "allowed" in stale[-1].detail


def test_stale_holds_the_parameters_of_the_last_five_rounds(finished):
    for name in ("stale", "stale_with_fresh_probe"):
        peer = next(peer for peer in finished.simulation._peers if peer.name == name)
        held = [params_digest(params) for params in peer.state["memory"]]
        assert held == [record.params_digest for record in finished.records[4:9]]


def test_stale_with_a_fresh_probe_passes_but_trains_on_old_parameters(finished):
    fresh, stale = rows(finished, "stale_with_fresh_probe"), rows(finished, "stale")
    assert all((row.refusal, row.sync_score) == (None, 0.0) for row in fresh)
    assert fresh[-1].digest is not None and fresh[-1].digest != stale[-1].digest


def test_sign_flip_scores_below_zero(finished):
    flipped = rows(finished, "sign_flip")
    assert all(row.scores["random"] < 0 and row.scores["assigned"] < 0 for row in flipped)
    assert flipped[-1].proof_of_computation < 0
    assert not any(row.aggregated for row in flipped[1:])
    assert sum(row.payout for row in flipped) == 0


def test_noise_is_worth_less_than_any_honest_update(finished):
    for record in finished.records[1:]:
        by_name = {peer.name: peer for peer in record.peers}
        assert by_name["noise"].scores["random"] < min(by_name[name].scores["random"] for name in HONEST)
        assert by_name["noise"].rank > max(by_name[name].rank for name in HONEST)


def test_double_data_declares_two_batches_and_the_others_one(finished):
    assert {row.declared for row in rows(finished, "double_data")} == {16}
    assert {row.declared for name in ("ada", "lazy", "noise") for row in rows(finished, name)} == {8}


def _turn(slot: int, round: int) -> Turn:
    opening = Opening(
        "tiny", round, RoundTimes().window(60.0 * round), None, SeededBeacon(0).opening(round), 1e-3
    )
    assignment = Assignment(pool=1000, seed=0, peers=6, capacity=16)
    return Turn(opening, f"peer {slot}", slot, 8, assignment, jax.random.key(0), lambda ago: iter(()))


def test_lazy_trains_on_windows_that_nobody_was_assigned():
    for round in range(3):
        turn = _turn(2, round)
        own, assigned = BEHAVIORS["lazy"].data(turn, 8), BEHAVIORS["honest"].data(turn, 8)
        np.testing.assert_array_equal(assigned, turn.assignment.assigned(round, 2, 8))
        everyone = np.concatenate([turn.assignment.assigned(round, slot, 16) for slot in range(6)])
        assert len(set(own.tolist())) == 8
        assert not np.isin(own, everyone).any()
    assert set(BEHAVIORS["lazy"].data(_turn(2, 0), 8)) != set(BEHAVIORS["lazy"].data(_turn(3, 0), 8))


def test_noise_has_the_norm_of_the_gradient_and_flipping_turns_it():
    gradient = {"a": np.full((4, 4), 2.0, np.float32), "b": np.arange(3, dtype=np.float32)}
    noise = BEHAVIORS["noise"].gradient(_turn(0, 0), gradient)
    for name, leaf in gradient.items():
        assert np.linalg.norm(noise[name]) == pytest.approx(np.linalg.norm(leaf), rel=1e-5)
        assert abs(np.vdot(noise[name], leaf)) < 0.99 * np.vdot(leaf, leaf)
    jax.tree.map(
        np.testing.assert_array_equal,
        BEHAVIORS["sign_flip"].gradient(_turn(0, 0), gradient),
        jax.tree.map(np.negative, gradient),
    )


def test_stale_sees_the_parameters_of_five_rounds_ago():
    behavior = BEHAVIORS["stale"]
    memory = behavior.remember({"a": np.float32(0)})
    seen = []
    for round in range(8):
        view, memory = behavior.view(memory, {"a": np.float32(round)})
        seen.append(int(view["a"]))
    assert seen == [0, 0, 0, 0, 0, 0, 1, 2]


def test_a_copycat_without_a_victim_sends_its_own():
    own = {"codes": np.zeros(1, np.uint8)}
    assert BEHAVIORS["copycat"].artifact(_turn(0, 0), own) is own
