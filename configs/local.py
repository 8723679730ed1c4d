"""Six peers and two validators as separate processes on one machine, sharing buckets and a ledger; two places are free.

    launch/local.sh

starts a ledger, the validators and the peers, and follows them. By hand, each in a terminal of its own:

    gauntlet ledger serve runs/local/ledger.sqlite --config configs/local.py
    gauntlet validator configs/local.py --ledger http://127.0.0.1:7400 --name V1 --bucket file:///tmp/gauntlet/V1 --allow-folder /tmp/gauntlet
    gauntlet peer --ledger http://127.0.0.1:7400 --name P1 --bucket file:///tmp/gauntlet/P1 --allow-folder /tmp/gauntlet

Takes about 17 minutes for its 60 rounds of 16 seconds. Expected: every node ends at the same digest of the parameters.
"""

import dataclasses

from quickstart import get_config as quickstart

from gauntlet_jax.config import Config, FinalityConfig, PeerConfig, ValidatorConfig
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.rewards.rules import RegistrationRules, RewardRules


def get_config() -> Config:
    """The quickstart's task, with commit-reveal and a beacon that nobody can foretell."""
    return dataclasses.replace(
        quickstart(),
        name="local",
        peers=tuple(PeerConfig(f"P{number}") for number in range(1, 7)),
        validators=(ValidatorConfig("V1", stake=2.0), ValidatorConfig("V2", stake=1.0)),
        slots=8,
        baseline="none",
        commit_reveal=True,
        beacon="ledger",
        # Whole seconds and windows of at least 3, which object stores need. Between the windows validators look at the commits:
        # what is not there by then has come later, whatever time its provider gives it. Judging takes from 9 to about 10, weights are
        # committed to until 11, and a record that is posted then is final at 14.
        times=RoundTimes(seconds=16, commit_opens=0, commit_closes=4, opens=6, closes=9),
        finality=FinalityConfig(weights_seconds=2, succession_seconds=3, veto_seconds=3),
        checkpoint_every=5,
        # Who copies a round late has a proof like a tossed coin's: that passes 0.5 after 15 tosses now and then, and 0.6 after
        # 25 hardly ever.
        rewards=RewardRules(payable_after=25, payable_proof=0.6),
        # Nobody loses a slot before it can have earned something. Where strangers can come, give a registration a cost, too.
        registration=RegistrationRules(immunity_rounds=40),
    )
