"""The Bittensor ledger where the battery does not look: numbers of a real chain, subnets of other settings, strangers' bytes."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_chain import BLOCK_SECONDS, MemoryChain, Subnet, key_of, ledger_of, ss58

from gauntlet_jax.rewards.block_times import BlockTimes
from gauntlet_jax.rewards.chain_client import Call, ChainDown
from gauntlet_jax.rewards.ledger import REMAINDER, RESERVE, LedgerRefused, NotYetKnown
from gauntlet_jax.rewards.subnet_view import SubnetView

OWNER, V1, V2, V3, M1, M2, M3 = (ss58(name) for name in ("owner", "V1", "V2", "V3", "M1", "M2", "M3"))
TIMES = BlockTimes(genesis=26, round_blocks=24, closes=4, confirmations=1, block_seconds=BLOCK_SECONDS)
SALT = bytes(range(32))
STAKES = {V1: 5000, V2: 3000, V3: 2000}


def begun(times=TIMES, stakes=STAKES, peers=(M1, M2), **rules):
    chain = MemoryChain(Subnet(**rules), OWNER)
    for name in (OWNER, *stakes, *peers):
        chain.fund(f"{name} pays", 5000)
        call = Call("SubtensorModule", "burned_register", {"netuid": 3, "hotkey": name})
        chain.client(name, f"{name} pays").submit(call, "coldkey", lifetime=16)
    for name, stake in stakes.items():
        chain.stake(name, stake)
    chain.advance_to(times.genesis - 1)
    return chain


def play(chain, times, round, weights):
    """A round on a subnet that demands commits, in rounds of two epochs."""
    chain.advance_to(times.close(round))
    for name, row in weights.items():
        ledger_of(chain, name, times).commit_weights(round, row, SALT)
    chain.advance_to(chain.next_epoch())
    for name, row in weights.items():
        ledger_of(chain, name, times).reveal_weights(round, row, SALT)
    chain.advance_to(chain.next_epoch() + times.confirmations)
    return ledger_of(chain, OWNER, times)


def test_the_numbers_of_a_real_chain_come_out():
    """Measured on a runtime: three validators, two peers, u16 weights; consensus to 1 unit of u16, emission to 10."""
    chain = begun(emission=9_020_050_347)
    weights = {
        V1: {M1: 65535.0, M2: 28086.0},
        V2: {M1: 65535.0, M2: 43690.0},
        V3: {M1: 7282.0, M2: 65535.0},
    }
    ledger = play(chain, TIMES, 0, weights)
    epoch = ledger.epoch(0)
    for name, table, expected in (
        ("consensus", epoch.consensus, {M1: 45874, M2: 26213}),
        ("incentive", epoch.incentive, {M1: 40049, M2: 25485}),
        ("dividends", epoch.dividends, {V1: 36408, V2: 21844, V3: 7281}),
        ("trust", epoch.trust, {V1: 65534, V2: 65534, V3: 32767}),
    ):
        assert {k: v for k, v in table.items() if v} == {
            k: pytest.approx(v / 65535, abs=1.5 / 65535) for k, v in expected.items()
        }, name
    paid = {V1: 2505567253, V2: 1503340343, V3: 501117572, M1: 2756136129, M2: 1753889041}
    assert epoch.payouts == {name: pytest.approx(units, abs=10) for name, units in paid.items()}
    assert (epoch.reserve, epoch.remainder) == (0, 0)
    assert epoch.emission == pytest.approx(9_020_050_347, abs=10)
    assert epoch.bonds[V1][M1] == 65535
    # The row is what was sent, in the chain's own units.
    assert chain.state("SubtensorModule", "Weights", (3, 1))[4:] == ((4, 65535), (5, 28086))
    assert ledger.balances() == {**epoch.payouts, RESERVE: 0, REMAINDER: 0}
    assert ledger.history(M2) == {0: epoch.payouts[M2]}
    assert ledger.history("nobody") == {}


def test_what_is_given_to_the_owner_is_the_reserve():
    chain = begun()
    row = {M1: 1.0, RESERVE: 3.0}
    ledger = play(chain, TIMES, 0, dict.fromkeys(STAKES, row))
    epoch = ledger.epoch(0)
    assert epoch.incentive == {
        M1: pytest.approx(0.25, abs=1e-4),
        M2: 0,
        RESERVE: pytest.approx(0.75, abs=1e-4),
    }
    assert OWNER not in epoch.payouts
    assert epoch.reserve == pytest.approx(3 * epoch.payouts[M1], rel=1e-4)
    assert ledger.balances()[RESERVE] == epoch.reserve
    assert OWNER not in {entry.name for entry in ledger.registrations(0)}
    assert ledger.weights(0)[V1] == {
        M1: pytest.approx(0.25, abs=1e-4),
        RESERVE: pytest.approx(0.75, abs=1e-4),
    }


def test_where_all_weights_are_zero_the_reserve_has_all():
    chain = begun()
    ledger = play(chain, TIMES, 0, {key: {M1: 0.0} for key in STAKES})
    assert ledger.weights(0) == {key: {RESERVE: 1.0} for key in STAKES}
    assert ledger.epoch(0).incentive[RESERVE] == 1.0


def test_an_owner_that_validates_keeps_its_dividends():
    chain = begun(stakes={V1: 5000, V2: 4000}, peers=(M1,))
    chain.stake(OWNER, 3000)
    chain.advance_to(TIMES.genesis - 1 + 24)
    times = BlockTimes(genesis=chain.block + 1, round_blocks=24, closes=4, confirmations=1)
    ledger = play(chain, times, 0, {key: {M1: 1.0, RESERVE: 1.0} for key in (V1, V2)} | {OWNER: {M1: 1.0}})
    epoch = ledger.epoch(0)
    entry = next(entry for entry in ledger.registrations(0) if entry.name == OWNER)
    assert (entry.slot, entry.stake) == (None, pytest.approx(0.25, abs=1e-4))
    assert epoch.dividends[OWNER] > 0
    units = chain.state("SubtensorModule", "Emission", (3,), times.start(1) - 2)[0]
    assert epoch.reserve + epoch.payouts[OWNER] == units
    assert epoch.payouts[OWNER] / units == pytest.approx(
        epoch.dividends[OWNER] / (epoch.dividends[OWNER] + epoch.incentive[RESERVE]), rel=1e-3
    )


def test_a_subnet_without_commits():
    """A commit only checks, the reveal sets, and the next epoch is the round's."""
    chain = begun(commits=False)
    chain.advance_to(TIMES.close(0))
    row = {M1: 3.0, M2: 1.0}
    for name in STAKES:
        ledger = ledger_of(chain, name, TIMES)
        ledger.commit_weights(0, row, SALT)
        assert ledger.weights(0) == {}
    for name in STAKES:
        ledger_of(chain, name, TIMES).reveal_weights(0, row, SALT)
    ledger = ledger_of(chain, V1, TIMES)
    ledger.reveal_weights(0, row, bytes(32))
    with pytest.raises(LedgerRefused, match="not bound to these weights"):
        ledger.reveal_weights(0, {M1: 1.0}, SALT)
    with pytest.raises(LedgerRefused, match="too early"):
        ledger.reveal_weights(1, row, SALT)
    shown = {name: {M1: pytest.approx(0.75, abs=1e-4), M2: pytest.approx(0.25, abs=1e-4)} for name in STAKES}
    assert ledger.weights(0) == shown
    assert ledger.epoch(0) is None
    chain.advance_to(chain.next_epoch() + 1)
    assert ledger.epoch(0).incentive[M1] == pytest.approx(0.75, abs=1e-4)
    with pytest.raises(LedgerRefused, match="not bound to these weights"):
        ledger.reveal_weights(0, {M2: 1.0}, SALT)
    assert ledger.weights(0) == shown
    assert ledger.weights(1) == {}
    assert [call[0] for call in chain.taken].count("set_weights") == 3


