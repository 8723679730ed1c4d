import math

import pytest
import scipy.stats

from gauntlet_jax.lab.statistics import _T_95, Interval, paired_interval, t_interval, verdict


def test_an_interval_by_hand():
    # Mean 2, s = 1, n = 3: 4.303 / sqrt(3).
    mean, half = t_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / math.sqrt(3))


def test_the_table_is_students_t():
    assert len(_T_95) == 30
    for freedom, quantile in enumerate(_T_95, start=1):
        assert quantile == pytest.approx(scipy.stats.t.ppf(0.975, freedom), abs=5e-4)


def test_beyond_the_table_the_interval_is_rather_too_wide():
    values = [float(i % 2) for i in range(100)]
    exact = scipy.stats.t.ppf(0.975, 99) * scipy.stats.sem(values)
    assert exact < t_interval(values).half < 1.04 * exact


def test_what_a_seed_does_to_both_falls_out_of_a_pair():
    assert paired_interval([11.0, 21.0, 31.0], [10.0, 20.0, 30.0]) == (1.0, 0.0)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_too_few_or_no_numbers_are_refused(values):
    with pytest.raises(ValueError, match="at least two finite"):
        t_interval(values)


def test_pairs_need_a_partner():
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_interval([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("mean", "half", "said"), [(2.0, 1.0, "pays"), (-2.0, 1.0, "costs"), (0.5, 1.0, "undecided")]
)
def test_the_verdict_is_what_the_interval_allows(mean, half, said):
    interval = Interval(mean, half)
    assert (interval.low, interval.high) == (mean - half, mean + half)
    assert verdict(interval) == said
