import hashlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet_jax.rewards.epoch import epoch_of
from gauntlet_jax.rewards.ledger import RESERVE
from gauntlet_jax.rewards.weight_commit import weights_digest
from gauntlet_jax.rewards.yuma import split_emission, to_u16, yuma

STAKES = {"V1": 3.0, "V2": 1.0}
PEERS = ["ada", "bob"]


def test_by_hand():
    weights = {"V1": {"ada": 2.0, "bob": 1.0, RESERVE: 1.0}, "V2": {"bob": 1.0}}
    epoch = epoch_of(4, weights, stakes=STAKES, peers=PEERS, bonds={}, emission=1001)
    assert epoch.round == 4
    assert epoch.consensus == {"ada": 0.5, "bob": 0.25, RESERVE: 0.25}
    assert epoch.trust == {"V1": 1.0, "V2": 0.25}
    assert epoch.incentive == pytest.approx({"ada": 6 / 13, "bob": 4 / 13, RESERVE: 3 / 13})
    assert epoch.dividends == pytest.approx({"V1": 12 / 13, "V2": 1 / 13})
    assert epoch.bonds == {"V1": {"ada": 65535, "bob": 65535, RESERVE: 65535}, "V2": {"bob": 21845}}
    assert epoch.payouts == {"ada": 231, "bob": 154, "V1": 462, "V2": 38}
    assert (epoch.reserve, epoch.remainder, epoch.emission) == (115, 1, 1001)


def test_only_peers_of_the_round_and_validators_with_a_stake_count():
    plain = epoch_of(0, {"V1": {"ada": 1.0, "bob": 1.0}}, stakes=STAKES, peers=PEERS, bonds={}, emission=100)
    noisy = epoch_of(
        0,
        {"V1": {"ada": 1.0, "bob": 1.0, "left": 7.0, "V2": 5.0}, "nobody": {"ada": 1.0}},
        stakes=STAKES,
        peers=PEERS,
        bonds={"V9": {"ada": 5}, "V1": {"left": 9}},
        emission=100,
    )
    assert noisy == plain
    assert plain.trust == {"V1": 1.0}
    assert plain.dividends == {"V1": 1.0, "V2": 0.0}
    assert "V2" not in plain.bonds
    assert "V2" not in plain.payouts


def test_nobody_weighs_and_nobody_is_there():
    for peers in (PEERS, []):
        epoch = epoch_of(0, {}, stakes=STAKES, peers=peers, bonds={}, emission=101)
        # Silence earns nothing, though a chain would pay by stake.
        assert (epoch.payouts, epoch.reserve, epoch.remainder) == ({}, 101, 0)
    epoch = epoch_of(0, {}, stakes={}, peers=[], bonds={}, emission=101)
    assert (epoch.payouts, epoch.reserve) == ({}, 101)
    # All for nobody: the validators who say so are paid for it, and no peer is.
    weights = {name: {RESERVE: 1.0} for name in STAKES}
    epoch = epoch_of(0, weights, stakes=STAKES, peers=PEERS, bonds={}, emission=1000)
    assert (epoch.payouts, epoch.reserve) == ({"V1": 375, "V2": 125}, 500)


def test_who_was_vetoed_has_no_say_unless_everybody_was():
    weights = {"V1": {"a": 1.0}, "V2": {"b": 1.0}, "V3": {"b": 1.0}}
    given = {"stakes": {"V1": 6.0, "V2": 2.0, "V3": 3.0}, "peers": ["a", "b"], "bonds": {}, "emission": 1000}
    heard, vetoed = epoch_of(0, weights, **given), epoch_of(0, weights, **given, vetoed=["V1"])
    assert (heard.payouts["a"], heard.payouts.get("b", 0)) == (500, 0)
    assert (vetoed.payouts.get("a", 0), vetoed.payouts["b"]) == (0, 500)
    assert "V1" not in vetoed.payouts and set(vetoed.trust) == {"V2", "V3"}
    assert epoch_of(0, weights, **given, vetoed=["V1", "V2", "V3"]) == heard


def test_stakes_are_the_numbers_that_are_written():
    """A tenth and two tenths are exactly three tenths, and not so the floats next to them: each half has its say."""
    stakes = {"a": 0.1, "b": 0.2, "c": 0.3}
    weights = {"a": {"ada": 1.0}, "b": {"ada": 1.0}, "c": {"bob": 1.0}}
    epoch = epoch_of(0, weights, stakes=stakes, peers=PEERS, bonds={}, emission=400)
    assert epoch.incentive == {"ada": 0.5, "bob": 0.5, RESERVE: 0.0}
    assert epoch.payouts == {"ada": 100, "bob": 100, "a": 33, "b": 66, "c": 100}


def test_the_next_epoch_goes_on_from_the_bonds_of_this_one():
    first = epoch_of(0, {"V1": {"ada": 1.0}}, stakes=STAKES, peers=PEERS, bonds={}, emission=0)
    both = {"V1": {"ada": 1.0}, "V2": {"ada": 1.0}}
    second = epoch_of(1, both, stakes=STAKES, peers=PEERS, bonds=first.bonds, emission=0)
    # V2 holds a tenth of what it would hold in the long run.
    assert second.dividends == pytest.approx({"V1": 0.975, "V2": 0.025})
    assert epoch_of(1, both, stakes=STAKES, peers=PEERS, bonds={}, emission=0).dividends == pytest.approx(
        {"V1": 0.75, "V2": 0.25}
    )