def test_rounds_of_one_epoch_overlap():
    """The chain's own pace: while round t + 1 is played, the weights of round t are shown, and counted at the end of it."""
    times = BlockTimes(genesis=22, round_blocks=12, closes=6, confirmations=1)
    chain = begun(times=times)  # epochs at 24, 36, 48: two blocks after a round begins
    rows = [{M1: 1.0}, {M2: 1.0}, {M1: 1.0, M2: 1.0}]
    for round, row in enumerate(rows):
        chain.advance_to(times.close(round))
        for name in STAKES:
            ledger_of(chain, name, times).commit_weights(round, row, SALT)
        chain.advance_to(chain.next_epoch() + 1)
        if round:
            assert ledger_of(chain, V1, times).epoch(round - 1) is not None
        assert ledger_of(chain, V1, times).epoch(round) is None
        for name in STAKES:
            ledger_of(chain, name, times).reveal_weights(round, row, SALT)
    chain.advance_to(chain.next_epoch() + 1)
    ledger = ledger_of(chain, V1, times)
    assert [ledger.epoch(t).incentive[M1] for t in range(3)] == [1.0, 0.0, pytest.approx(0.5, abs=1e-4)]
    assert [ledger.weights(t)[V1].get(M1, 0.0) for t in range(3)] == [1.0, 0.0, 0.5]
    assert list(ledger.history(M1)) == [0, 2]
    assert sum(ledger.balances().values()) == pytest.approx(3 * chain.subnet.emission, abs=30)


