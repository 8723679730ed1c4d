from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet_jax.rewards.incentive import incentives, weights_of

SCORES = st.lists(st.one_of(st.just(0.0), st.floats(0, 1e308), st.floats(0, 1)), min_size=1, max_size=9)


def test_hand_table():
    np.testing.assert_allclose(
        incentives(np.array([1.0, 2.0, 0.0, 3.0])), [1 / 14, 4 / 14, 0, 9 / 14], rtol=1e-15
    )
    np.testing.assert_allclose(incentives(np.array([1.0, 3.0]), power=1.0), [0.25, 0.75], rtol=1e-15)


def test_top_counts_only_the_best_and_of_equal_ones_the_first():
    scores = np.array([1.0, 2.0, 1.0, 4.0])
    np.testing.assert_allclose(incentives(scores, top=2), [0, 4 / 20, 0, 16 / 20], rtol=1e-15)
    np.testing.assert_allclose(incentives(scores, top=3), [1 / 21, 4 / 21, 0, 16 / 21], rtol=1e-15)
    np.testing.assert_array_equal(incentives(scores, top=9), incentives(scores))


def test_nobody_has_a_score():
    np.testing.assert_array_equal(incentives(np.zeros(3)), np.zeros(3))
    np.testing.assert_array_equal(incentives(np.zeros(0)), np.zeros(0))


def test_one_strong_identity_earns_more_than_its_parts():
    whole = incentives(np.array([4.0, 4.0]))[0]
    halves = incentives(np.array([2.0, 2.0, 4.0]))[:2].sum()
    assert whole > halves


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e-300])
def test_refuses_scores_that_are_none(bad):
    with pytest.raises(ValueError, match="peer scores must be finite"):
        incentives(np.array([1.0, bad]))


@pytest.mark.parametrize("options", [{"power": 0.0}, {"power": np.nan}, {"power": -1.0}, {"top": 0}])
def test_refuses_options_out_of_range(options):
    with pytest.raises(ValueError, match="must be"):
        incentives(np.ones(2), **options)


@given(SCORES, st.floats(0.1, 8), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_shares_sum_to_one_keep_the_order_and_follow_a_permutation(scores, power, random):
    values = np.array(scores)
    shares = incentives(values, power=power)
    assert (shares >= 0).all()
    assert shares.sum() == pytest.approx(1 if values.max() > 0 else 0, abs=1e-12)
    assert (np.diff(shares[np.argsort(values, kind="stable")]) >= 0).all()
    order = np.array(random.sample(range(len(scores)), len(scores)))
    np.testing.assert_allclose(incentives(values[order], power=power), shares[order], rtol=1e-12)


def test_weights_by_hand():
    weights, reserve = weights_of(np.array([0.5, 0.25, 0.25]), np.ones(3, bool))
    assert (weights.tolist(), reserve) == ([0.5, 0.25, 0.25], 0.0)
    # What the last would have had is nobody's.
    weights, reserve = weights_of(np.array([0.5, 0.25, 0.25]), np.array([True, True, False]))
    assert (weights.tolist(), reserve) == ([0.5, 0.25, 0.0], 0.25)
    assert weights.dtype == np.float64


def test_everything_is_for_the_reserve_where_nobody_may_be_paid():
    for shares, payable in (
        ([0.5, 0.5], [False, False]),
        ([0.0, 0.0], [True, True]),
        ([1.0, 0.0], [False, True]),
        ([], []),
    ):
        weights, reserve = weights_of(np.array(shares), np.array(payable, bool))
        assert (weights.tolist(), reserve) == ([0.0] * len(shares), 1.0)


@pytest.mark.parametrize(
    ("shares", "payable", "match"),
    [
        ([0.5, 0.4], [True, True], "sum to 1"),
        ([1.5, -0.5], [True, True], "at least 0"),
        ([np.nan, 1.0], [True, True], "at least 0"),
        ([1.0], [True, True], "one length"),
        ([[1.0]], [[True]], "one length"),
    ],
)
def test_weights_of_what_is_no_shares_are_refused(shares, payable, match):
    with pytest.raises(ValueError, match=match):
        weights_of(np.array(shares), np.array(payable))


@given(
    SCORES.flatmap(lambda s: st.tuples(st.just(s), st.lists(st.booleans(), min_size=len(s), max_size=len(s))))
)
@settings(max_examples=150, deadline=None)
def test_weights_are_the_payable_shares_and_the_reserve_has_the_rest(case):
    scores, may = case
    shares, payable = incentives(np.array(scores)), np.array(may)
    weights, reserve = weights_of(shares, payable)
    np.testing.assert_array_equal(weights[payable], shares[payable])
    assert not weights[~payable].any()
    assert reserve >= 0
    # The oracle: exact fractions.
    assert float(sum(map(Fraction, weights.tolist())) + Fraction(reserve)) == pytest.approx(1, abs=1e-12)
    if payable.all() and max(scores) > 0:
        assert reserve < 1e-12
