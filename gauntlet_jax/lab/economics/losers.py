"""What does a peer gain from identities that lose to it on purpose?"""

from collections.abc import Callable, Sequence

import numpy as np

from gauntlet_jax.lab.economics.cases import HONEST_PEERS, SAMPLE, loser_cases
from gauntlet_jax.lab.economics.replay import PayRule, Settings, struck_out
from gauntlet_jax.lab.economics.shares import PAID, main_shares, own_shares
from gauntlet_jax.lab.findings import Dots, Findings
from gauntlet_jax.lab.recorded import Recorded
from gauntlet_jax.lab.statistics import Interval, paired_interval, t_interval, verdict
from gauntlet_jax.lab.tables import Cell, Table

_ONE = 100.0 / (1 + HONEST_PEERS)


def study(runs: Callable[[str], Sequence[Recorded]], settings: Settings, *, rounds: int) -> Findings:
    """The tables of the study.

    Args:
      runs: a case's runs by seed.
      settings: what they were judged with.
      rounds: of a run.
    """
    tables, series = [], {}
    for sampled in (False, True):
        ending = f"-sample{SAMPLE}" if sampled else ""
        names = [
            case.name for case in loser_cases(rounds) if case.name.endswith(f"sample{SAMPLE}") == sampled
        ]
        rows, shown = [], {}
        for name in names:
            cells, share = _row(runs(name), settings)
            label = name.removeprefix("lose-").removesuffix(ending).replace("-", " ")
            rows.append((label, *cells))
            shown[label] = share
        how = f"{SAMPLE} evaluated a round" if sampled else "everybody evaluated"
        tables.append(
            Table(
                f"Designed to lose, {how}: a main identity and its sybils beside {HONEST_PEERS} honest peers",
                (
                    "sybils",
                    "main's share, %",
                    "gained by them",
                    "with theirs, %",
                    "rating gained",
                    "against honesty",
                    "cost that ends it",
                    "honest slashed",
                ),
                tuple(rows),
                f"An equal share is {_ONE:.1f} %. Gained: against the same run with the sybils struck out of every match; the"
                " rating is the main's over the honest peers' mean. Cost: of a sybil, as a part of an equal share, from which nothing"
                " is gained, by the upper end of the interval. Honest slashed: rounds a run in which one of them was.",
            )
        )
        series[how] = shown
    places = tuple(
        label for label in series["everybody evaluated"] if all(label in s for s in series.values())
    )
    panel = Dots(
        "sybils that lose on purpose: the main identity's share",
        PAID,
        places,
        {how: tuple(shown[place] for place in places) for how, shown in series.items()},
        {"an equal share": _ONE},
    )
    return Findings((), tuple(tables), (panel,))


def _row(runs: Sequence[Recorded], settings: Settings) -> tuple[tuple[Cell, ...], Interval]:
    alone = [struck_out(run, settings) for run in runs]
    main, control = (main_shares(some, PayRule(), settings) for some in (runs, alone))
    everything = own_shares(runs, PayRule(), settings)
    share, sybils = t_interval(main), runs[0].own - 1
    against_honesty = verdict(paired_interval(everything, [_ONE] * len(runs)))
    wronged = f"{np.mean([run.slashed[:, run.own :].sum() for run in runs]):.1f}"
    if sybils == 0:
        return (share, "-", t_interval(everything), "-", against_honesty, "-", wronged), share
    gain = paired_interval(everything, control)
    rise = paired_interval([rating_lead(run) for run in runs], [rating_lead(run) for run in alone])
    cells = (
        share,
        paired_interval(main, control),
        t_interval(everything),
        rise,
        against_honesty,
        max(0.0, gain.high / sybils / _ONE),
        wronged,
    )
    return cells, share


def rating_lead(run: Recorded) -> float:
    """By how much the main identity's LossRating exceeds the honest peers' mean, over the second half of a run."""
    late = run.loss_rating[len(run.loss_rating) // 2 :]
    return float(np.mean(late[:, 0]) - np.mean(late[:, run.own :]))