def test_an_epoch_that_two_rounds_share_pays_once():
    """Rounds of 11 blocks under epochs of 12."""
    times = BlockTimes(genesis=25, round_blocks=11, closes=4, confirmations=1)
    chain = begun(times=times, commits=False)
    chain.advance_to(25 + 11 * 30)
    ledger = ledger_of(chain, V1, times)
    epochs = [epoch for t in range(29) if (epoch := ledger.epoch(t)) is not None]
    assert len(epochs) > 25
    paid = [epoch.emission for epoch in epochs]
    assert {*paid} == {0, paid[0]}
    assert paid.count(0) >= 2
    assert sum(ledger.balances().values()) == sum(paid)


def test_registrations_of_a_round_stay_and_say_who_has_left():
    chain = begun(max_uids=6)
    chain.advance_to(TIMES.start(1) + 2)
    chain.fund(f"{M3} pays", 5000)
    before = ledger_of(chain, M3, TIMES).registrations(1)
    came = ledger_of(chain, M3, TIMES).register_peer(M3, "s3://m3")
    chain.advance_to(TIMES.start(4))
    ledger = ledger_of(chain, V1, TIMES)
    assert (came.from_round, came.slot) == (2, 4)
    assert [entry._replace(until_round=None) for entry in ledger.registrations(1)] == before
    assert {entry.name: entry.until_round for entry in ledger.registrations(1)} == {
        **dict.fromkeys((*STAKES, M2)),
        M1: 2,
    }
    assert {entry.name for entry in ledger.registrations(2)} == {*STAKES, M2, M3}
    assert came in ledger.registrations(2)
    assert next(e for e in ledger.registrations(2) if e.name == V1).registered_at == 1_700_000_000.0


def test_a_uid_that_went_through_several_hands():
    chain = begun(max_uids=6)
    M4 = ss58("M4")
    for round, name in ((1, M3), (3, M4)):
        chain.advance_to(TIMES.start(round) + 2)
        chain.fund(f"{name} pays", 5000)
        if name == M4:
            # M2 earns something, so that the newcomer's uid is the one that goes.
            emission = chain.state("SubtensorModule", "Emission", (3,))
            chain.change("Emission", (*emission[:5], 9))
        ledger_of(chain, name, TIMES).register_peer(name, f"s3://{round}")
    chain.advance_to(TIMES.start(6))
    ledger = ledger_of(chain, V1, TIMES)
    assert {entry.name: entry.until_round for entry in ledger.registrations(0)} == {
        **dict.fromkeys((*STAKES, M2)),
        M1: 2,
    }
    assert {entry.name: entry.until_round for entry in ledger.registrations(2)}[M3] == 4


def test_who_loses_its_permit_by_an_epoch_has_weighed_in_it():
    chain = begun(max_validators=3)
    chain.advance_to(TIMES.close(0))
    for name in STAKES:
        ledger_of(chain, name, TIMES).commit_weights(0, {M1: 1.0}, SALT)
    chain.advance_to(chain.next_epoch())
    for name in STAKES:
        ledger_of(chain, name, TIMES).reveal_weights(0, {M1: 1.0}, SALT)
    chain.stake(V3, 0)
    chain.advance_to(chain.next_epoch() + 1)
    epoch = ledger_of(chain, V1, TIMES).epoch(0)
    assert {*epoch.trust} == {*epoch.dividends} == {V1, V2, V3}
    assert M2 in epoch.consensus