NAMES = ["ada", "bob", "cleo", "dov"]
ROWS = st.dictionaries(st.sampled_from([*NAMES, RESERVE]), st.integers(0, 65535).map(float))
CASES = st.tuples(
    st.dictionaries(st.sampled_from(["V1", "V2", "V3"]), ROWS),
    st.fixed_dictionaries({name: st.integers(1, 1000).map(lambda n: n / 10) for name in ("V1", "V2", "V3")}),
    st.lists(st.sampled_from(NAMES), unique=True),
    st.dictionaries(
        st.sampled_from(["V1", "V2", "V3"]),
        st.dictionaries(st.sampled_from([*NAMES, RESERVE]), st.integers(0, 65535)),
    ),
    st.one_of(st.integers(0, 100), st.integers(0, 2**63 - 1), st.just(2**63 - 1)),
)


@given(CASES, st.randoms(use_true_random=False))
@settings(max_examples=120, deadline=None)
def test_an_epoch_gives_out_its_emission_to_the_unit_in_any_order_of_names(case, random):
    weights, stakes, peers, bonds, emission = case
    epoch = epoch_of(0, weights, stakes=stakes, peers=peers, bonds=bonds, emission=emission)
    assert sum(epoch.payouts.values()) + epoch.reserve + epoch.remainder == emission == epoch.emission
    assert all(units > 0 for units in epoch.payouts.values())
    assert epoch.reserve >= 0
    assert 0 <= epoch.remainder <= len(peers) + 1 + len(stakes)
    assert {*epoch.payouts} <= {*peers, *stakes}

    def mixed(table):
        return dict(random.sample(list(table.items()), len(table)))

    again = epoch_of(
        0,
        {name: mixed(row) for name, row in mixed(weights).items()},
        stakes=mixed(stakes),
        peers=random.sample(peers, len(peers)),
        bonds=mixed(bonds),
        emission=emission,
    )
    assert again == epoch


def test_it_is_yuma_by_names():
    chance = random.Random(2)
    for _ in range(30):
        weights = {name: {peer: chance.randrange(9) for peer in [*NAMES, RESERVE]} for name in ("V1", "V2")}
        bonds = {name: {peer: chance.randrange(65536) for peer in [*NAMES, RESERVE]} for name in STAKES}
        epoch = epoch_of(0, weights, stakes=STAKES, peers=NAMES, bonds=bonds, emission=10**9)
        uids = ["V1", "V2", *NAMES, RESERVE]
        matrices = [
            np.array([[table.get(i, {}).get(j, 0) for j in uids] for i in uids], float)
            for table in (weights, bonds)
        ]
        stakes = [3, 1, 0, 0, 0, 0, 0]
        found = yuma(matrices[0], stakes, matrices[1], np.array([True, True, *[False] * 5]))
        peers, validators, remainder = split_emission(found.incentive, found.dividends, stakes, 10**9)
        assert [epoch.consensus[name] for name in uids[2:]] == found.consensus[2:].tolist()
        assert [epoch.incentive[name] for name in uids[2:]] == found.incentive[2:].tolist()
        assert [epoch.dividends[name] for name in STAKES] == found.dividends[:2].tolist()
        assert [epoch.trust[name] for name in STAKES] == found.trust[:2].tolist()
        held = [[epoch.bonds.get(i, {}).get(j, 0) for j in uids[2:]] for i in STAKES]
        assert held == to_u16(found.bonds)[:2, 2:].tolist()
        paid = [epoch.payouts.get(name, 0) for name in uids[:-1]]
        assert [*paid, epoch.reserve] == (peers + validators).tolist()
        assert epoch.remainder == remainder


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"weights": {"V1": {"ada": -1.0}}}, "at least 0"),
        ({"weights": {"V1": {"ada": float("nan")}}}, "finite"),
        ({"emission": -1}, "emission"),
        ({"emission": 2**63}, "emission"),
    ],
)
def test_what_is_out_of_range_is_refused(change, match):
    given = {"weights": {}, "stakes": STAKES, "peers": PEERS, "bonds": {}, "emission": 1} | change
    with pytest.raises(ValueError, match=match):
        epoch_of(0, given.pop("weights"), **given)


def test_a_commit_binds_everything_that_is_shown():
    salt = bytes(range(32))
    row = {"bob": 0.1, "ada": 2.0}
    text = f'["gauntlet weights",7,"V1",{{"ada":2.0,"bob":0.1}},"{salt.hex()}"]'
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert weights_digest(7, "V1", row, salt) == digest
    assert weights_digest(7, "V1", {"ada": 2, "bob": 0.1}, salt) == digest
    others = [
        (8, "V1", row, salt),
        (7, "V2", row, salt),
        (7, "V1", {**row, "ada": 2.0000000000000004}, salt),
        (7, "V1", {**row, "cleo": 0.0}, salt),
        (7, "V1", {"ada": 2.0}, salt),
        (7, "V1", row, salt[::-1]),
    ]
    assert len({digest, *(weights_digest(*other) for other in others)}) == len(others) + 1
    assert weights_digest(0, "V", {"a": 0.0}, salt) == weights_digest(0, "V", {"a": -0.0}, salt)
    for wrong in ((7, "V1", row, salt[:-1]), (7, "V1", {"ada": float("inf")}, salt)):
        with pytest.raises(ValueError, match=r"32 bytes|finite"):
            weights_digest(*wrong)
