"""Calls that get lost, endpoints that are down, and what a user is told."""

import contextlib

import pytest
from memory_chain import BLOCK_SECONDS, MemoryChain, Subnet, ledger_of, ss58

from gauntlet_jax.rewards.block_times import BlockTimes
from gauntlet_jax.rewards.chain_client import CallFailed, ChainDown, HistoryPruned
from gauntlet_jax.rewards.chain_failover import FailoverChain, Patience, shown
from gauntlet_jax.rewards.chain_refusals import TooEarly
from gauntlet_jax.rewards.ledger import RESERVE, LedgerRefused, LedgerUnreachable

OWNER, VAL, ADA, BOB = (ss58(name) for name in ("owner", "val", "ada", "bob"))
TIMES = BlockTimes(genesis=26, round_blocks=24, closes=4, confirmations=1, block_seconds=BLOCK_SECONDS)
SALT = bytes(range(32))
ROW = {ADA: 3.0, RESERVE: 1.0}


def begun(**rules):
    """A chain whose round 0 has closed its put window, with a validator and a peer."""
    chain = MemoryChain(Subnet(**rules), OWNER)
    for name in (OWNER, VAL, ADA, BOB):
        chain.fund(f"{name} pays", 5000)
    chain.stake(VAL, 10)
    for name in (OWNER, VAL, ADA):
        with_bucket(chain, name)
    chain.advance_to(TIMES.close(0))
    return chain


def with_bucket(chain, name):
    try:
        ledger_of(chain, name, TIMES).register_peer(name, f"s3://{name[-8:]}")
    except LedgerRefused:
        assert name == OWNER


def of(chain, function):
    return [call for call in chain.taken if call[0] == function]


@pytest.mark.parametrize("fault", ["before", "after", 1, 7, 16, 17])
def test_a_lost_call_is_taken_once(fault):
    """Whether it was taken before the connection broke, is still on its way, or is lost for good."""
    chain = begun()
    chain.faults = [fault]
    ledger_of(chain, BOB, TIMES).register_peer(BOB, "s3://bob")
    assert of(chain, "burned_register").count(("burned_register", BOB)) == 1
    assert chain.funds(f"{BOB} pays") == 4000
    assert len([call for call in of(chain, "set_commitment") if call[1] == BOB]) == 1


@pytest.mark.parametrize("fault", ["before", "after", 1, 2, 17])
@pytest.mark.parametrize("commits", [True, False])
def test_weights_are_set_once_a_round(fault, commits):
    chain = begun(commits=commits, tempo=24)
    chain.faults = [fault]
    ledger = ledger_of(chain, VAL, TIMES)
    call = ledger.commit_weights if commits else ledger.reveal_weights
    call(0, ROW, SALT)
    call(0, ROW, SALT)
    # A process that was killed and begins anew finds out from the chain.
    again = ledger_of(chain, VAL, TIMES)
    (again.commit_weights if commits else again.reveal_weights)(0, ROW, SALT)
    assert len(of(chain, "commit_weights" if commits else "set_weights")) == 1


@pytest.mark.parametrize("fault", ["before", "after", 3])
def test_what_was_committed_to_is_shown_once_by_whoever_begins_anew(fault):
    chain = begun()
    ledger_of(chain, VAL, TIMES).commit_weights(0, ROW, SALT)
    chain.advance_to(chain.next_epoch())
    chain.faults = [fault]
    with contextlib.suppress(LedgerUnreachable):
        ledger_of(chain, VAL, TIMES, call_seconds=20.0).reveal_weights(0, ROW, SALT)
    chain.faults = []
    ledger_of(chain, VAL, TIMES).reveal_weights(0, ROW, SALT)
    assert len(of(chain, "reveal_weights")) == 1
    assert ledger_of(chain, BOB, TIMES).weights(0) == {
        VAL: {ADA: pytest.approx(0.75), RESERVE: pytest.approx(0.25, abs=1e-4)}
    }


def test_an_unknown_outcome_is_said_to_be_one():
    chain = begun()
    chain.faults = ["before"] * 50
    with pytest.raises(LedgerUnreachable, match="whether the chain took burned_register is not known yet"):
        ledger_of(chain, BOB, TIMES, call_seconds=100.0).register_peer(BOB, "s3://bob")
    chain.faults = []
    ledger_of(chain, BOB, TIMES).register_peer(BOB, "s3://bob")
    assert of(chain, "burned_register").count(("burned_register", BOB)) == 1