def test_a_weight_on_a_uid_that_changed_hands_is_dropped():
    chain = begun(max_uids=6)
    chain.advance_to(TIMES.close(0) + 1)
    chain.fund(f"{M3} pays", 5000)
    ledger_of(chain, M3, TIMES).register_peer(M3, "s3://m3")
    chain.advance(1)
    val = ledger_of(chain, V1, TIMES)
    val.commit_weights(0, {M1: 1.0, M2: 1.0}, SALT)
    chain.advance_to(chain.next_epoch())
    ledger_of(chain, V1, TIMES).reveal_weights(0, {M1: 1.0, M2: 1.0}, SALT)
    assert val.weights(0) == {V1: {M2: 1.0}}


def test_a_bucket_below_a_url():
    chain = begun()
    address, url = "s3://bucket?" + "k" * 100, "https://example.org/bucket"
    pages = {url: address.encode()}

    def fetch(url, most):
        asked.append(url)
        if url not in pages:
            raise OSError("nothing there")
        return pages[url]

    asked = []
    M1s = ledger_of(chain, M1, TIMES, fetch=fetch, url=url)
    assert M1s.register_peer(M1, address).bucket == address
    with pytest.raises(LedgerRefused, match="something else than it committed to"):
        M1s.register_peer(M1, address + "x")
    with pytest.raises(LedgerRefused, match="nothing to be read below its URL"):
        ledger_of(chain, M2, TIMES, fetch=fetch, url=url + "/m2").register_peer(M2, address)
    reader = ledger_of(chain, V1, TIMES, fetch=fetch)
    del pages[url]
    del asked[:]
    blind = {entry.name: entry for entry in reader.registrations(None)}
    assert (blind[M1].bucket, blind[M1].public_key) == ("", "")
    assert reader.without_bucket()[M1] == "nothing to be read below its URL"
    assert asked == [url]  # and not at each look
    pages[url] = address.encode()
    chain.advance(25)
    assert {e.name: e.bucket for e in reader.registrations(None)}[M1] == address
    reader.registrations(None)
    assert asked == [url] * 2


def test_many_slow_urls_are_not_all_waited_for_at_once():
    peers = tuple(ss58(f"peer {i}") for i in range(9))
    chain = begun(peers=peers)
    for i, name in enumerate(peers):
        link = b"\x02" + bytes([i] * 64) + f"https://example.org/{i}".encode()
        chain.commit_bytes(name, [{f"Raw{len(link)}": "0x" + link.hex()}])

    def fetch(url, most):
        asked.append(url)
        raise OSError("after a long while")

    asked = []
    reader = ledger_of(chain, V1, TIMES, fetch=fetch)
    for looks, expected in ((1, 4), (2, 8), (3, 9), (4, 9)):
        reasons = reader.without_bucket()
        assert len(asked) == len({*asked}) == expected
        unread = [reason for reason in reasons.values() if reason == "its URL has not been looked at yet"]
        assert len(unread) == max(0, 9 - 4 * looks)


def test_a_signing_key_is_its_first_claimers():
    chain = begun()
    ledger_of(chain, M1, TIMES).register_peer(M1, "s3://m1")
    chain.advance(1)
    theft = b"\x01" + bytes.fromhex(key_of(M1)) + b"s3://theft"
    chain.commit_bytes(M2, [{f"Raw{len(theft)}": "0x" + theft.hex()}])
    reader = ledger_of(chain, V1, TIMES)
    found = {entry.name: (entry.bucket, entry.public_key) for entry in reader.registrations(None)}
    assert found[M1] == ("s3://m1", key_of(M1))
    assert found[M2] == ("", "")
    assert reader.without_bucket()[M2] == "its signing key is another node's"
    # Whoever moves comes second to who has claimed its key meanwhile, and is told.
    chain.advance(1)
    with pytest.raises(LedgerRefused, match="its signing key is another node's"):
        ledger_of(chain, M1, TIMES).register_peer(M1, "s3://moved")


GOOD = b"\x01" + bytes(32) + b"s3://x"


