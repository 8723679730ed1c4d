"""A study as one HTML page that needs nothing but itself, and as JSON."""

import subprocess
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import markupsafe

import gauntlet_jax
from gauntlet_jax.lab.findings import Findings
from gauntlet_jax.lab.picture import as_svg
from gauntlet_jax.lab.study import Size
from gauntlet_jax.lab.tables import as_json, shown

SCHEMA = 2
INTERVALS = "± is half a 95 % t-interval over the seeds; differences are paired by seed."


class Origin(NamedTuple):
    """What made some findings.

    Attributes:
      study, question, size: of the study.
      seeds: how many, from 0.
      cells: measured.
      command: that makes the same findings.
      version: of the package, with the commit where it is a checkout.
    """

    study: str
    question: str
    size: Size
    seeds: int
    cells: int
    command: str
    version: str


def version() -> str:
    """The package's version; from a checkout with its commit, and a plus where files differ from it."""
    root = Path(gauntlet_jax.__file__).parents[1]
    if not (root / ".git").exists():
        return gauntlet_jax.__version__
    try:
        told = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=7", "--dirty=+"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return gauntlet_jax.__version__
    return f"{gauntlet_jax.__version__} at {told.stdout.strip()}"


def document(findings: Findings, origin: Origin) -> dict[str, Any]:
    """``results.json``, schema 2: claims and tables, each interval as mean, low and high."""
    return {
        "schema": SCHEMA,
        **origin._asdict(),
        "interval": "95 % t-interval over seeds; differences are paired by seed",
        "claims": [claim._asdict() for claim in findings.claims],
        "tables": [as_json(table) for table in findings.tables],
    }


def page(findings: Findings, origin: Origin, *, pictures: bool) -> str:
    """``report.html``.

    Args:
      findings: of the study.
      origin: of the findings.
      pictures: draw the charts; without, the page has the tables alone.

    Raises:
      NoMatplotlib: there is nothing to draw with.
    """
    source = resources.files("gauntlet_jax.lab").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    drawn = findings.panels if pictures else ()
    context: Mapping[str, Any] = {
        "origin": origin,
        "claims": findings.claims,
        "tables": findings.tables,
        "shown": shown,
        "charts": [(panel.title, markupsafe.Markup(as_svg(panel))) for panel in drawn],
        "intervals": INTERVALS,
    }
    return environment.from_string(source).render(context)
