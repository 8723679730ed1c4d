import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauntlet_jax.scoring import draw_for_evaluation, top_g

RATINGS = np.array([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])  # in threes: {1, 2, 0} and {5, 4, 3}
ALL = np.ones(6, bool)
NEVER = np.zeros(6, np.int64)


def draw(key, *, ratings=RATINGS, since=NEVER, eligible=ALL, sample_size=3, bins=2):
    return draw_for_evaluation(ratings, since, eligible, sample_size=sample_size, key=key, bins=bins)


def members(mask):
    return tuple(np.flatnonzero(mask).tolist())


def test_a_sample_as_large_as_a_bin_is_one_bin():
    seen = [members(draw(key)) for key in range(200)]
    assert set(seen) == {(0, 1, 2), (3, 4, 5)}
    assert 70 < seen.count((0, 1, 2)) < 130


def test_a_bin_too_small_is_topped_up_from_its_neighbours():
    # bins of two by rating: {1, 2}, {0, 5}, {4, 3}
    seen = {members(draw(key, bins=3)) for key in range(200)}
    low = {(0, 1, 2), (1, 2, 5)}
    middle = {(0, 1, 5), (0, 2, 5), (0, 4, 5), (0, 3, 5)}
    high = {(0, 3, 4), (3, 4, 5)}
    assert seen == low | middle | high


def test_a_rating_that_is_not_a_number_counts_as_lowest():
    ratings = np.where(RATINGS == 6.0, np.nan, RATINGS)
    assert {members(draw(key, ratings=ratings)) for key in range(50)} == {(1, 2, 3), (0, 4, 5)}


def test_within_a_bin_the_long_unseen_come_first():
    since = np.array([0, 2, 0, 0, 0, 0])
    eligible = np.array([True, True, False, False, False, False])
    counts = sum(draw(key, since=since, eligible=eligible, sample_size=1, bins=1) for key in range(800))
    assert counts[1] / 800 == pytest.approx(3 / 4, abs=0.06)  # weights 1 and 3


def test_everyone_is_drawn_in_time():
    since = np.zeros(6, np.int64)
    longest = 0
    for round in range(120):
        drawn = draw(round, since=since, sample_size=2, bins=3)
        since = np.where(drawn, 0, since + 1)
        longest = max(longest, int(since.max()))
    assert longest < 40


def test_all_where_the_sample_covers_them():
    eligible = np.array([True, False, True, False, True, False])
    for sample_size in (None, 3, 100):
        drawn = draw(1, eligible=eligible, sample_size=sample_size)
        assert members(drawn) == (0, 2, 4)
        assert drawn is not eligible
    assert not draw(1, eligible=~ALL).any()


def test_the_same_key_draws_the_same_on_every_machine():
    since = np.array([0, 1, 2, 3, 4, 5])
    golden = [members(draw(key, since=since, sample_size=2)) for key in (0, 1, 2, 2**128 - 1)]
    assert golden == [(0, 1), (1, 2), (0, 2), (0, 2)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_size": 0}, "sample_size"),
        ({"bins": 0}, "bins"),
        ({"key": -1}, "key"),
        ({"key": 2**128}, "key"),
        ({"since": NEVER - 1}, "negative"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        draw(**{"key": 0, **changes})


peers = st.lists(
    st.tuples(st.floats(allow_nan=True), st.integers(0, 50), st.booleans()), min_size=1, max_size=12
)


@given(peers, st.integers(1, 14), st.integers(0, 2**128 - 1), st.integers(1, 7))
def test_any_draw_has_the_size_asked_for(columns, sample_size, key, bins):
    ratings, since, eligible = (np.array(column) for column in zip(*columns, strict=True))
    drawn = draw(key, ratings=ratings, since=since, eligible=eligible, sample_size=sample_size, bins=bins)
    assert drawn.sum() == min(sample_size, eligible.sum())
    assert not (drawn & ~eligible).any()


def test_top_g_by_hand():
    scores = np.array([1.0, 5.0, 5.0, np.nan, 0.0, 9.0])
    eligible = np.array([True, True, True, True, True, False])
    ties = np.array([0, 8, 2, 0, 0, 0], np.uint32)
    assert members(top_g(scores, eligible, g=1, tiebreak=ties)) == (2,)
    assert members(top_g(scores, eligible, g=2, tiebreak=ties)) == (1, 2)
    assert members(top_g(scores, eligible, g=6, tiebreak=ties)) == (0, 1, 2)
    with pytest.raises(ValueError, match="G is 0"):
        top_g(scores, eligible, g=0, tiebreak=ties)


@given(peers, st.integers(1, 14))
def test_any_top_g(columns, g):
    scores, ties, eligible = (np.array(column) for column in zip(*columns, strict=True))
    chosen = top_g(scores, eligible, g=g, tiebreak=ties)
    worthy = eligible & np.isfinite(scores) & (scores > 0)
    assert chosen.sum() == min(g, worthy.sum())
    assert not (chosen & ~worthy).any()
    if chosen.any() and (worthy & ~chosen).any():
        assert scores[chosen].min() >= scores[worthy & ~chosen].max()
