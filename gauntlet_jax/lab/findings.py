"""What a study comes to: tables, and the panel of it in the picture."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gauntlet_jax.lab.recorded import Recorded
from gauntlet_jax.lab.replay import PayRule, Settings, shares
from gauntlet_jax.lab.statistics import Interval
from gauntlet_jax.lab.tables import Table


class Panel(NamedTuple):
    """One chart: points with intervals over named places.

    Attributes:
      title: what it shows.
      places: labels along the x axis.
      series: intervals by place, in percent of the payouts, by the series' name.
      honest: what honesty would earn, lines across by their names.
    """

    title: str
    places: tuple[str, ...]
    series: Mapping[str, tuple[Interval, ...]]
    honest: Mapping[str, float]


class Findings(NamedTuple):
    """Of one study.

    Attributes:
      tables: in the order in which they are read.
      panel: its chart.
    """

    tables: tuple[Table, ...]
    panel: Panel


def own_shares(runs: Sequence[Recorded], rule: PayRule, settings: Settings) -> list[float]:
    """What all the strategist's identities together were paid, in percent of all payouts, by seed."""
    return [100.0 * float(shares(run, rule, settings)[: run.own].sum()) for run in runs]


def main_shares(runs: Sequence[Recorded], rule: PayRule, settings: Settings) -> list[float]:
    """What the first identity was paid, in percent of all payouts, by seed."""
    return [100.0 * float(shares(run, rule, settings)[0]) for run in runs]
