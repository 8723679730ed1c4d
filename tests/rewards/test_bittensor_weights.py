import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_chain import ss58

from gauntlet_jax.rewards.chain_weights import (
    WeightRow,
    WeightRules,
    account_of,
    commit_hash,
    reveal_weights,
    salt_words,
    weight_row,
)

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
SALT = bytes(range(32))
FREE = WeightRules(size=16, min_allowed=0, max_limit=65535, version_key=0)


def test_the_largest_weight_is_65535_and_the_others_in_proportion():
    # 28086 / 65535 and 43690 / 65535 of the largest, as they were set on a chain.
    row = weight_row({3: 65535.0, 5: 28086.0}, FREE)
    assert row == WeightRow((3, 5), (65535, 28086))
    assert weight_row({5: 0.2, 3: 0.3}, FREE) == WeightRow((3, 5), (65535, 43690))
    assert weight_row({3: 1e-300, 5: 0.0}, FREE) == WeightRow((3,), (65535,))
    assert weight_row({3: 1.0, 5: 1e-6}, FREE) == WeightRow((3,), (65535,))


def test_a_short_row_is_filled_with_zeros():
    row = weight_row({1: 2.0, 4: 1.0}, FREE._replace(size=6, min_allowed=1024))
    assert row == WeightRow((0, 1, 2, 3, 4, 5), (0, 65535, 0, 0, 32768, 0))
    assert row.entries == {1: 65535, 4: 32768}
    assert weight_row({1: 2.0, 4: 1.0}, FREE._replace(min_allowed=3)).uids == (0, 1, 4)


def test_nobody_has_more_than_the_limit():
    half = FREE._replace(max_limit=32768)
    row = weight_row({1: 0.8, 2: 0.1, 3: 0.1}, half)
    assert row.values[1] == row.values[2]
    total = sum(row.values)
    assert 0.499 < row.values[0] / total <= 32768 / 65535
    # Clipping the first lifts the second over the limit too.
    third = weight_row({1: 0.6, 2: 0.3, 3: 0.05, 4: 0.05}, FREE._replace(max_limit=21845))
    assert max(third.values) / sum(third.values) <= 21845 / 65535
    assert third.values[0] == third.values[1] > third.values[2] == third.values[3]
    assert weight_row({1: 0.5, 2: 0.5}, FREE._replace(max_limit=40000)).values == (65535, 65535)
    with pytest.raises(ValueError, match="takes more of them"):
        weight_row({1: 0.8, 2: 0.2}, FREE._replace(max_limit=20000))
    # What rounds to nothing does not become a fifth by it.
    with pytest.raises(ValueError, match="takes more of them"):
        weight_row({0: 1.0, 1: 1.0, 2: 1.0, 3: 3.0, 4: 2.2e-309}, FREE._replace(max_limit=13109))


def test_no_weights_are_no_row():
    with pytest.raises(ValueError, match="all weights are 0"):
        weight_row({1: 0.0}, FREE)


@given(
    st.dictionaries(st.integers(0, 15), st.floats(0, 1e6), min_size=1),
    st.integers(1, 65535),
    st.integers(0, 20),
)
def test_any_row_keeps_the_rules(shares, limit, least):
    rules = WeightRules(16, least, limit, 0)
    try:
        row = weight_row(shares, rules)
    except ValueError:
        assert not any(shares.values()) or limit < 65535
        return
    assert list(row.uids) == sorted({*row.uids})
    assert len(row.uids) >= min(16, least)
    assert max(row.values) == 65535
    assert {uid for uid, value in row.entries.items() if value} <= {u for u, s in shares.items() if s}
    assert limit == 65535 or max(row.values) * 65535 <= limit * sum(row.values)


def test_an_address_is_decoded():
    assert account_of(ALICE).hex() == "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"
    assert len(account_of(ss58("ada"))) == 32
    for wrong in ("", "5", ALICE[:-1], ALICE[:-1] + "Z", ALICE + "1", "0" + ALICE[1:], "1" * 48, "z" * 65):
        with pytest.raises(ValueError, match="no ss58 address"):
            account_of(wrong)


def test_the_commit_is_the_chains_own_hash():
    """The constants are blake2b over what the chain's kit encodes for the reveal, behind the account."""
    row = WeightRow((1, 2, 300), (5, 65535, 7))
    expected = "d99beefceec2207edf47514ba12eff68ad42c34d477c56cce7579888b19ccd7e"
    assert commit_hash(ALICE, 3, row, SALT, 9).hex() == expected
    # 200 entries: their number takes two bytes.
    long = WeightRow(tuple(range(200)), tuple(range(200)))
    expected = "8303a9b9daadab9ae65b2ef2c065611b878636c42f2247dd133f45e7d7e1eee3"
    assert commit_hash(ALICE, 3, long, SALT, 9).hex() == expected
    other = {
        commit_hash(ss58("ada"), 3, row, SALT, 9),
        commit_hash(ALICE, 4, row, SALT, 9),
        commit_hash(ALICE, 3, row, bytes(32), 9),
        commit_hash(ALICE, 3, row, SALT, 8),
        commit_hash(ALICE, 3, WeightRow((1, 2, 300), (5, 65535, 8)), SALT, 9),
        commit_hash(ALICE, 3, row, SALT, 9),
    }
    assert len(other) == 6


def test_a_salt_is_sixteen_words():
    assert salt_words(SALT)[:3] == [0x0100, 0x0302, 0x0504]
    assert np.array(salt_words(SALT), "<u2").tobytes() == SALT
    call = reveal_weights(3, WeightRow((1,), (65535,)), SALT, 9)
    assert call.arguments["salt"] == salt_words(SALT)
    with pytest.raises(ValueError, match="32 bytes"):
        salt_words(bytes(31))
