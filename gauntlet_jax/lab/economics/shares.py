"""What a strategist is paid, in percent of all payouts."""

from collections.abc import Sequence

from gauntlet_jax.lab.economics.replay import PayRule, Settings, shares
from gauntlet_jax.lab.recorded import Recorded

PAID = "% of the payouts"


def own_shares(runs: Sequence[Recorded], rule: PayRule, settings: Settings) -> list[float]:
    """What all the strategist's identities together were paid, in percent of all payouts, by seed."""
    return [100.0 * float(shares(run, rule, settings)[: run.own].sum()) for run in runs]


def main_shares(runs: Sequence[Recorded], rule: PayRule, settings: Settings) -> list[float]:
    """What the first identity was paid, in percent of all payouts, by seed."""
    return [100.0 * float(shares(run, rule, settings)[0]) for run in runs]
