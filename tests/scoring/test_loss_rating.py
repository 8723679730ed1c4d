"""LossRating: pinned numbers, the openskill package (strict ranks), and a transcription in numpy (ties)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openskill.models import PlackettLuce

from gauntlet_jax.scoring import Rating, initial_rating, loss_rating, ranks_from_scores, rate

MATCH = jax.jit(rate)
RANK = jax.jit(ranks_from_scores)
N = 20


def everyone(n):
    return jnp.ones(n, bool)


def transcription(mu, sigma, ranks, *, beta=7.0, tau=0.1, kappa=1e-4):
    """The equations word for word, in float64, with loops."""
    n = len(mu)
    variance = [s**2 + tau**2 for s in sigma]
    c = math.sqrt(sum(v + beta**2 for v in variance))
    total = [sum(math.exp(mu[s] / c) for s in range(n) if ranks[s] >= ranks[q]) for q in range(n)]
    tied = [sum(ranks[s] == ranks[q] for s in range(n)) for q in range(n)]
    new_mu, new_sigma = [], []
    for i in range(n):
        omega = delta = 0.0
        for q in range(n):
            if ranks[q] > ranks[i]:
                continue
            p = math.exp(mu[i] / c) / total[q]
            omega += ((1 - p) if ranks[q] == ranks[i] else -p) / tied[q]
            delta += p * (1 - p) / tied[q]
        shrink = math.sqrt(max(1 - delta * (variance[i] / c**2) * (math.sqrt(variance[i]) / c), kappa))
        new_mu.append(mu[i] + omega * variance[i] / c)
        new_sigma.append(math.sqrt(variance[i]) * shrink)
    return new_mu, new_sigma


def test_golden_numbers():
    scores = jnp.array([0.9, -0.2, 0.5, 0.1])
    ranks = ranks_from_scores(scores, everyone(4), jnp.zeros(4, jnp.uint32))
    assert ranks.tolist() == [0, 3, 1, 2]
    mu, sigma = MATCH(initial_rating(4), ranks, everyone(4))
    np.testing.assert_allclose(mu, [27.393071, 21.543341, 26.329484, 24.734103], atol=5e-6)
    np.testing.assert_allclose(sigma, [8.289969, 8.178196, 8.237559, 8.178196], atol=5e-6)


def test_two_tied_winners_of_four_by_hand():
    # Fresh: c^2 = 4 (70 - 5/9 + 0.01 + 49), Q = 4e, 4e, 2e, 1e and A = 2, 2, 1, 1 for ranks 0, 0, 2, 3.
    # omega of a winner = 2 * (1 - 1/4) / 2 = 3/4: as much as the sole winner of four gets.
    variance = (25 / 3) ** 2 + 0.01
    c = math.sqrt(4 * (variance + 49))
    mu, _ = MATCH(initial_rating(4), jnp.array([0, 0, 2, 3]), everyone(4))
    np.testing.assert_allclose(mu[:2], 25 + 0.75 * variance / c, atol=5e-6)
    np.testing.assert_allclose(mu[:2], 27.393071, atol=5e-6)
    # third: 2 * (-1/4) / 2 + (1 - 1/2) = 1/4; last: -1/4 - 1/2 + 0 = -3/4
    np.testing.assert_allclose(mu[2:], 25 + np.array([0.25, -0.75]) * variance / c, atol=5e-6)


def test_openskill_agrees_over_many_rounds_of_varying_subsets():
    random = np.random.default_rng(0)
    model = PlackettLuce(beta=7.0, tau=0.1, kappa=1e-4)
    theirs = [model.rating() for _ in range(N)]
    ours = initial_rating(N)
    skill = random.normal(size=N)
    for round in range(40):
        size = 2 + round % (N - 1)  # 2..20 players
        players = random.permutation(N)[:size]
        places = np.argsort(np.argsort(-(skill[players] + random.normal(size=size))))
        ranks, played = np.full(N, -7), np.zeros(N, bool)
        ranks[players], played[players] = places, True
        ours = MATCH(ours, jnp.asarray(ranks), jnp.asarray(played))
        rated = model.rate([[theirs[p]] for p in players], ranks=[float(place) for place in places])
        for player, (rating,) in zip(players, rated, strict=True):
            theirs[player] = rating
    np.testing.assert_allclose(ours.mu, [rating.mu for rating in theirs], atol=2e-4)
    np.testing.assert_allclose(ours.sigma, [rating.sigma for rating in theirs], atol=2e-4)
    np.testing.assert_allclose(loss_rating(ours), [rating.ordinal() for rating in theirs], atol=8e-4)
    assert np.ptp(np.asarray(ours.mu)) > 5  # the comparison is of something


def test_ties_follow_the_equations():
    random = np.random.default_rng(1)
    for _ in range(10):
        mu, sigma = random.normal(25, 8, N), random.uniform(0.5, 9, N)
        ranks = random.integers(0, 6, N)
        ours = MATCH(
            Rating(jnp.asarray(mu, jnp.float32), jnp.asarray(sigma, jnp.float32)),
            jnp.asarray(ranks),
            everyone(N),
        )
        expected_mu, expected_sigma = transcription(mu, sigma, ranks)
        np.testing.assert_allclose(ours.mu, expected_mu, atol=5e-5)
        np.testing.assert_allclose(ours.sigma, expected_sigma, atol=5e-5)


def test_strengths_far_apart_do_not_overflow():
    rating = Rating(jnp.array([4000.0, 0.0, -4000.0, 0.0]), jnp.ones(4))
    mu, sigma = MATCH(rating, jnp.array([3, 1, 0, 2]), everyone(4))
    assert np.isfinite(mu).all() and np.isfinite(sigma).all()
    assert mu[2] > -4000.0 and mu[0] < 4000.0


def test_eager_jit_vmap_agree():
    rating = Rating(jnp.linspace(10.0, 40.0, 6).reshape(2, 3), jnp.linspace(1.0, 8.0, 6).reshape(2, 3))
    ranks = jnp.array([[0, 1, 2], [2, 0, 0]])
    played = jnp.array([[True, True, True], [True, False, True]])
    eager = [rate(Rating(*(x[i] for x in rating)), ranks[i], played[i]) for i in range(2)]
    batched = jax.jit(jax.vmap(rate))(rating, ranks, played)
    for i, one in enumerate(eager):
        np.testing.assert_allclose(batched.mu[i], one.mu, rtol=1e-5)
        np.testing.assert_allclose(batched.sigma[i], one.sigma, rtol=1e-5)


def test_a_match_needs_two():
    for players in (0, 1):
        mu, sigma = MATCH(initial_rating(4), jnp.arange(4), jnp.arange(4) < players)
        assert mu.tolist() == initial_rating(4).mu.tolist()
        assert sigma.tolist() == initial_rating(4).sigma.tolist()


matches = st.lists(
    st.tuples(st.floats(-50, 100), st.floats(0.01, 20), st.integers(0, 6), st.booleans()),
    min_size=6,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(matches, st.permutations(range(6)))
def test_any_match(match, order):
    mu, sigma, ranks, played = (np.array(column) for column in zip(*match, strict=True))
    before = Rating(jnp.asarray(mu, jnp.float32), jnp.asarray(sigma, jnp.float32))
    after = MATCH(before, jnp.asarray(ranks), jnp.asarray(played))
    assert (
        np.isfinite(after.mu).all() and np.isfinite(after.sigma).all() and (np.asarray(after.sigma) > 0).all()
    )
    assert np.array_equal(np.asarray(after.mu)[~played], np.asarray(before.mu)[~played])
    assert np.array_equal(np.asarray(after.sigma)[~played], np.asarray(before.sigma)[~played])
    order = np.array(order)
    permuted = MATCH(
        Rating(before.mu[order], before.sigma[order]), jnp.asarray(ranks[order]), jnp.asarray(played[order])
    )
    np.testing.assert_allclose(permuted.mu, after.mu[order], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(permuted.sigma, after.sigma[order], rtol=1e-4, atol=1e-4)
    # the ranks of those who did not play say nothing
    shuffled = np.where(played, ranks, 6 - ranks)
    again = MATCH(before, jnp.asarray(shuffled), jnp.asarray(played))
    assert np.array_equal(again.mu, after.mu) and np.array_equal(again.sigma, after.sigma)


@pytest.mark.parametrize(
    ("scores", "played", "tiebreak", "expected"),
    [
        ([0.1, 0.3, 0.2], [1, 1, 1], [0, 0, 0], [2, 0, 1]),
        ([0.1, 0.1, 0.2], [1, 1, 1], [9, 4, 5], [2, 1, 0]),
        ([0.0, -0.0, 0.0], [1, 1, 1], [3, 1, 2], [2, 0, 1]),
        ([0.1, 0.1, 0.1], [1, 1, 1], [4, 4, 4], [0, 1, 2]),
        ([np.nan, -np.inf, -1.0], [1, 1, 1], [0, 1, 2], [2, 1, 0]),
        ([-np.nan, 5.0, np.nan], [1, 1, 1], [7, 0, 6], [2, 0, 1]),
        ([9.0, np.nan, 0.2], [0, 1, 1], [0, 0, 0], [2, 1, 0]),
        ([0.1, 0.1, 0.2], [1, 1, 1], [2**32 - 1, 2**31, 0], [2, 1, 0]),
    ],
)
def test_ranks(scores, played, tiebreak, expected):
    ranks = RANK(jnp.array(scores, jnp.float32), jnp.array(played, bool), jnp.array(tiebreak, jnp.uint32))
    assert ranks.tolist() == expected


def test_a_new_peer_has_a_loss_rating_of_zero():
    np.testing.assert_allclose(loss_rating(initial_rating(3)), 0.0, atol=1e-5)
    assert loss_rating(initial_rating(1, mu=30.0, sigma=2.0), z=2.0).tolist() == [26.0]