@pytest.mark.parametrize(
    ("fields", "bucket"),
    [
        ([{f"Raw{len(GOOD)}": "0x" + GOOD.hex()}], "s3://x"),
        ([[{f"Raw{len(GOOD)}": list(GOOD)}]], "s3://x"),
        ([{f"Raw{len(GOOD)}": GOOD}], "s3://x"),
        ([{f"Raw{len(GOOD)}": "0x" + GOOD.hex()}, {"Raw1": "0x00"}], ""),
        ([{"Sha256": "0x" + GOOD.hex()}], ""),
        ([{"Raw200": "0x" + "00" * 200}], ""),
        ([{"Raw5": "0xzz"}], ""),
        ([{"Raw5": "hello"}], ""),
        ([{"Raw5": [1, 2, 300]}], ""),
        ([{"Raw5": 7}], ""),
        ([{7: "0x00"}], ""),
        (["None"], ""),
        ([], ""),
        ("x", ""),
        (None, ""),
    ],
)
def test_whatever_a_stranger_commits_to_is_a_bucket_or_none(fields, bucket):
    chain = begun()
    chain.commit_bytes(M1, fields)
    reader = ledger_of(chain, V1, TIMES)
    found = {entry.name: entry.bucket for entry in reader.registrations(None)}
    assert found == {**dict.fromkeys((*STAKES, M2), ""), M1: bucket}
    assert bool(reader.without_bucket().get(M1)) == (bucket == "")


class Liar:
    """An endpoint that says anything."""

    def __init__(self, answer):
        self.hotkey = self.coldkey = V1
        self.answer = answer

    def storage(self, pallet, item, keys, block):
        return self.answer

    def storage_map(self, pallet, item, keys, block):
        return self.answer


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(st.tuples(inner, inner), max_size=3)
            | st.dictionaries(st.sampled_from(["data", "free", "info", "fields", "block"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_an_answer_of_another_shape_is_no_answer(answer):
    view = SubnetView(Liar(answer), 3, None)
    for read in (
        lambda: view.number("Burn", 5),
        lambda: view.time(5),
        lambda: view.free_balance(V1, 5),
        lambda: view.uid_of(V1, 5),
        lambda: view.neurons(5),
        lambda: view.weights(5),
        lambda: view.row(1, 5),
        lambda: view.open_commits(5),
        lambda: view.own_commits(V1, 5),
        lambda: view.terms(5),
        lambda: view.last_epoch(5),
        lambda: view.commitments(5),
        lambda: view.commitment(V1, 5),
    ):
        try:
            read()
        except ChainDown as error:
            assert "none of this chain" in str(error)


@pytest.mark.parametrize("answer", [[0] * 4097, [(0, True)], True, 2**129, -1, 1.0])
def test_answers_without_bounds_are_no_answers(answer):
    view = SubnetView(Liar(answer), 3, None)
    for read in (lambda: view.terms(5), lambda: view.number("Burn", 5), lambda: view.row(1, 5)):
        with pytest.raises(ChainDown, match="none of this chain"):
            read()


def test_beacons_are_the_hashes_of_blocks_that_are_settled():
    chain = begun()
    reader = ledger_of(chain, V1, TIMES)
    assert reader.round() is None
    chain.advance_to(TIMES.start(0))
    assert reader.round() == 0
    with pytest.raises(NotYetKnown, match="opening beacon of round 0 is the hash of block 26"):
        reader.beacon(0, "opening")
    chain.advance(1)
    assert reader.beacon(0, "opening") == hashlib.blake2b(b"block 26", digest_size=32).digest()
    chain.advance_to(TIMES.close(0) + 1)
    assert reader.beacon(0, "closing") == hashlib.blake2b(b"block 30", digest_size=32).digest()
    with pytest.raises(ValueError, match="rounds count from 0"):
        reader.beacon(-1, "closing")
    assert reader.now() == 1_700_000_000 + 31 * 12


def test_rounds_from_blocks():
    assert [TIMES.round_at(block) for block in (25, 26, 49, 50)] == [None, 0, 0, 1]
    assert [TIMES.first_after(block) for block in (0, 25, 26, 49, 50)] == [0, 0, 1, 1, 2]
    assert (TIMES.start(2), TIMES.close(2)) == (74, 78)
    for wrong in (
        {"genesis": 0},
        {"closes": 0},
        {"closes": 24},
        {"confirmations": -1},
        {"block_seconds": 0.0},
    ):
        with pytest.raises(ValueError, match=r"must|begins"):
            BlockTimes(**{"genesis": 26, "round_blocks": 24, "closes": 4} | wrong)
