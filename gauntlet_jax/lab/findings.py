"""What a study comes to: claims, tables and charts. Pure data; ``picture`` draws it and ``report`` lays it out."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from gauntlet_jax.lab.statistics import Interval
from gauntlet_jax.lab.tables import Table


class Claim(NamedTuple):
    """Something that was asked, and whether it was seen.

    Attributes:
      text: in one sentence, with its numbers.
      holds: whether it does.
    """

    text: str
    holds: bool


class Dots(NamedTuple):
    """Points with intervals over named places.

    Attributes:
      title: what it shows.
      unit: of the y axis.
      places: labels along the x axis.
      series: intervals by place, by the series' name.
      lines: values to compare with, across the chart, by their names.
    """

    title: str
    unit: str
    places: tuple[str, ...]
    series: Mapping[str, tuple[Interval, ...]]
    lines: Mapping[str, float] = {}


class Curves(NamedTuple):
    """Lines with bands over a number.

    Attributes:
      title: what it shows.
      x_unit, unit: of the axes.
      series: ``(x, intervals)`` by the series' name; an interval of no width has no band.
      log: which axes are logarithmic: "", "x", "y" or "xy".
      marks: places along the x axis to look at, by their names.
    """

    title: str
    x_unit: str
    unit: str
    series: Mapping[str, tuple[Sequence[float], Sequence[Interval]]]
    log: str = ""
    marks: Mapping[str, float] = {}


class Grid(NamedTuple):
    """A matrix of numbers, coloured.

    Attributes:
      title: what it shows.
      unit: of the numbers.
      rows, columns: labels.
      values: by row and column; None where there is none.
      bound: values up to it are good.
    """

    title: str
    unit: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    bound: float


Panel: TypeAlias = Dots | Curves | Grid


class Findings(NamedTuple):
    """Of one study.

    Attributes:
      claims: what was to be shown, first things first.
      tables: in the order in which they are read.
      panels: its charts.
    """

    claims: tuple[Claim, ...]
    tables: tuple[Table, ...]
    panels: tuple[Panel, ...]