def failover(chain, hotkey, endpoints, opened, **patience):
    def connect(endpoint):
        opened.append(endpoint)
        if endpoint in chain.down:
            raise ChainDown("refuses connections")
        return chain.client(hotkey, f"{hotkey} pays", endpoint)

    return FailoverChain(
        endpoints,
        connect,
        clock=chain.clock,
        sleep=chain.sleep,
        random=lambda: 0.5,
        patience=Patience(**patience),
    )


def test_another_endpoint_takes_over_and_stays():
    chain = begun()
    opened = []
    endpoints = ["ws://one:1", "ws://two:2"]
    client = failover(chain, BOB, endpoints, opened)
    ledger = ledger_of(chain, BOB, TIMES, client=client)
    ledger.now()
    chain.down = {"ws://one:1"}
    ledger.register_peer(BOB, "s3://bob")
    chain.down = set()
    assert {entry.name for entry in ledger.registrations(None)} == {VAL, ADA, BOB}
    assert opened == endpoints
    assert chain.slept == 0.0
    client.close()


def test_a_chain_that_is_down_is_waited_for_with_growing_pauses_and_then_named():
    chain = begun()
    opened = []
    endpoints = ["ws://one:1/key-s3cret", "wss://user:s3cret@two?key=s3cret"]
    client = failover(chain, BOB, endpoints, opened, seconds=100.0, first_pause=4.0, longest_pause=20.0)
    chain.down = set(endpoints)
    with pytest.raises(LedgerUnreachable) as caught:
        ledger_of(chain, BOB, TIMES, client=client).now()
    told = str(caught.value)
    assert "ws://one:1" in told
    assert "wss://two" in told
    assert "s3cret" not in told
    assert "\n" not in told
    # 4, 8, 16, 20, 20, 20 of three quarters each, and the next would be past the deadline.
    assert chain.slept == 0.75 * (4 + 8 + 16 + 20 * 5)
    assert opened == endpoints * 9
    chain.down = {endpoints[0]}
    assert ledger_of(chain, BOB, TIMES, client=client).round() is not None


def test_a_submission_whose_endpoint_breaks_is_looked_for_at_the_other():
    chain = begun()
    client = failover(chain, BOB, ["ws://one:1", "ws://two:2"], [])
    chain.faults = ["after"]
    ledger_of(chain, BOB, TIMES, client=client).register_peer(BOB, "s3://bob")
    assert of(chain, "burned_register").count(("burned_register", BOB)) == 1


def test_old_state_is_asked_of_an_archive():
    chain = begun()
    chain.advance_to(TIMES.start(9))
    chain.keeps = {"ws://lite:1": 10}
    opened = []
    ledger = ledger_of(
        chain, BOB, TIMES, client=failover(chain, BOB, ["ws://lite:1", "ws://archive:1"], opened)
    )
    assert {entry.name for entry in ledger.registrations(1)} == {VAL, ADA}
    alone = ledger_of(chain, BOB, TIMES, client=failover(chain, BOB, ["ws://lite:1"], opened))
    with pytest.raises(HistoryPruned, match="add an archive node"):
        alone.registrations(1)
    # The time of a registration is estimated then: 200 blocks of 12 seconds.
    exact = {entry.name: entry.registered_at for entry in ledger.registrations(None)}
    assert {entry.name: entry.registered_at for entry in alone.registrations(None)} == exact


def test_an_endpoint_is_shown_without_what_may_be_secret():
    assert shown("wss://user:pw@host:443/path/key?api=1#x") == "wss://host:443"
    assert shown("wss://host") == "wss://host"
    assert shown("wss://host:port") == "an endpoint that is no URL"
    with pytest.raises(ValueError, match="at least one endpoint"):
        failover(begun(), BOB, [], [])


