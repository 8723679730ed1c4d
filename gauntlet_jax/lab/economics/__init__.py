"""Economics: do several identities of one strategist earn more than the same work done honestly?"""

from collections.abc import Mapping, Sequence
from typing import Any

from gauntlet_jax.config import to_json
from gauntlet_jax.lab.economics import losers, pair, split
from gauntlet_jax.lab.economics.cases import Case, all_cases, config_of, settings
from gauntlet_jax.lab.findings import Findings
from gauntlet_jax.lab.recorded import Recorded, from_document
from gauntlet_jax.lab.small_run import measured, seconds_of
from gauntlet_jax.lab.study import Results, Size, Study

ROUNDS: Mapping[Size, int] = {"quick": 12, "full": 40}


def conclude(size: Size, results: Results) -> Findings:
    """The tables of splitting, of pairs and of identities that lose on purpose."""
    rounds = ROUNDS[size]
    judged = settings(rounds)

    def runs(case: str) -> Sequence[Recorded]:
        return [from_document(result) for result in results(case)]

    parts = (split.study(runs, judged), pair.study(runs, judged), losers.study(runs, judged, rounds=rounds))
    return Findings(
        (),
        tuple(table for part in parts for table in part.tables),
        tuple(panel for part in parts for panel in part.panels),
    )


def _measure(case: Case, seed: int) -> dict[str, Any]:
    return measured(config_of(case, seed), own=len(case.own))


ECONOMICS = Study(
    name="economics",
    question="Do several identities of one strategist earn more than the same work done honestly?",
    seeds={"quick": 2, "full": 5},
    cases=lambda size: all_cases(ROUNDS[size]),
    identity=lambda case, seed: to_json(config_of(case, seed)),
    measure=_measure,
    conclude=conclude,
    seconds=lambda case: seconds_of(case.rounds),
)
