import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import recorded

from gauntlet_jax import scoring
from gauntlet_jax.lab.economics.replay import (
    PayRule,
    Settings,
    net_of_registration,
    rated_again,
    shares,
    struck_out,
)
from gauntlet_jax.lab.recorded import from_document, to_document

SETTINGS = Settings(payable_after=0, proof_gate=0.5)


def test_shares_by_hand():
    # Round 0: 9 and 1 of 10; round 1: 1 and 1 of 2, and the second peer is not payable. 0.9 + 0.5 against 0.1.
    run = recorded([[3.0, 1.0], [1.0, 1.0]], payable=[[True, True], [True, False]])
    assert shares(run, PayRule(power=2.0), SETTINGS) == pytest.approx([1.4 / 1.5, 0.1 / 1.5])
    # Power 1: 0.75 + 0.5 against 0.25.
    assert shares(run, PayRule(power=1.0), SETTINGS) == pytest.approx([1.25 / 1.5, 0.25 / 1.5])


def test_top_pays_the_best_alone():
    run = recorded([[3.0, 2.0, 1.0]])
    assert shares(run, PayRule(power=1.0, top=2), SETTINGS) == pytest.approx([0.6, 0.4, 0.0])


def test_more_declared_data_weighs_as_asked():
    run = recorded([[1.0, 1.0]], declared=[[48, 16]])
    assert shares(run, PayRule(power=1.0, data_power=1.0), SETTINGS) == pytest.approx([0.75, 0.25])
    assert shares(run, PayRule(power=2.0, data_power=1.0), SETTINGS) == pytest.approx([0.9, 0.1])
    assert shares(run, PayRule(power=2.0), SETTINGS) == pytest.approx([0.5, 0.5])


def test_nobody_payable_is_nobody_paid():
    run = recorded([[1.0, 1.0]], payable=[[False, False]])
    assert shares(run, PayRule(), SETTINGS).tolist() == [0.0, 0.0]


def test_a_lower_gate_lets_a_thin_proof_count():
    # Bias-corrected: 0.0125 / 0.05 = 0.25 and 0.05 / 0.05 = 1, after one evaluation; ratings of LossRating 1 each.
    run = recorded(
        [[0.5, 1.0]],
        proof_of_computation=[[0.0125, 0.05]],
        rating_mu=[[26.0, 26.0]],
        payable=[[False, True]],
    )
    assert shares(run, PayRule(), SETTINGS).tolist() == [0.0, 1.0]
    assert shares(run, PayRule(proof_gate=0.2), SETTINGS) == pytest.approx([0.5, 0.5])
    # Just the gate's own value again: half a score, and not payable.
    assert shares(run, PayRule(proof_gate=0.5), SETTINGS).tolist() == [0.0, 1.0]
    # Who was slashed, or had no artifact, is not payable under any gate.
    for wrong in ({"slashed": np.array([[True, False]])}, {"declared": np.array([[0, 1]])}):
        bad = dataclasses.replace(run, **wrong)
        assert shares(bad, PayRule(proof_gate=0.2), SETTINGS).tolist() == [0.0, 1.0]


def test_matches_are_rated_again_as_the_package_rates_them():
    run = recorded(np.zeros((1, 4)), rank=[[0, 3, 1, 2]])
    mu, sigma = rated_again(run, 7.0, 0.1)
    assert mu[0] == pytest.approx([27.393071, 21.543341, 26.329484, 24.734103], abs=1e-5)
    assert sigma[0] == pytest.approx([8.289969, 8.178196, 8.237559, 8.178196], abs=1e-5)
    assert np.ptp(rated_again(run, 20.0, 0.1)[0]) < np.ptp(mu)


def test_sybils_struck_out_leave_the_others_places_and_matches():
    # p0 is the main identity, p1 its sybil; in round 1 p3 did not play.
    run = recorded(np.zeros((2, 4)), own=2, rank=[[1, 3, 0, 2], [2, 1, 0, -1]])
    alone = struck_out(run, SETTINGS)
    assert (alone.own, alone.names) == (1, ("p0", "p2", "p3"))
    assert alone.rank.tolist() == [[1, 0, 2], [1, 0, -1]]
    rating = scoring.rate(scoring.initial_rating(3), jnp.array([1, 0, 2]), jnp.ones(3, bool))
    assert alone.rating_mu[0] == pytest.approx(np.asarray(rating.mu), abs=1e-5)
    assert alone.rating_mu[1, 2] == alone.rating_mu[0, 2]


def test_registration_is_taken_off():
    assert net_of_registration(50.0, 3, cost=0.5, one=10.0) == 35.0


def test_a_run_comes_back_from_its_document():
    run = recorded([[3.0, 1.0]], rank=[[-1, 0]], own=2)
    back = from_document(json.loads(json.dumps(to_document(run))))
    assert to_document(back) == to_document(run)
    assert back.payable.dtype == bool


@pytest.mark.parametrize(
    "wrong",
    [{"rank": [[0]]}, {"own": 0}, {"own": 3}, {"names": None}, {"standing": [["x", "y"]]}, {"payout": "1"}],
)
def test_a_document_that_is_no_run_is_refused(wrong):
    with pytest.raises(ValueError):
        from_document({**to_document(recorded([[3.0, 1.0]])), **wrong})
