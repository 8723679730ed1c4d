import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gauntlet_jax.scoring import index_overlap, later_of_pairs, overlapping_pairs

CHUNK = 32
OVERLAP = jax.jit(functools.partial(index_overlap, chunk_size=CHUNK))


def draw(peers, chunks, k, seed=0):
    random = np.random.default_rng(seed)
    return np.argsort(random.random((peers, chunks, CHUNK)), axis=-1)[..., :k]


def by_sets(indices):
    peers, chunks, k = indices.shape
    return np.array(
        [
            [
                np.mean([len(set(indices[p, c]) & set(indices[q, c])) / k for c in range(chunks)])
                for q in range(peers)
            ]
            for p in range(peers)
        ]
    )


@pytest.mark.parametrize("chunks", [1, 19])  # not a multiple of the chunks a step takes
def test_sets_agree(chunks):
    indices = draw(4, chunks, 4)
    indices[3] = indices[1][:, ::-1]  # the same coefficients in another order
    overlap = OVERLAP(jnp.asarray(indices, jnp.uint16), jnp.ones(4, bool))
    np.testing.assert_allclose(overlap, by_sets(indices), atol=1e-6)
    assert overlap[1, 3] == 1.0 and overlap[0, 1] < 0.5


def test_permuting_peers_permutes_and_eager_agrees():
    indices, order = jnp.asarray(draw(4, 19, 4)), np.array([2, 0, 3, 1])
    overlap = OVERLAP(indices, jnp.ones(4, bool))
    eager = index_overlap(indices[order], jnp.ones(4, bool), chunk_size=CHUNK)
    np.testing.assert_array_equal(eager, overlap[order][:, order])


def test_invalid_peers_and_positions_out_of_range_count_nothing():
    indices = draw(4, 19, 4)
    indices[2], indices[3] = -1, CHUNK
    overlap = np.asarray(OVERLAP(jnp.asarray(indices), jnp.array([True, False, True, True])))
    np.testing.assert_array_equal(overlap, np.diag([1.0, 0.0, 1.0, 1.0]))


def test_no_chunks_no_overlap():
    overlap = index_overlap(jnp.zeros((2, 0, 4), jnp.int32), jnp.ones(2, bool), chunk_size=CHUNK)
    np.testing.assert_array_equal(overlap, np.eye(2))


def symmetric(peers, pairs, rest):
    matrix = np.full((peers, peers), rest)
    for (p, q), share in pairs.items():
        matrix[p, q] = matrix[q, p] = share
    np.fill_diagonal(matrix, 1.0)
    return matrix


def pairs_of(matrix):
    return [(int(p), int(q)) for p, q in np.argwhere(np.triu(matrix))]


ALL = np.ones(4, bool)


def test_a_pair_that_stands_out_is_found():
    # off-diagonal: .95, .55, .5, .5, .5, .45: median .5, MAD .025: above .65
    shares = symmetric(4, {(0, 3): 0.95, (0, 1): 0.55, (1, 2): 0.45}, 0.5)
    suspicious = overlapping_pairs(shares, ALL)
    assert pairs_of(suspicious) == [(0, 3)]
    assert np.array_equal(suspicious, suspicious.T) and not suspicious.diagonal().any()
    assert pairs_of(overlapping_pairs(shares, ALL, mads=1.0)) == [(0, 1), (0, 3)]
    assert pairs_of(overlapping_pairs(jnp.asarray(shares), jnp.asarray(ALL))) == [(0, 3)]


def test_below_the_floor_nothing_is_suspicious():
    shares = symmetric(4, {(0, 3): 0.39}, 0.01)
    assert pairs_of(overlapping_pairs(shares, ALL)) == []
    assert pairs_of(overlapping_pairs(shares, ALL, floor=0.39)) == [(0, 3)]


def test_honest_peers_that_all_overlap_are_not_slashed():
    assert not overlapping_pairs(symmetric(4, {}, 0.78), ALL).any()
    assert not overlapping_pairs(symmetric(2, {}, 0.78), ALL[:2]).any()  # one pair cannot stand out of itself
    assert not overlapping_pairs(symmetric(4, {}, 0.78), ~ALL).any()


def test_invalid_peers_do_not_shift_the_median():
    shares = symmetric(5, {(0, 1): 0.6, (0, 2): 0.62, (1, 2): 0.61}, 0.0)
    assert overlapping_pairs(
        shares, np.ones(5, bool)
    ).any()  # two that send noise make honest pairs stand out ...
    assert not overlapping_pairs(shares, np.array([1, 1, 1, 0, 0], bool)).any()  # ... where they are counted


def test_the_later_uploader_of_a_pair_is_slashed_the_second_time():
    now = symmetric(4, {(0, 1): True, (2, 3): True}, False)
    before = symmetric(4, {(0, 1): True, (1, 2): True}, False)
    times = np.array([5.0, 4.0, 1.0, 2.0])
    assert later_of_pairs(now, before, times).tolist() == [True, False, False, False]
    assert later_of_pairs(now, now, times).tolist() == [True, False, False, True]
    assert not later_of_pairs(now, np.zeros_like(now), times).any()


def test_at_equal_times_the_larger_index_is_later():
    trio = symmetric(3, {}, True)
    assert later_of_pairs(trio, trio, np.array([3.0, 3.0, 3.0])).tolist() == [False, True, True]
    # float64: a second apart after a year is not a tie
    assert later_of_pairs(trio, trio, np.array([3e7 + 1, 3e7, 3e7 + 2])).tolist() == [True, False, True]
