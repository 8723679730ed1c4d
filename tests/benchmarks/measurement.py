"""What a benchmark measures: a number that must not pass a bound, and how times are taken."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
from rich.table import Table


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      what: was measured.
      told: the measurement, as text.
      number: of it, what the bound is about.
      most: the bound.
      unit: of both; "x" for ratios.
    """

    what: str
    told: str
    number: float
    most: float
    unit: str = "x"

    @property
    def reached(self) -> bool:
        """Whether the bound holds; NaN reaches nothing."""
        return self.number <= self.most


def table_of(rows: list[Row]) -> Table:
    """The rows, as they are printed."""
    table = Table("what", "measured", "must reach", "verdict")
    for row in rows:
        table.add_row(
            row.what, row.told, f"<= {row.most:.4g} {row.unit}", "reached" if row.reached else "MISSED"
        )
    return table


def smallest(*acts: Callable[[], object], repeats: int, burst: int = 1) -> list[float]:
    """The smallest time of each act, seconds.

    Args:
      acts: take turns, so that a busy spell of the machine meets all of them.
      repeats: turns that count; the first does not, since it compiles.
      burst: times that an act is done in its turn. With more than one its threads and caches are its own again after the others'
        turns, and there is a pause before it, in which their threads go to sleep.
    """
    times = [math.inf] * len(acts)
    for number in range(repeats + 1):
        for at, act in enumerate(acts):
            time.sleep(0.05 if burst > 1 else 0.0)
            for _ in range(burst):
                began = time.perf_counter()
                jax.block_until_ready(act())
                if number:
                    times[at] = min(times[at], time.perf_counter() - began)
    return times