def refused(match, call, kind=LedgerRefused):
    with pytest.raises(kind, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


def test_clear_lines_for_what_a_chain_refuses():
    chain = begun()
    bob, val, ada = (ledger_of(chain, name, TIMES) for name in (BOB, VAL, ADA))
    refused("not registered on subnet 3: register it first", lambda: bob.commit_weights(0, ROW, SALT))
    refused("insufficient stake.*holds no validator permit", lambda: ada.commit_weights(0, ROW, SALT))
    refused("insufficient stake.*stake to it", lambda: ada.register_validator(ADA, "s3://ada"))
    refused("holds a validator permit", lambda: val.register_peer(VAL, "s3://val"))
    refused("its own hotkey .* alone, not 'bob'", lambda: bob.register_peer("bob", "s3://bob"))
    refused("'eve' is no peer of it", lambda: val.commit_weights(0, {"eve": 1.0}, SALT))
    refused("is no peer of it", lambda: val.commit_weights(0, {VAL: 1.0}, SALT))
    refused("at least 0", lambda: val.commit_weights(0, {ADA: -1.0}, SALT), ValueError)
    refused("at least 0", lambda: val.commit_weights(0, {ADA: float("nan")}, SALT), ValueError)
    cheap = ledger_of(chain, BOB, TIMES, most_burn=999)
    refused("costs 1e-06 now, and 9.99e-07 is allowed", lambda: cheap.register_peer(BOB, "s3://bob"))
    chain.fund(f"{BOB} pays", 999)
    refused("not enough balance.*it costs 1e-06, and coldkey", lambda: bob.register_peer(BOB, "s3://bob"))
    refused("95 fit on the chain", lambda: bob.register_peer(BOB, "s3://" + "b" * 200))
    chain.change("NetworkRegistrationAllowed", False)
    refused("takes no registrations", lambda: bob.register_peer(BOB, "s3://bob"))
    assert not of(chain, "commit_weights")
    chain.change("WeightsVersionKey", 7)
    chain.advance_to(TIMES.close(1))
    refused("wants weights of version 7 and this is 0: upgrade", lambda: val.commit_weights(1, ROW, SALT))
    chain.change("NetworksAdded", False)
    refused("subnet 3 does not exist on this chain", ledger_of(chain, BOB, TIMES).now)
    with pytest.raises(ValueError, match="a subnet's number"):
        MemoryChain(Subnet(netuid=0), OWNER) and ledger_of(MemoryChain(Subnet(netuid=0), OWNER), BOB, TIMES)


def test_rounds_shorter_than_the_chains_period_are_refused():
    chain = begun()
    chain.change("Tempo", 30)
    refused("an epoch every 30 blocks", ledger_of(chain, BOB, TIMES).now)


def test_weights_that_were_lost_are_not_sent_when_their_time_is_over():
    chain = begun()
    chain.faults = ["before"]
    val = ledger_of(chain, VAL, TIMES)
    refused("too late, an epoch has passed", lambda: val.commit_weights(0, ROW, SALT))
    assert not of(chain, "commit_weights")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (
            "TooManyUnrevealedCommits",
            "the chain did not take burned_register on subnet 3: TooManyUnrevealedCommits",
        ),
        ("NotEnoughBalanceToStake", "has not enough balance for burned_register"),
        ("NoNeuronIdAvailable", "all uids of subnet 3 are taken"),
        ("NonAssociatedColdKey", "belongs to another coldkey"),
        ("", "no reason given"),
    ],
)
def test_what_only_the_call_finds_out_is_told_too(name, match):
    chain = begun()
    client = chain.client(BOB, f"{BOB} pays")

    def submit(call, signer, *, lifetime):
        raise CallFailed(name, "s3cret")

    client.submit = submit
    told = refused(match, lambda: ledger_of(chain, BOB, TIMES, client=client).register_peer(BOB, "s3://bob"))
    assert "s3cret" not in str(told)


def test_too_early_says_how_many_blocks():
    chain = begun()
    val = ledger_of(chain, VAL, TIMES)
    early = refused(
        "too early: 24 blocks until the put window of round 1 closes",
        lambda: val.commit_weights(1, ROW, SALT),
    )
    assert isinstance(early, TooEarly)
    assert early.blocks == 24
    val.commit_weights(0, ROW, SALT)
    early = refused(
        "too early: 6 blocks until the weights of round 0 can be shown",
        lambda: val.reveal_weights(0, ROW, SALT),
    )
    assert chain.block + early.blocks == chain.next_epoch()
    chain.advance_to(chain.next_epoch())
    refused("too late, an epoch has passed", lambda: val.commit_weights(0, {ADA: 1.0}, SALT))
    chain.advance_to(chain.next_epoch())
    refused("too late, the reveal period is over", lambda: val.reveal_weights(0, ROW, SALT))


def test_a_rate_limit_is_waited_for_or_told():
    chain = begun(rate_limit=40)
    chain.change("LastUpdate", (0, 25, 0))
    val = ledger_of(chain, VAL, TIMES)
    early = refused(
        "too early: 35 blocks until subnet 3 takes weights", lambda: val.commit_weights(0, ROW, SALT)
    )
    assert early.blocks == 35
    chain.change("WeightsSetRateLimit", 7)
    ledger_of(chain, VAL, TIMES, wait_blocks=2).commit_weights(0, ROW, SALT)
    assert chain.slept == 2 * BLOCK_SECONDS
    assert len(of(chain, "commit_weights")) == 1


