import subprocess
import sys
import time

import numpy as np
import pytest
from grain.experimental import index_shuffle
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gauntlet_jax.training.assignment import Assignment

SMALL = Assignment(pool=203, seed=7, peers=4, capacity=9)  # 5 rounds an epoch, 23 windows left over


def whole_round(assignment: Assignment, round: int) -> np.ndarray:
    streams = [assignment.assigned(round, peer, assignment.capacity) for peer in range(assignment.peers)]
    return np.concatenate(streams)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**80),
    round=st.integers(0, 10**12),
    key=st.integers(0, 2**256),
    peers=st.integers(1, 5),
    capacity=st.integers(1, 6),
    spare=st.integers(0, 50),
)
def test_a_round_is_disjoint_and_its_random_batch_is_nobodys(round, key, spare, **sizes):
    peers, capacity = sizes["peers"], sizes["capacity"]
    assignment = Assignment(pool=2 * peers * capacity + spare, **sizes)
    assigned = whole_round(assignment, round)
    rest = assignment.unassigned(round, key, assignment.pool - peers * capacity)
    assert assigned.dtype == rest.dtype == np.int64
    assert sorted([*assigned, *rest]) == list(range(assignment.pool))


def test_no_window_repeats_in_an_epoch_and_the_next_epoch_is_reshuffled():
    epochs = [np.concatenate([whole_round(SMALL, 5 * epoch + r) for r in range(5)]) for epoch in range(3)]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 180
    assert (epochs[0] != epochs[1]).mean() > 0.9
    assert set(epochs[0].tolist()) != set(epochs[1].tolist())  # the left-over windows change too


def test_the_formula_is_grains_permutation():
    for round in (0, 4, 5, 13):
        epoch, r = divmod(round, 5)
        seed = SMALL.epoch_seed(epoch)
        for peer in range(4):
            places = [r * 36 + peer * 9 + j for j in range(9)]
            expected = [index_shuffle(place, max_index=202, seed=seed, rounds=6) for place in places]
            assert SMALL.assigned(round, peer, 9).tolist() == expected


def test_any_prefix_of_a_stream_is_a_prefix():
    full, batch = SMALL.assigned(11, 2, 9), SMALL.unassigned(11, 5, 30)
    for count in range(10):
        assert SMALL.assigned(11, 2, count).tolist() == full[:count].tolist()
        assert SMALL.unassigned(11, 5, count).tolist() == batch[:count].tolist()


def test_seed_round_and_key_all_matter():
    other = Assignment(pool=203, seed=8, peers=4, capacity=9)
    assert SMALL.assigned(0, 0, 9).tolist() != other.assigned(0, 0, 9).tolist()
    # Epoch 1 of one seed is not epoch 0 of the next, as it would be with consecutive seeds.
    assert SMALL.assigned(5, 0, 9).tolist() != other.assigned(0, 0, 9).tolist()
    batches = {tuple(SMALL.unassigned(0, key, 9)) for key in (0, 1, 2**32, 2**64)}
    assert len(batches) == 4
    assert tuple(SMALL.unassigned(0, 1, 9)) == tuple(SMALL.unassigned(0, 1, 9))


def test_another_process_recomputes_the_same_bits():
    program = (
        "from gauntlet_jax.training.assignment import Assignment\n"
        "a = Assignment(pool=203, seed=7, peers=4, capacity=9)\n"
        "print(a.assigned(12, 3, 9).tolist(), a.unassigned(12, 99, 9).tolist())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (
        result.stdout.strip() == f"{SMALL.assigned(12, 3, 9).tolist()} {SMALL.unassigned(12, 99, 9).tolist()}"
    )


def test_pinned_values_so_that_an_old_run_can_be_audited():
    assert SMALL.epoch_seed(0) == 117915093
    assert SMALL.assigned(0, 0, 4).tolist() == [57, 68, 165, 74]
    assert SMALL.unassigned(0, 3, 4).tolist() == [23, 176, 155, 24]


def test_random_batches_have_the_distribution_of_assigned_ones():
    assignment = Assignment(pool=20_000, seed=3, peers=4, capacity=16)
    documents = 20  # contiguous stretches of the pool, as documents are
    origin = np.arange(20_000) * documents // 20_000
    assigned = np.concatenate([assignment.assigned(t, t % 4, 16) for t in range(200)])
    random = np.concatenate([assignment.unassigned(t, 17 * t + 1, 16) for t in range(200)])
    counts = [np.bincount(origin[windows], minlength=documents) for windows in (assigned, random)]
    for count in counts:
        assert stats.chisquare(count).pvalue > 1e-3
    assert stats.chi2_contingency(counts).pvalue > 1e-3


def test_neighbours_in_a_stream_are_independent():
    # grain's 4-round shuffle fails this at 1e-30: a batch must not be more varied than a random one.
    distances = []
    for seed in range(3000):
        first, second = Assignment(pool=31_000, seed=seed, peers=1, capacity=2).assigned(0, 0, 2)
        distances.append((second - first) % 31_000)
    assert stats.chisquare(np.bincount(np.array(distances) * 50 // 31_000, minlength=50)).pvalue > 1e-3


def test_a_round_of_twelve_peers_costs_milliseconds():
    assignment = Assignment(pool=60_000, seed=0, peers=12, capacity=64)
    seconds = []
    for round in range(5):
        start = time.perf_counter()
        whole_round(assignment, round)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05  # 4 ms on an idle core


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Assignment(pool=71, seed=0, peers=4, capacity=9), "at least 72 are needed"),
        (lambda: Assignment(pool=2**32 + 1, seed=0, peers=4, capacity=9), "at most 4294967296"),
        (lambda: Assignment(pool=100, seed=0, peers=0, capacity=9), "peers and capacity >= 1"),
        (lambda: SMALL.assigned(0, 0, 10), "0 to 9 windows a round, not 10"),
        (lambda: SMALL.assigned(0, 4, 1), "peer 4 has no stream"),
        (lambda: SMALL.assigned(0, -1, 1), "peer -1 has no stream"),
        (lambda: SMALL.assigned(-1, 0, 1), "rounds count from 0"),
        (lambda: SMALL.assigned(0, 0, -1), "not -1"),
        (lambda: SMALL.unassigned(0, 0, 168), "leaves 167 windows"),
    ],
)
def test_wrong_use_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
