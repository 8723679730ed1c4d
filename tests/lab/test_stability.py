"""Stability: its measures by hand, and what is said of a run that leaks, slows down or pays unequally."""

import numpy as np
import pytest
from small_runs import recorded

from gauntlet_jax.config_check import check
from gauntlet_jax.lab import stability
from gauntlet_jax.lab.recorded import to_document

ROUNDS = 40


@pytest.mark.parametrize(
    ("payouts", "expected"), [([1, 1, 1, 1], 0.0), ([0, 0, 0, 4], 0.75), ([1, 3], 0.25), ([0, 0], 0.0)]
)
def test_gini_by_hand(payouts, expected):
    assert stability.gini(np.array(payouts, float)) == pytest.approx(expected)


def test_growth_leaves_the_first_quarter_out():
    assert stability.growth(np.array([9.0] * 10 + [2.0] * 20 + [3.0] * 10)) == pytest.approx(1.5)


def result(*, payout=(5, 5), resident=1.0, seconds=1.0, score=0.1):
    shape = (ROUNDS, 2)
    run = recorded(
        np.ones(shape),
        payout=np.tile(payout, (ROUNDS, 1)),
        random_score=np.full(shape, score),
        heldout_loss=np.ones(ROUNDS),
    )
    at_end = np.arange(ROUNDS) >= 30
    return {
        "run": to_document(run),
        "seconds": np.where(at_end, seconds, 1.0).tolist(),
        "resident": np.where(at_end, resident, 1.0).tolist(),
    }


@pytest.mark.parametrize(
    ("changed", "fails"),
    [
        ({}, None),
        ({"payout": (9, 1)}, 0),
        ({"score": np.nan}, 1),
        ({"resident": 1.2}, 2),
        ({"seconds": 1.2}, 3),
    ],
)
def test_each_claim_fails_when_it_is_not_so(changed, fails):
    found = stability.conclude("quick", lambda case: [result(), result(**changed)])
    assert [claim.holds for claim in found.claims] == [number != fails for number in range(4)]
    assert len(found.panels) == 3


def test_its_run_can_be_had():
    for case in stability.STABILITY.cases("full").values():
        check(stability.config_of(case, 0))


def test_a_real_run_is_measured():
    found = stability.STABILITY.measure(stability.STABILITY.cases("quick")["equals"]._replace(rounds=8), 0)
    assert len(found["seconds"]) == len(found["resident"]) == len(found["run"]["heldout_loss"]) == 8
    assert min(found["resident"]) > 50
    assert min(found["seconds"]) > 0