def test_a_longer_reveal_period_is_counted_out():
    chain = begun(reveal_period=2)
    val = ledger_of(chain, VAL, TIMES)
    val.commit_weights(0, ROW, SALT)
    chain.advance_to(chain.next_epoch())
    early = refused("can be shown", lambda: val.reveal_weights(0, ROW, SALT))
    assert early.blocks == 12
    chain.advance(12)
    val.reveal_weights(0, ROW, SALT)
    assert val.epoch(0) is None
    chain.advance(13)
    assert val.epoch(0).incentive[ADA] == pytest.approx(0.75, abs=1e-4)


def test_who_has_never_weighed_has_no_rate_limit():
    chain = begun(rate_limit=1000)
    ledger_of(chain, VAL, TIMES).commit_weights(0, ROW, SALT)
    assert len(of(chain, "commit_weights")) == 1


def test_a_second_commit_in_a_round_is_refused_where_the_chain_would_take_it():
    chain = begun(rate_limit=0)
    val = ledger_of(chain, VAL, TIMES)
    val.commit_weights(0, ROW, SALT)
    chain.advance(1)
    refused("is bound to other weights already", lambda: val.commit_weights(0, {ADA: 1.0}, SALT))
    refused("is bound to other weights already", lambda: val.commit_weights(0, ROW, bytes(32)))
    assert len(of(chain, "commit_weights")) == 1


def test_weights_of_before_are_not_those_of_this_round():
    """Although the very same row stands on the chain."""
    chain = begun()
    val = ledger_of(chain, VAL, TIMES)
    val.commit_weights(0, ROW, SALT)
    chain.advance_to(chain.next_epoch())
    val.reveal_weights(0, ROW, SALT)
    chain.advance_to(TIMES.close(1))
    refused("not bound to these weights", lambda: val.reveal_weights(1, ROW, SALT))
    assert val.weights(1) == {}


def test_who_registers_in_the_window_has_not_weighed_by_that():
    chain = begun(rate_limit=0)
    chain.stake(BOB, 5)
    ledger_of(chain, BOB, TIMES).register_peer(BOB, "s3://bob")
    chain.change("ValidatorPermit", (False, True, False, True))
    chain.advance(1)
    ledger_of(chain, BOB, TIMES).commit_weights(0, ROW, SALT)
    assert ("commit_weights", BOB) in chain.taken


def test_a_reveal_after_the_next_commit():
    """The newer commit hides when the older one was made, and does not make it too early."""
    times = BlockTimes(genesis=22, round_blocks=12, closes=6, confirmations=1)
    chain = begun()
    chain.advance_to(times.close(1))
    ledger_of(chain, VAL, times).commit_weights(1, ROW, SALT)
    chain.advance_to(times.close(2))
    ledger_of(chain, VAL, times).commit_weights(2, {ADA: 1.0}, SALT)
    ledger_of(chain, VAL, times).reveal_weights(1, ROW, SALT)
    ledger_of(chain, VAL, times).reveal_weights(1, ROW, SALT)
    assert len(of(chain, "reveal_weights")) == 1
    assert ledger_of(chain, VAL, times).weights(1)[VAL][ADA] == pytest.approx(0.75, abs=1e-4)


def test_an_endpoint_that_is_behind_turns_nothing_back():
    chain = begun()
    client = chain.client(BOB, f"{BOB} pays")
    ledger = ledger_of(chain, BOB, TIMES, client=client)
    now = ledger.now()
    client.head = lambda: 3
    assert ledger.round() == 0
    assert ledger.now() == now
    client.storage = lambda pallet, item, keys, block: 1_600_000_000_000
    assert ledger.now() == now


def test_weights_that_are_not_shown_yet_are_not_taken_for_the_older_ones():
    chain = begun()
    val = ledger_of(chain, VAL, TIMES)
    val.commit_weights(0, ROW, SALT)
    chain.advance_to(chain.next_epoch())
    val.reveal_weights(0, ROW, SALT)
    chain.advance_to(TIMES.close(1))
    val.commit_weights(1, {ADA: 1.0}, SALT)
    assert val.weights(1) == {}
    chain.advance_to(chain.next_epoch())
    assert val.weights(1) == {}
    val.reveal_weights(1, {ADA: 1.0}, SALT)
    assert val.weights(1) == {VAL: {ADA: 1.0}}
    assert {*val.weights(0)[VAL]} == {ADA, RESERVE}


def test_what_an_earlier_try_has_done_is_no_failure():
    chain = begun()
    client = chain.client(BOB, f"{BOB} pays")
    submit = client.submit

    def twice(call, signer, *, lifetime):
        submit(call, signer, lifetime=lifetime)
        raise CallFailed("HotKeyAlreadyRegisteredInSubNet", "registered")

    client.submit = twice
    assert ledger_of(chain, BOB, TIMES, client=client).register_peer(BOB, "s3://bob").slot == 3
