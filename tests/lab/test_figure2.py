"""Figure 2: when one rating stays above another, and what is said of it."""

import dataclasses

import numpy as np
import pytest
from small_runs import recorded

from gauntlet_jax.config_check import check
from gauntlet_jax.lab import figure2
from gauntlet_jax.lab.recorded import to_document


@pytest.mark.parametrize(
    ("better", "worse", "round"),
    [
        ([1, 1, 1], [0, 0, 0], 0),
        ([1, 0, 1], [0, 0, 0], 2),
        ([1, 1, 0], [0, 0, 0], None),
        ([0, 2, 2], [1, 1, 1], 1),
    ],
)
def test_separated_for_good(better, worse, round):
    assert figure2.separated_from(np.array(better), np.array(worse)) == round


def test_a_rating_that_never_separates_is_said_not_to():
    rounds = 4
    mu = np.array([[30.0, 25.0, 20.0]] * rounds)
    apart = recorded(mu, rating_mu=mu, rating_sigma=np.ones(mu.shape), random_score=mu / 100)
    swapped = dataclasses.replace(apart, rating_mu=mu[:, [1, 0, 2]])
    results = {"three-peers": [to_document(apart), to_document(swapped)]}
    found = figure2.conclude("quick", results.__getitem__)
    assert [claim.holds for claim in found.claims] == [False, True]
    assert "in 1 of 2 seeds" in found.claims[0].text
    assert found.tables[0].rows[0] == ("more data above normal", 1, "never")
    assert found.tables[1].rows[0][1:] == (0.0, 0.0)
    assert list(found.panels[1].series) == list(figure2.PEERS)


def test_its_run_can_be_had():
    for case in figure2.FIGURE2.cases("full").values():
        check(figure2.config_of(case, 0))
