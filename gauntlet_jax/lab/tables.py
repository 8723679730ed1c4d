"""Tables of a study: the same numbers as text and as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

from gauntlet_jax.lab.statistics import Interval

Cell: TypeAlias = str | int | float | Interval
"""What a table holds; an ``Interval`` is shown as mean and half width."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with a name.

    Attributes:
      title: what it shows, with the unit of its numbers.
      columns: their headings.
      rows: of cells, one a column.
      reading: what it says, in a sentence or two.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    reading: str = ""


def as_text(table: Table) -> str:
    """A table for a terminal: the first column to the left, the others to the right."""
    lines = [list(table.columns), *([shown(cell) for cell in row] for row in table.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]

    def aligned(line: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(["  " + first, *rest]).rstrip()

    body = "\n".join(aligned(line) for line in lines)
    return f"{table.title}\n{body}" + (f"\n{table.reading}" if table.reading else "")


def as_json(table: Table) -> dict[str, Any]:
    """A table for JSON; an interval is ``{"mean", "low", "high"}``."""
    return {
        "title": table.title,
        "columns": list(table.columns),
        "rows": [[_plain(cell) for cell in row] for row in table.rows],
        "reading": table.reading,
    }


def shown(cell: Cell) -> str:
    """A cell as text."""
    if isinstance(cell, Interval):
        return f"{cell.mean:.1f} ± {cell.half:.1f}"
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Interval):
        return {"mean": cell.mean, "low": cell.low, "high": cell.high}
    return cell
