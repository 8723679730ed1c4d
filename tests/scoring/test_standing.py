import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauntlet_jax.scoring import update_standing
from gauntlet_jax.types import PeerHistory


def after(*failures, history=None, **options):
    history = PeerHistory() if history is None else history
    for failure in failures:
        history = update_standing(history, failure, **options)
    return history


def test_an_outage_counts_three_times_at_most():
    standings = [after(*["missing"] * rounds).standing for rounds in range(6)]
    assert standings == pytest.approx([1, 0.75, 0.75**2, 0.75**3, 0.75**3, 0.75**3])
    assert after(*["missing"] * 5).failed_in_a_row == 5


def test_another_reason_or_a_clean_round_begins_another_outage():
    assert after("late", "late", "late", "missing").standing == pytest.approx(0.75**4)
    assert after("late", "late", "late", None, "late").standing == pytest.approx(0.75**4)


def test_five_clean_rounds_undo_one_failure():
    failed = after("late", "late")
    assert after(*[None] * 4, history=failed).standing == pytest.approx(0.75**2)
    assert after(*[None] * 5, history=failed).standing == pytest.approx(0.75)
    assert after(*[None] * 9, history=failed).standing == pytest.approx(0.75)
    assert after(*[None] * 10, history=failed).standing == pytest.approx(1.0)
    assert after(*[None] * 40, history=failed).standing == 1.0
    assert after(*[None] * 4, "late", *[None] * 4, history=failed).standing == pytest.approx(0.75**3)


def test_the_counts():
    assert after("late", "late") == PeerHistory(standing=0.75**2, failed_in_a_row=2, last_failure="late")
    assert after("late", None, None) == PeerHistory(standing=0.75, clean_in_a_row=2)


def test_options():
    assert after("late", "late", phi=0.5, most_in_a_row=1).standing == 0.5
    assert after("late", None, None, phi=0.5, forgiven_after=2).standing == 1.0


def test_nothing_else_is_touched():
    history = PeerHistory(rating_mu=30.0, proof=0.4, evaluations=7, negative_in_a_row=2)
    for changed in (after("late", history=history), after(None, history=history)):
        assert changed[:4] == history[:4] and changed.negative_in_a_row == 2


def test_the_empty_reason_is_refused():
    with pytest.raises(ValueError, match="needs a reason"):
        after("")


@given(st.lists(st.sampled_from([None, "late", "missing"]), max_size=80))
def test_standing_is_never_above_one_nor_zero(failures):
    assert 0.0 < after(*failures).standing <= 1.0


@pytest.mark.parametrize("phi", [0.75, 0.25])
def test_no_run_of_failures_is_beyond_forgiveness(phi):
    history = after(*["late", "missing"] * 3000, phi=phi)
    assert history.standing > 0.0
    assert after(*[None] * 5, history=history, phi=phi).standing > history.standing
