"""With commit-reveal a copier earns nothing from what it copied, however it goes about it."""

from collections import Counter
from contextlib import closing

import copiers
import pytest

from gauntlet_jax.build import build_simulation
from gauntlet_jax.build.parts import read_corpus
from gauntlet_jax.build.task import make_task
from gauntlet_jax.config import PeerConfig
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.rewards.rules import RewardRules

HONEST = ("ada", "ben", "cleo", "dov")
ROUNDS = 60


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    mixer = copiers.Mixer()
    behaviors = copiers.behaviors(mixer)
    config = tiny(
        peers=(*map(PeerConfig, HONEST), *(PeerConfig(name, acts) for name, acts in behaviors.items())),
        rounds=ROUNDS,
        commit_reveal=True,
        times=RoundTimes(),
        # A coin that is tossed passes 0.5 after 15 tosses now and then, and 0.6 after 25 hardly ever.
        rewards=RewardRules(payable_after=25, payable_proof=0.6),
        heldout_every=20,
    )
    task = make_task(config, read_corpus(config))
    mixer.learn(task.compressor, task.params)
    with closing(build_simulation(config, tmp_path_factory.mktemp("copiers"))) as simulation:
        peers = {peer.name: peer for peer in simulation._peers}
        for thief in ("claims_the_digests", "reposts_the_commit", "signs_the_commit", "shows_the_probe"):
            copiers.take_over(peers[thief], peers[copiers.VICTIM])
        return [simulation.run_round() for _ in range(ROUNDS)]


@pytest.fixture(scope="module")
def shares(run):
    paid = Counter()
    for record in run:
        paid.update({peer.name: peer.payout for peer in record.peers})
    return {name: units / paid.total() for name, units in paid.items()}


def rows(run, name):
    return [peer for record in run for peer in record.peers if peer.name == name]


@pytest.mark.parametrize(
    ("name", "refusal", "detail"),
    [
        ("shows_the_victims", "uncommitted", "its commit is to another artifact"),
        ("reposts_the_commit", "uncommitted", "its commit: signed by another key"),
        ("signs_the_commit", "uncommitted", "its commit is to another artifact"),
        ("claims_the_digests", "malformed", "is not the one of its manifest"),
        ("shows_the_probe", "out_of_sync", "signed steps from the validator's parameters"),
    ],
)
def test_what_is_copied_in_the_round_is_refused_in_every_round(run, shares, name, refusal, detail):
    assert {row.refusal for row in rows(run, name)} == {refusal}
    assert all(detail in row.detail for row in rows(run, name))
    assert shares[name] == 0


@pytest.mark.parametrize("name", ["a_round_late", "late_with_noise", "late_average"])
def test_what_is_copied_a_round_late_is_accepted_and_earns_nothing(run, shares, name):
    assert all(row.refusal is None for row in rows(run, name))
    assert shares[name] == 0


@pytest.mark.parametrize("name", ["late_with_own", "late_average_with_own"])
def test_a_mixture_with_a_sequence_of_ones_own_earns_no_more_than_that_sequence(shares, name):
    print(f"{name}: {shares[name]:.2%}, its own sequence alone {shares['one_sequence']:.2%}")
    assert shares[name] <= shares["one_sequence"] + 0.005


def test_the_honest_peers_share_what_is_paid_and_none_is_refused(run, shares):
    assert sum(shares[name] for name in HONEST) > 0.99
    assert all(row.refusal is None and not row.slashed for name in HONEST for row in rows(run, name))


def test_nobody_sees_anything_of_a_round_before_it_is_bound(run):
    """The thieves did find a victim's artifact to show: the refusals above are not for want of one."""
    victim, thief = rows(run, copiers.VICTIM), rows(run, "shows_the_victims")
    assert all(theirs.digest == own.digest for theirs, own in zip(victim, thief, strict=True))
