"""Means over seeds, and how far they can be trusted (Student's t, no library needed)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

_T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom."""


class Interval(NamedTuple):
    """A mean with its 95 % confidence interval.

    Attributes:
      mean: over the seeds.
      half: half the interval's width, at least 0.
    """

    mean: float
    half: float

    @property
    def low(self) -> float:
        """Its lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Its upper end."""
        return self.mean + self.half


def t_interval(values: Sequence[float]) -> Interval:
    """The 95 % t-interval of a mean: ``mean +- t_{n-1} s / sqrt(n)``, ``s^2 = sum (x - mean)^2 / (n - 1)``.

    Args:
      values: one a seed, at least two. Beyond 31 the quantile of 30 degrees of freedom is kept, a little too wide.

    Raises:
      ValueError: fewer than two values, or one is not finite.
    """
    n = len(values)
    if n < 2 or not all(map(math.isfinite, values)):
        raise ValueError(f"an interval needs at least two finite values, not {list(values)}")
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Interval(mean, _T_95[min(n - 1, len(_T_95)) - 1] * math.sqrt(variance / n))


def paired_interval(treated: Sequence[float], control: Sequence[float]) -> Interval:
    """The t-interval of the mean difference ``treated - control``, paired by seed.

    What a seed does to both (its data, its model) falls out of the difference.

    Raises:
      ValueError: different lengths, or fewer than two pairs.
    """
    if len(treated) != len(control):
        raise ValueError(f"pairs by seed: {len(treated)} values cannot be paired with {len(control)}")
    return t_interval([one - other for one, other in zip(treated, control, strict=True)])


def verdict(difference: Interval) -> str:
    """What an interval of (deviation - honesty) says: "pays", "costs", or "undecided" where it holds 0."""
    if difference.low > 0:
        return "pays"
    return "costs" if difference.high < 0 else "undecided"
