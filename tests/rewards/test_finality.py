import hypothesis
import pytest
from hypothesis import strategies as st

from gauntlet_jax.rewards import finality

STAKES = {"A": 2.0, "B": 5.0, "C": 2.0, "D": 1.0}  # 10 in all; the order of turns is B, A, C, D


def test_the_largest_stake_leads_and_equal_ones_stay_in_order():
    assert finality.succession(STAKES) == ["B", "A", "C", "D"]
    assert finality.succession({"x": 1, "y": 1}) == ["x", "y"]


@pytest.mark.parametrize(
    ("validator", "now", "vetoed", "may"),
    [
        ("B", 99.999, (), False),
        ("B", 100.0, (), True),
        ("A", 104.999, (), False),
        ("A", 105.0, (), True),
        ("C", 109.999, (), False),
        ("C", 110.0, (), True),
        ("A", 100.0, ("B",), True),
        ("A", 99.0, ("B",), False),
        ("C", 100.0, ("B",), False),
        ("C", 100.0, ("A", "B"), True),
        ("D", 100.0, ("A", "B"), False),
        ("B", 1000.0, ("B",), False),
        ("X", 1000.0, (), False),
    ],
)
def test_turns(validator, now, vetoed, may):
    assert may is finality.may_post(
        validator, STAKES, vetoed, now=now, commits_close=100.0, succession_seconds=5.0
    )


@pytest.mark.parametrize(
    ("stakes", "against", "vetoed"),
    [
        (STAKES, ["B"], False),  # exactly half
        (STAKES, ["B", "D"], True),
        (STAKES, ["A", "C", "D"], False),
        (STAKES, [], False),
        ({"big": 2.0, "small": 1.0}, ["small"], False),
        ({"big": 2.0, "small": 1.0}, ["big"], True),
        # Exactly half, and more than that in floats: 0.8 > 0.7999999999999999.
        ({"a": 0.4, "b": 0.3, "c": 0.1}, ["a"], False),
        # Exactly half, and more than that in binary fractions.
        ({"a": 0.1, "b": 0.2, "c": 0.3}, ["a", "b"], False),
    ],
)
def test_more_than_half_of_the_stake_vetoes(stakes, against, vetoed):
    assert finality.is_vetoed(stakes, against) is vetoed


def test_commits_close_so_long_after_the_put_window_or_after_an_outage():
    assert finality.commits_close_at(100.0, 50.0, weights_seconds=3.0) == 103.0
    assert finality.commits_close_at(100.0, 180.0, weights_seconds=3.0) == 183.0


def test_a_posting_from_before_an_outage_can_be_vetoed_after_it():
    assert finality.final_at(100.0, 50.0, veto_seconds=3.0) == 103.0
    assert finality.final_at(100.0, 180.0, veto_seconds=3.0) == 183.0


@pytest.mark.parametrize(
    ("at", "tick"),
    [(10.0, 10.0), (10.001, 22.0), (21.9, 22.0), (22.0, 22.0), (22.001, 34.0), (1.0, 10.0)],
)
def test_a_round_begins_at_a_tick_not_before_finality(at, tick):
    assert finality.tick_from(at, genesis=10.0, seconds=12.0) == tick


@hypothesis.given(st.floats(1.6e9, 1.9e9), st.floats(0, 1e6), st.floats(0.1, 600.0, allow_subnormal=False))
def test_a_tick_is_never_before_and_less_than_a_round_after(genesis, later, seconds):
    at = genesis + later
    tick = finality.tick_from(at, genesis=genesis, seconds=seconds)
    assert at <= tick < at + seconds + 1e-6
    assert finality.tick_from(tick, genesis=genesis, seconds=seconds) - tick in (
        0.0,
        pytest.approx(seconds, abs=1e-5),
    )


@pytest.mark.parametrize(
    ("now", "begins"),
    [
        (99.9, None),
        (100.0, 100.0),
        (101.0, 100.0),
        (101.1, None),  # nobody heard of it: the ledger was away
        (111.9, None),
        (112.3, 112.0),
        (1006.0, None),
        (1000.4, 1000.0),  # 100 + 75 * 12
    ],
)
def test_a_round_begins_only_at_a_tick_that_the_ledger_has_seen(now, begins):
    assert finality.begins_at(100.0, now, seconds=12.0) == begins


def test_short_rounds_are_more_punctual():
    assert finality.begins_at(100.0, 100.2, seconds=2.0) == 100.0
    assert finality.begins_at(100.0, 100.3, seconds=2.0) is None
