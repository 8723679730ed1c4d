"""The studies as one picture. Matplotlib is imported here alone, when a picture is drawn."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from gauntlet_jax.lab.findings import Panel


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
            "the picture needs matplotlib: pip install gauntlet-jax[lab], or give --no-picture"
        ) from error


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Draws charts side by side into a PNG.

    Args:
      panels: at least one.
      path: of the file.

    Raises:
      NoMatplotlib: matplotlib is missing.
      OSError: the file cannot be written.
    """
    check_matplotlib()
    # A figure of its own, without pyplot: no window, no state shared with a notebook that calls this.
    figures = importlib.import_module("matplotlib.figure")
    figure = figures.Figure(figsize=(6.0 * len(panels), 5.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        count = len(panel.series)
        for number, (name, intervals) in enumerate(panel.series.items()):
            shift = 0.12 * (number - (count - 1) / 2)
            axis.errorbar(
                [place + shift for place in range(len(panel.places))],
                [interval.mean for interval in intervals],
                yerr=[interval.half for interval in intervals],
                fmt="o",
                capsize=3,
                label=name,
            )
        for line, (name, share) in zip(("--", ":"), panel.honest.items(), strict=False):
            axis.axhline(share, linestyle=line, color="gray", label=name)
        axis.set_xticks(
            range(len(panel.places)),
            labels=list(panel.places),
            rotation=0 if max(map(len, panel.places)) < 3 else 30,
        )
        axis.set_ylim(0, 105)
        axis.set_title(panel.title)
        axis.set_ylabel("% of the payouts (95 % intervals)")
        # Below the chart, where it hides no point.
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=3)
    figure.savefig(path, dpi=120, bbox_inches="tight")
