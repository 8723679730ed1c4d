"""The charts of a study. Matplotlib is imported here alone, when one is drawn."""

import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gauntlet_jax.lab.findings import Curves, Dots, Grid, Panel

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#7a3e9d", "#666666")
"""Okabe and Ito's, which the colour-blind can tell apart, the lighter ones darkened for a white ground."""
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SIZE = (6.4, 4.6)


class NoMatplotlib(ValueError):
    """There is nothing to draw with; its text says what to install."""


def check_matplotlib() -> None:
    """Looks whether a picture can be drawn, before anything is run for it.

    Raises:
      NoMatplotlib: it cannot.
    """
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise NoMatplotlib(
            "the pictures need matplotlib: pip install gauntlet-jax[lab], or give --no-pictures"
        ) from error


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Draws charts side by side, three in a row, into a PNG.

    Args:
      panels: at least one.
      path: of the file.

    Raises:
      NoMatplotlib: matplotlib is missing.
      OSError: the file cannot be written.
    """
    columns = min(3, len(panels))
    figure = _figure((_SIZE[0] * columns, _SIZE[1] * -(-len(panels) // columns)))
    for number, panel in enumerate(panels, start=1):
        _into(figure.add_subplot(-(-len(panels) // columns), columns, number), panel)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def as_svg(panel: Panel) -> str:
    """One chart as the text of an SVG element, the same bytes for the same chart.

    Raises:
      NoMatplotlib: matplotlib is missing.
    """
    rows = len(panel.rows) if isinstance(panel, Grid) else 0
    figure = _figure((_SIZE[0], max(_SIZE[1], 1.2 + 0.32 * rows)))
    _into(figure.add_subplot(), panel)
    written = io.StringIO()
    with importlib.import_module("matplotlib").rc_context({"svg.hashsalt": panel.title}):
        figure.savefig(written, format="svg", metadata={"Date": None}, bbox_inches="tight")
    text = written.getvalue()
    return text[text.index("<svg") :]


def _figure(size: tuple[float, float]) -> Any:
    check_matplotlib()
    # A figure of its own, without pyplot: no window, no state shared with a notebook that calls this.
    return importlib.import_module("matplotlib.figure").Figure(figsize=size, layout="constrained")


def _into(axis: Any, panel: Panel) -> None:
    axis.set_title(panel.title)
    if isinstance(panel, Grid):
        _grid(axis, panel)
        return
    if isinstance(panel, Dots):
        _dots(axis, panel)
    else:
        _curves(axis, panel)
    axis.set_ylabel(panel.unit)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e6e6e6")
    axis.set_axisbelow(True)
    if axis.get_legend_handles_labels()[0]:
        # Below the chart, where it hides no point.
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False)


def _dots(axis: Any, panel: Dots) -> None:
    count = len(panel.series)
    for number, (name, intervals) in enumerate(panel.series.items()):
        shift = 0.12 * (number - (count - 1) / 2)
        axis.errorbar(
            [place + shift for place in range(len(panel.places))],
            [interval.mean for interval in intervals],
            yerr=[interval.half for interval in intervals],
            fmt=_MARKS[number % len(_MARKS)],
            color=_COLORS[number % len(_COLORS)],
            capsize=3,
            label=name,
        )
    for line, (name, value) in zip(("--", ":", "-."), panel.lines.items(), strict=False):
        axis.axhline(value, linestyle=line, color="gray", label=name)
    tilted = max(map(len, panel.places)) >= 3
    axis.set_xticks(range(len(panel.places)), labels=list(panel.places), rotation=30 if tilted else 0)


def _curves(axis: Any, panel: Curves) -> None:
    for number, (name, (x, intervals)) in enumerate(panel.series.items()):
        color = _COLORS[number % len(_COLORS)]
        axis.plot(x, [interval.mean for interval in intervals], color=color, label=name)
        low, high = [interval.low for interval in intervals], [interval.high for interval in intervals]
        axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    for name, place in panel.marks.items():
        axis.axvline(place, linestyle=":", color="gray", label=name)
    axis.set_xlabel(panel.x_unit)
    for letter in panel.log:
        getattr(axis, f"set_{letter}scale")("log")


def _grid(axis: Any, panel: Grid) -> None:
    values = np.array([[np.nan if v is None else v for v in row] for row in panel.values], float)
    # White at nothing, full colour at twice the bound: what is above it can be seen without reading.
    shown = importlib.import_module("matplotlib.colors").LinearSegmentedColormap.from_list(
        "harm", ["#ffffff", "#f4d9c0", "#d55e00"]
    )
    axis.imshow(np.clip(values, 0, 2 * panel.bound), cmap=shown, vmin=0, vmax=2 * panel.bound, aspect="auto")
    axis.set_xticks(range(len(panel.columns)), labels=list(panel.columns), rotation=35, ha="right")
    axis.set_yticks(range(len(panel.rows)), labels=list(panel.rows))
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            weight = "bold" if value > panel.bound else "normal"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, fontweight=weight)
    axis.set_xlabel(f"{panel.unit}; bold: above {panel.bound:g}")
