from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gauntlet_jax import compression
from gauntlet_jax.lab import strategists
from gauntlet_jax.nodes.peer import Opening, Turn
from gauntlet_jax.scoring import Window
from gauntlet_jax.training.assignment import Assignment

BATCH = 4
ASSIGNMENT = Assignment(pool=400, seed=3, peers=5, capacity=8 * BATCH)


def turn(slot=0, round=2):
    opening = Opening("run", round, Window(0.0, 1.0), None, b"beacon", 1e-3)
    return Turn(opening, f"own-{slot}", slot, BATCH, ASSIGNMENT, jax.random.key(slot), lambda ago: iter(()))


def assigned(slot, count):
    return ASSIGNMENT.assigned(2, slot, count).tolist()


@pytest.mark.parametrize(
    ("k", "parts"), [(1, [8]), (2, [4, 4]), (3, [3, 3, 2]), (5, [2, 2, 2, 1, 1]), (8, [1] * 8)]
)
def test_a_split_shares_the_batches_out_and_loses_none(k, parts):
    assert [behavior.batches for behavior in strategists.split(8, k)] == parts


@pytest.mark.parametrize("k", [0, 9])
def test_nobody_can_be_split_into_nothing(k):
    with pytest.raises(ValueError, match="cannot be split"):
        strategists.split(8, k)


def test_a_boaster_declares_eight_and_trains_on_one():
    boaster = strategists.boaster(8)
    assert boaster.batches == 8
    assert boaster.data(turn(1), 8 * BATCH).tolist() == assigned(1, BATCH)


def test_a_pair_trains_on_the_same_windows_of_both_at_the_compute_of_one_or_two():
    for whole, each in ((False, BATCH // 2), (True, BATCH)):
        first, second = strategists.pair((0, 1), whole=whole, deal=False)
        windows = first.data(turn(0), BATCH).tolist()
        assert windows == [*assigned(0, each), *assigned(1, each)]
        assert second.data(turn(1), BATCH).tolist() == windows
        assert (first.batches, second.batches) == (1, 1)
        assert first.uploads_at < second.uploads_at


def test_the_second_of_a_pair_is_no_duplicate_and_sends_the_same_coefficients():
    first, second = strategists.pair((0, 1), whole=True, deal=False)
    arrays = {"indices": np.arange(64), "codes": np.arange(64, dtype=np.uint8), "tables": np.ones((1, 2))}
    assert first.artifact(turn(0), arrays) is arrays
    sent = second.artifact(turn(1), arrays)
    difference = sent["codes"].astype(int) - arrays["codes"]
    assert sent["codes"].dtype == np.uint8
    assert set(difference.tolist()) == {-1, 0, 1}
    assert sent["indices"] is arrays["indices"]
    assert sent["tables"] is arrays["tables"]


def test_dealt_coefficients_add_up_to_the_gradient_and_are_sent_by_one_alone():
    gradient = {
        "layers": {"w": jax.random.normal(jax.random.key(0), (2, 32, 32))},
        "norm": jax.random.normal(jax.random.key(1), (16,)),
    }
    pair = strategists.pair((0, 1), whole=True, deal=True)
    parts = [behavior.gradient(turn(slot), gradient) for slot, behavior in enumerate(pair)]
    total = jax.tree.map(jnp.add, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), total, gradient)
    compressor = compression.demo(gradient, beta=0.9, k=64, stacked={"layers": {"w": 1}, "norm": 0})
    sent = [compressor.update(compressor.init(gradient), part)[0]["layers"]["w"].indices for part in parts]
    for one, other in zip(*(np.reshape(indices, (2, -1)) for indices in sent), strict=True):
        assert not set(one.tolist()) & set(other.tolist())
        assert set(one.tolist()) <= set(range(0, 1024, 2))


def test_losers_lose_each_in_its_way():
    gradient = {"w": jnp.arange(1.0, 7.0)}

    def sent(kind, round):
        return np.asarray(strategists.loser(kind, rounds=10).gradient(turn(round=round), gradient)["w"])

    assert (sent("sign_flip", 0) == -gradient["w"]).all()
    assert (sent("climb_then_lose", 4) == gradient["w"]).all()
    assert (sent("climb_then_lose", 5) == -gradient["w"]).all()
    noise = sent("noise", 0)
    assert abs(np.corrcoef(noise, gradient["w"])[0, 1]) < 0.95
    assert np.linalg.norm(noise) == pytest.approx(np.linalg.norm(gradient["w"]), rel=1e-5)
    weak = strategists.loser("one_sequence", rounds=10)
    assert weak.data(turn(2), BATCH).tolist() == list(chain(*[assigned(2, 1)] * BATCH))
    with pytest.raises(ValueError, match="no loser"):
        strategists.loser("brave", rounds=10)
