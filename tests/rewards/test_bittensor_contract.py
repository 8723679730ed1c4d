"""The ledger's battery over the Bittensor ledger, on a chain in memory."""

import contextlib

from memory_chain import BLOCK_SECONDS, MemoryChain, Subnet, ledger_of, ss58

from gauntlet_jax.rewards.block_times import BlockTimes
from gauntlet_jax.rewards.chain_client import Call
from gauntlet_jax.rewards.epoch import epoch_of
from gauntlet_jax.testing.ledger_battery import LedgerBattery
from gauntlet_jax.testing.ledger_world import play_round, populate

OWNER = ss58("owner")
TIMES = BlockTimes(genesis=146, round_blocks=24, closes=4, confirmations=1, block_seconds=BLOCK_SECONDS)


class ChainWorld:
    """Rounds of two epochs: the first closes the commits of a round, the second is the round's.

    The peers that it names and the validators have had a uid for long when the run begins: an epoch has given the validators their
    permits, and who has never weighed counts as inactive. (The stake of an active one that says nothing counts against everybody.)
    Where nobody is free to be replaced the chain replaces who is new, so a slot is kept for one round.
    """

    slots = 4
    cost = 1000
    immunity_rounds = 1
    weights_stand = 4
    emission = 9_020_050_347
    granted = 0
    tolerance = 4 / 65535
    has_reserve = True
    pays_silence = True
    conserves = True

    def __init__(self):
        self.validators = {ss58("V1"): 25000 / 65535, ss58("V2"): 22000 / 65535, ss58("V3"): 18535 / 65535}
        self.peers = [ss58("ada"), ss58("bob"), ss58("cyd")]
        self.strangers = [ss58("dan"), ss58("eve")]
        self.chain = MemoryChain(Subnet(max_uids=8, activity_cutoff=24 * self.weights_stand + 10), OWNER)
        for name in (OWNER, *self.validators, *self.peers, *self.strangers):
            self.chain.fund(f"{name} pays", 2 * self.cost)
        for name in (OWNER, *self.validators, *self.peers):
            call = Call("SubtensorModule", "burned_register", {"netuid": 3, "hotkey": name})
            self.chain.client(name, f"{name} pays").submit(call, "coldkey", lifetime=16)
        for name, stake in self.validators.items():
            self.chain.stake(name, round(stake * 65535))
        self.chain.advance_to(TIMES.genesis - 1)
        self.round = -1

    def ledger(self, hotkey):
        return ledger_of(self.chain, hotkey, TIMES)

    def node(self, name):
        return self.ledger(name)

    def impostor(self, name):
        return self.ledger(ss58(f"not {name}"))

    def onlooker(self):
        return self.ledger(ss58("onlooker"))

    def funds(self, name):
        return self.chain.funds(f"{name} pays")

    def copy_commit(self, round, thief, victim):
        (entry,) = self.chain.state("SubtensorModule", "WeightCommits", (3, victim))
        call = Call(
            "SubtensorModule", "commit_weights", {"netuid": 3, "commit_hash": bytes.fromhex(entry[0][2:])}
        )
        self.chain.client(thief, "").submit(call, "hotkey", lifetime=16)

    def open_round(self):
        self.round += 1
        self.chain.advance_to(TIMES.start(self.round) + TIMES.confirmations)
        return self.round

    def close_round(self):
        self.chain.advance_to(TIMES.close(self.round) + TIMES.confirmations)

    def close_commits(self):
        self.chain.advance_to(self.chain.next_epoch())

    def finish_round(self):
        self.chain.advance_to(self.chain.next_epoch() + TIMES.confirmations)


@contextlib.contextmanager
def chain_world():
    yield ChainWorld()


class TestBittensorLedger(LedgerBattery):
    new_world = staticmethod(chain_world)

    def test_an_epoch_is_yuma_consensus(self):
        """As the battery's, but between the epochs of two rounds the chain has another one, which moves the bonds too."""
        with self.new_world() as world:
            populate(world)
            one, two, three = world.validators
            a, b = world.peers[:2]
            agreed = {a: 65535.0, b: 28086.0}
            rounds = [
                {one: agreed, two: {a: 65535.0, b: 43690.0}, three: {a: 7282.0, b: 65535.0}},
                {one: {a: 1.0, b: 1.0}, two: agreed},
                *[{one: agreed, two: agreed}] * (world.weights_stand - 1),
            ]
            standing, bonds = {}, {}
            peers = [*world.peers]
            for number, weights in enumerate(rounds):
                between = epoch_of(
                    0, standing, stakes=world.validators, peers=peers, bonds=bonds, emission=world.emission
                )
                standing = {**standing, **weights}
                if number == world.weights_stand:
                    del standing[three]
                found = world.onlooker().epoch(play_round(world, weights))
                expected = epoch_of(
                    number,
                    standing,
                    stakes=world.validators,
                    peers=peers,
                    bonds=between.bonds,
                    emission=world.emission,
                )
                for table in ("consensus", "incentive", "trust", "dividends"):
                    near(getattr(found, table), getattr(expected, table), world.tolerance)
                near(found.payouts, expected.payouts, world.tolerance * world.emission)
                for name in world.validators:
                    near(found.bonds.get(name, {}), expected.bonds.get(name, {}), 65535 * world.tolerance)
                assert {*found.trust} == {*standing}
                bonds = found.bonds


def near(found, expected, tolerance):
    for name in {*found, *expected}:
        assert abs(found.get(name, 0) - expected.get(name, 0)) <= tolerance, (name, found, expected)
