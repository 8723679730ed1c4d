"""The Bittensor ledger on a real node: ``pytest -m chain --chain-url ws://127.0.0.1:9944 --chain-netuid 2 --chain-wallet NAME/HOTKEY``.

Without a wallet it only reads. The wallet's hotkey must be registered on the subnet and hold a validator permit; what is given to it
is the reserve's alone. Give a node that keeps the history of a few tempos; one that does not fails the test. Without the flags these
tests are not collected at all.
"""

import hashlib
import math
import random
import time
from pathlib import Path

import pytest

from gauntlet_jax.rewards.bittensor_ledger import BittensorLedger
from gauntlet_jax.rewards.block_times import BlockTimes
from gauntlet_jax.rewards.chain_failover import FailoverChain, Patience
from gauntlet_jax.rewards.chain_refusals import TooEarly
from gauntlet_jax.rewards.chain_weights import account_of
from gauntlet_jax.rewards.ledger import RESERVE
from gauntlet_jax.rewards.subnet_registration import NodeCard
from gauntlet_jax.rewards.subnet_view import SubnetView
from gauntlet_jax.rewards.subnet_weights import WeightPolicy

pytestmark = pytest.mark.chain

ROUNDS_BACK = 3
MOST_BLOCKS = 2000
BUCKET = "s3://gauntlet-chain-test"


@pytest.fixture
def place(request):
    return request.config.getoption("--chain-wallet", default=None)


@pytest.fixture
def chain(request, place):
    url = request.config.getoption("--chain-url")
    from gauntlet_jax.rewards.bittensor_sdk import Deadlines, WalletPlace, connector  # noqa: PLC0415

    name, _, hotkey = (place or "default/default").partition("/")
    wallet = WalletPlace(name, hotkey, str(Path.home() / ".bittensor" / "wallets"), None, None)
    client = FailoverChain(
        [url],
        connector(wallet, Deadlines()),
        clock=time.monotonic,
        sleep=time.sleep,
        random=random.random,
        patience=Patience(),
    )
    yield client
    client.close()


@pytest.fixture
def ledger(request, chain, place):
    netuid = int(request.config.getoption("--chain-netuid", default=None) or 1)
    view, head = SubnetView(chain, netuid, None), chain.head()
    blocks = max(4, view.number("Tempo", head))
    seconds = (view.time(head) - view.time(head - 10)) / 10

    def fetch(url, most):
        raise OSError("this test fetches nothing")

    return BittensorLedger(
        chain,
        netuid,
        BlockTimes(max(1, head - ROUNDS_BACK * blocks), blocks, blocks // 2, block_seconds=seconds),
        card=NodeCard(key_of(place), "", 0),
        policy=WeightPolicy(view.number("WeightsVersionKey", head), 0),
        fetch=fetch,
        clock=time.monotonic,
        sleep=time.sleep,
    )


def test_a_subnet_is_read(ledger):
    assert ledger.now() > 1_600_000_000
    assert ledger.round() == ROUNDS_BACK
    found = ledger.registrations(None)
    assert all(len(account_of(entry.name)) == 32 for entry in found)
    assert all((entry.slot is None) == (entry.stake > 0) for entry in found)
    assert {entry.name for entry in found if not entry.bucket} <= {*ledger.without_bucket()}
    assert len({ledger.beacon(1, "opening"), ledger.beacon(1, "closing")}) == 2
    epochs = [epoch for round in range(ROUNDS_BACK) if (epoch := ledger.epoch(round)) is not None]
    shown = ledger.weights(0)
    ledger.registrations(0)
    assert epochs
    for epoch in epochs:
        for table in (epoch.incentive, epoch.dividends):
            assert math.fsum(table.values()) == pytest.approx(1.0) or not any(table.values())
        assert all(0 <= trust <= 1 for trust in epoch.trust.values())
        assert all(units > 0 for units in epoch.payouts.values())
    assert all(math.fsum(row.values()) == pytest.approx(1.0) for row in shown.values())
    assert sum(ledger.balances().values()) == sum(epoch.emission for epoch in epochs)


@pytest.mark.chain(wallet=True)
def test_a_round_is_weighed(ledger, chain, place):
    own = chain.hotkey
    entry = ledger.register_validator(own, BUCKET)
    assert (entry.name, entry.bucket, entry.public_key) == (own, BUCKET, key_of(place))
    assert ledger.register_validator(own, BUCKET) == entry
    round, salt, row = ledger.round() + 1, b"a salt of the test of a real node"[:32], {RESERVE: 1.0}
    for call in (ledger.commit_weights, ledger.commit_weights, ledger.reveal_weights, ledger.reveal_weights):
        patiently(chain, lambda call=call: call(round, row, salt))
    assert ledger.weights(round)[own] == row
    before = chain.head()
    while ledger.epoch(round) is None and chain.head() < before + MOST_BLOCKS:
        time.sleep(1.0)
    assert own in ledger.epoch(round).trust


def key_of(place):
    return hashlib.sha256(f"{place}".encode()).hexdigest()


def patiently(chain, call):
    """Waits for as many blocks as the ledger says, a few times."""
    until = chain.head() + MOST_BLOCKS
    while True:
        try:
            return call()
        except TooEarly as early:
            due = chain.head() + early.blocks
            assert due < until
            while chain.head() < due:
                time.sleep(1.0)
