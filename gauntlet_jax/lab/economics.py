"""Economics: do several identities of one strategist earn more than the same work done honestly?"""

from typing import Any

from gauntlet_jax.lab import losers, pair, split
from gauntlet_jax.lab.cases import settings
from gauntlet_jax.lab.findings import Findings
from gauntlet_jax.lab.runs import Runs
from gauntlet_jax.lab.tables import as_json, as_text

__all__ = ["STUDIES", "Runs", "as_text", "document", "study"]

STUDIES = ("split", "pair", "designed-to-lose")
SCHEMA = 1


def study(name: str, runs: Runs, *, rounds: int) -> Findings:
    """One study's tables, from runs that are all there.

    Raises:
      ValueError: there is no such study, or a run is missing.
    """
    judged = settings(rounds)
    if name == "split":
        return split.study(runs.of, judged)
    if name == "pair":
        return pair.study(runs.of, judged)
    if name == "designed-to-lose":
        return losers.study(runs.of, judged, rounds=rounds)
    raise ValueError(f"there is no study {name!r}: {', '.join(STUDIES)}")


def document(found: dict[str, Findings], *, seeds: int, rounds: int) -> dict[str, Any]:
    """``economics.json``, schema 1: the tables by study, each interval as mean, low and high."""
    return {
        "schema": SCHEMA,
        "seeds": seeds,
        "rounds": rounds,
        "interval": "95 % t-interval over seeds; differences are paired by seed",
        "studies": {name: [as_json(table) for table in findings.tables] for name, findings in found.items()},
    }
