"""What an identity must cost for splitting to gain nothing."""

from collections.abc import Mapping, Sequence

from gauntlet_jax.lab.economics.replay import net_of_registration
from gauntlet_jax.lab.statistics import paired_interval, t_interval
from gauntlet_jax.lab.tables import Cell, Table

COSTS = (0.0, 0.25, 0.5, 1.0)


def ending(by_k: Sequence[Sequence[float]], *, one: float) -> float:
    """The cost of an identity from which on no number of them gains, by the upper ends of the intervals.

    ``max_k (gain_k + half_k) / ((k - 1) one)``, and at least 0.

    Args:
      by_k: shares in percent of all payouts for k = 1, 2, 3, ..., by seed.
      one: what one batch is paid when every batch is paid alike, in the same percent.

    Returns:
      A part of ``one``.
    """
    gains = [paired_interval(values, by_k[0]) for values in by_k[1:]]
    return max(0.0, *(gain.high / more / one for more, gain in enumerate(gains, start=1)))


def table(shares: Mapping[str, Sequence[Sequence[float]]], *, one: float) -> Table:
    """The best k by its mean share, once each identity costs something.

    Args:
      shares: by rule and k, as in ``ending``.
      one: see ``ending``.
    """
    rows = []
    for name, by_k in shares.items():
        means = [t_interval(values).mean for values in by_k]
        cells: list[Cell] = []
        for cost in COSTS:
            net = [
                net_of_registration(share, k, cost=cost, one=one) for k, share in enumerate(means, start=1)
            ]
            best = max(range(len(net)), key=net.__getitem__)
            cells.append(f"k={best + 1}, {net[best] - net[0]:+.1f}")
        rows.append((name, *cells, ending(by_k, one=one)))
    return Table(
        "Split: the best k when an identity costs a part of what one batch's fair pay comes to over the run"
        f" ({one:.1f} % of the payouts), and its gain over k = 1 in points",
        ("rule", *(f"cost {cost:g}" for cost in COSTS), "cost that ends it"),
        tuple(rows),
        "The last column: from this cost on no k gains, by the upper ends of the intervals.",
    )
