import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauntlet_jax.scoring import bias_corrected, update_proof


def test_hand_numbers():
    proof = update_proof(0.0, 0.3, 0.1)
    assert proof == pytest.approx(0.05)
    proof = update_proof(proof, 0.1, 0.3)
    assert proof == pytest.approx(0.95 * 0.05 - 0.05)
    assert update_proof(0.4, 2.0, 1.0, gamma=0.5) == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("assigned", "random"),
    [
        (0.0, 0.0),
        (math.nan, 0.0),
        (0.0, math.nan),
        (math.nan, math.nan),
        (math.inf, math.inf),
        (-math.inf, 1.0),
    ],
)
def test_a_tie_and_nan_count_against_the_peer(assigned, random):
    assert update_proof(0.0, assigned, random) == pytest.approx(-0.05)


def test_bias_correction_gives_the_average_sign_of_a_steady_peer():
    proof = 0.0
    for evaluations in range(1, 30):
        proof = update_proof(proof, 1.0, 0.0)
        assert bias_corrected(proof, evaluations) == pytest.approx(1.0)
    assert bias_corrected(-0.05, 1) == pytest.approx(-1.0)
    assert bias_corrected(0.0, 0) == 0.0


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=40), st.floats(0.0, 0.99))
def test_it_stays_within_one(scores, gamma):
    proof = 0.0
    for evaluations, (assigned, random) in enumerate(scores, start=1):
        proof = update_proof(proof, assigned, random, gamma=gamma)
        assert -1.0 <= proof <= 1.0
        assert abs(bias_corrected(proof, evaluations, gamma=gamma)) <= 1.0 + 1e-9
