"""What do two identities earn that share one gradient?"""

from collections.abc import Callable, Sequence

import numpy as np

from gauntlet_jax.lab.economics.cases import HONEST_PEERS
from gauntlet_jax.lab.economics.replay import PayRule, Settings
from gauntlet_jax.lab.economics.shares import PAID, own_shares
from gauntlet_jax.lab.findings import Dots, Findings
from gauntlet_jax.lab.recorded import Recorded
from gauntlet_jax.lab.statistics import paired_interval, t_interval, verdict
from gauntlet_jax.lab.tables import Table

_PAIRS = {
    "none": ("one honest peer, all the data of two", 2),
    "same-half": ("both send all, half the data of each", 1),
    "same-half-free": ("  without the overlap rule", 1),
    "same-whole": ("both send all, all the data of both", 2),
    "same-whole-free": ("  without the overlap rule", 2),
    "dealt-half": ("coefficients dealt out, half the data of each", 1),
    "dealt-whole": ("coefficients dealt out, all the data of both", 2),
}
"""By the case: what is done, and its compute in batches."""


def study(runs: Callable[[str], Sequence[Recorded]], settings: Settings) -> Findings:
    """The tables of the study.

    Args:
      runs: a case's runs by seed.
      settings: what they were judged with.
    """
    rows, intervals = [], []
    alone = own_shares(runs("pair-none"), PayRule(), settings)
    for case, (said, compute) in _PAIRS.items():
        of_case = runs(f"pair-{case}")
        values = own_shares(of_case, PayRule(), settings)
        # By symmetry: as one of six honest peers with the compute of one batch, as two of seven with that of two.
        fair = honest_share(compute)
        gain = paired_interval(values, [fair] * len(values))
        over_one = "-" if compute == 1 else paired_interval(values, alone)
        slashed = np.mean([run.slashed[:, : run.own].sum() for run in of_case])
        wronged = np.mean([run.slashed[:, run.own :].sum() for run in of_case])
        intervals.append(t_interval(values))
        rows.append(
            (
                said,
                str(compute),
                intervals[-1],
                f"{intervals[-1].mean / honest_share(1):.0%}",
                f"{intervals[-1].mean / honest_share(2):.0%}",
                verdict(gain),
                "-" if case == "none" else over_one,
                f"{slashed:.1f}",
                f"{wronged:.1f}",
            )
        )
    table = Table(
        f"Pair: two identities with one gradient beside {HONEST_PEERS} honest peers, % of the payouts",
        (
            "what they do",
            "batches",
            "share",
            "of one honest",
            "of two honest",
            "against honesty",
            "over one peer with 2",
            "slashed",
            "honest slashed",
        ),
        tuple(rows),
        f"Honestly their compute would earn {honest_share(1):.1f} % (one peer) or {honest_share(2):.1f} % (two);"
        " the column before the last two is the gain over one honest peer with both batches, in points;"
        " slashed: rounds a run in which one of them (of the honest) was.",
    )
    panel = Dots(
        "two identities, one gradient",
        PAID,
        tuple(_PAIRS),
        {"share of the pair": tuple(intervals)},
        {"two honest peers": honest_share(2), "one honest peer": honest_share(1)},
    )
    return Findings((), (table,), (panel,))


def honest_share(batches: int) -> float:
    """What so many honest one-batch peers are paid beside the others, in percent: peers that do the same are paid the same."""
    return 100.0 * batches / (batches + HONEST_PEERS)
