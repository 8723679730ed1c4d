import math

import jax.numpy as jnp
import pytest

from gauntlet_jax.scoring import Rating, gated_peer_score, loss_rating, paper_peer_score, with_standing
from gauntlet_jax.types import PeerHistory

GOOD = PeerHistory(rating_mu=31.0, rating_sigma=2.0, proof=0.4, evaluations=50)
GATED = gated_peer_score(threshold=0.5)


def test_the_papers_product():
    assert paper_peer_score({}, GOOD) == pytest.approx(0.4 * 25.0)
    rating = loss_rating(Rating(jnp.array([31.0]), jnp.array([2.0])))
    assert paper_peer_score({}, GOOD._replace(proof=1.0)) == float(rating[0])


def test_the_gate_saturates():
    corrected = 0.4 / (1 - 0.95**50)
    assert GATED({}, GOOD) == pytest.approx(corrected / 0.5 * 25.0)
    assert GATED({}, GOOD._replace(proof=0.6)) == GATED({}, GOOD._replace(proof=0.9)) == 25.0
    # after three good signs the average stands at 0.14, and the corrected one at 1
    assert GATED({}, GOOD._replace(proof=1 - 0.95**3, evaluations=3)) == 25.0


@pytest.mark.parametrize("score", [paper_peer_score, GATED])
@pytest.mark.parametrize(
    "history",
    [
        PeerHistory(),
        GOOD._replace(proof=-0.1),
        GOOD._replace(proof=0.0),
        GOOD._replace(rating_mu=5.0),
        GOOD._replace(proof=-0.1, rating_mu=-5.0),  # two negatives are no merit
        GOOD._replace(proof=math.nan),
        GOOD._replace(rating_mu=math.nan),
        GOOD._replace(rating_sigma=math.nan),
        GOOD._replace(rating_mu=math.inf),
    ],
)
def test_nothing_for_nothing(score, history):
    assert score({}, history) == 0.0


def test_standing_lowers_what_counts():
    assert with_standing(8.0, GOOD._replace(standing=0.75)) == 6.0
    assert with_standing(math.nan, GOOD) == 0.0
    assert with_standing(-1.0, GOOD) == 0.0


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.5, math.nan])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        gated_peer_score(threshold=threshold)
