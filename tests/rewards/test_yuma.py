from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet_jax.rewards.yuma import KAPPA, max_upscaled, split_emission, to_u16, yuma

STAKES = [5000, 3000, 2000, 0, 0]
WEIGHTS = np.zeros((5, 5))
WEIGHTS[:3, 3:] = [[65535, 28086], [65535, 43690], [7282, 65535]]
PERMITS = np.array([True, True, True, False, False])
NONE = np.zeros((5, 5))


def oracle(weights, stakes, bonds, permits, kappa=KAPPA, moving_average=0.9, penalty=1.0):
    """The same in plain Python, a peer at a time, with the consensus found by bisection as a chain does it."""
    n = len(stakes)
    total = sum(stake for stake, may in zip(stakes, permits, strict=True) if may)
    share = [stake / total if may and total else 0.0 for stake, may in zip(stakes, permits, strict=True)]
    rows = []
    for i in range(n):
        row = [weights[i][j] if permits[i] and i != j else 0.0 for j in range(n)]
        rows.append([w / sum(row) if sum(row) else 0.0 for w in row])
    consensus = []
    for j in range(n):
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            if sum(a for i, a in enumerate(share) if rows[i][j] >= middle) >= float(kappa):
                low = middle
            else:
                high = middle
        consensus.append(low)
    clipped = [[min(rows[i][j], consensus[j]) for j in range(n)] for i in range(n)]
    rank = [sum(share[i] * clipped[i][j] for i in range(n)) for j in range(n)]
    incentive = [r / sum(rank) if sum(rank) else 0.0 for r in rank]
    held = [[0.0] * n for _ in range(n)]
    for j in range(n):
        new = [share[i] * ((1 - penalty) * rows[i][j] + penalty * clipped[i][j]) for i in range(n)]
        old = [bonds[i][j] for i in range(n)]
        mixed = [
            (1 - moving_average) * (new[i] / sum(new) if sum(new) else 0.0)
            + moving_average * (old[i] / sum(old) if sum(old) else 0.0)
            for i in range(n)
        ]
        for i in range(n):
            held[i][j] = mixed[i] / sum(mixed) if sum(mixed) else 0.0
    dividends = [sum(held[i][j] * incentive[j] for j in range(n)) for i in range(n)]
    dividends = [d / sum(dividends) if sum(dividends) else 0.0 for d in dividends]
    return consensus, [sum(row) for row in clipped], incentive, dividends, held


def test_the_measured_vector():
    found = yuma(WEIGHTS, STAKES, NONE, PERMITS)
    np.testing.assert_allclose(to_u16(found.consensus), [0, 0, 0, 45874, 26213], atol=1)
    np.testing.assert_allclose(to_u16(found.incentive), [0, 0, 0, 40049, 25485], atol=1)
    np.testing.assert_allclose(to_u16(found.dividends), [36408, 21844, 7281, 0, 0], atol=1)
    np.testing.assert_allclose(to_u16(np.minimum(found.trust, 1)), [65534, 65534, 32767, 0, 0], atol=1)
    to_peers, to_validators, remainder = split_emission(
        found.incentive, found.dividends, STAKES, 9_020_050_347
    )
    measured = [2505567253, 1503340343, 501117572, 2756136129, 1753889041]
    np.testing.assert_allclose(to_peers + to_validators, measured, atol=10, rtol=0)
    assert sum(to_peers.tolist()) + sum(to_validators.tolist()) + remainder == 9_020_050_347
    assert 0 <= remainder < 5


def test_one_round_by_hand():
    # Three equal validators on two peers: 0.8, 0.5, 0.5 and 0.2, 0.5, 0.5; kappa is half, so two of the three are needed.
    weights = np.zeros((5, 5))
    weights[:3, 3:] = [[8, 2], [1, 1], [3, 3]]
    found = yuma(weights, [1, 1, 1, 0, 0], NONE, PERMITS)
    np.testing.assert_allclose(found.consensus, [0, 0, 0, 0.5, 0.5])
    np.testing.assert_allclose(found.trust, [0.7, 1, 1, 0, 0])
    np.testing.assert_allclose(found.incentive, [0, 0, 0, 1.5 / 2.7, 1.2 / 2.7])
    # The first's bonds: a third of the one peer, 0.2 / 1.2 of the other.
    first = (1 / 3) * (1.5 / 2.7) + (0.2 / 1.2) * (1.2 / 2.7)
    np.testing.assert_allclose(found.dividends, [first, (1 - first) / 2, (1 - first) / 2, 0, 0])
    np.testing.assert_allclose(found.bonds[:3, 3:], [[1, 0.4], [1, 1], [1, 1]])


MATRICES = st.integers(2, 4).flatmap(
    lambda validators: st.integers(1, 4).flatmap(
        lambda peers: st.tuples(
            st.lists(
                st.lists(st.one_of(st.just(0), st.integers(0, 65535)), min_size=peers, max_size=peers),
                min_size=validators,
                max_size=validators,
            ),
            st.lists(st.integers(1, 10_000), min_size=validators, max_size=validators),
            st.lists(
                st.lists(st.integers(0, 65535), min_size=peers, max_size=peers),
                min_size=validators,
                max_size=validators,
            ),
            st.lists(st.booleans(), min_size=validators, max_size=validators),
        )
    )
)


def square(rows, n):
    """Rows of validators on peers, as a matrix of all uids."""
    matrix = np.zeros((n, n))
    matrix[: len(rows), len(rows) :] = rows
    return matrix


def case_of(case):
    rows, stakes, bonds, permits = case
    n = len(rows) + len(rows[0])
    idle = n - len(rows)
    return square(rows, n), [*stakes, *[0] * idle], square(bonds, n), np.array([*permits, *[False] * idle])


@given(MATRICES, st.sampled_from([1.0, 0.5, 0.0]), st.sampled_from([0.9, 0.5, 0.0]))
@settings(max_examples=150, deadline=None)
def test_it_is_the_oracle(case, penalty, moving_average):
    weights, stakes, bonds, permits = case_of(case)
    found = yuma(weights, stakes, bonds, permits, bonds_penalty=penalty, bonds_moving_average=moving_average)
    consensus, trust, incentive, dividends, held = oracle(
        weights, stakes, bonds, permits, moving_average=moving_average, penalty=penalty
    )
    np.testing.assert_allclose(found.consensus, consensus, atol=1e-12)
    np.testing.assert_allclose(found.trust, trust, atol=1e-12)
    np.testing.assert_allclose(found.incentive, incentive, atol=1e-12)
    np.testing.assert_allclose(found.dividends, dividends, atol=1e-12)
    largest = np.max(held, axis=0)
    np.testing.assert_allclose(found.bonds, np.divide(held, np.where(largest > 0, largest, 1)), atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_oracle_where_everybody_weighs_everybody(seed):
    chance = np.random.default_rng(seed)
    n = 7
    weights, bonds = (chance.integers(0, 65536, (n, n)) * (chance.random((n, n)) < 0.7) for _ in range(2))
    stakes, permits = chance.integers(0, 5, n).tolist(), chance.random(n) < 0.8
    found = yuma(weights.astype(float), stakes, bonds.astype(float), permits)
    consensus, trust, incentive, dividends, _ = oracle(weights, stakes, bonds, permits)
    np.testing.assert_allclose(found.consensus, consensus, atol=1e-12)
    np.testing.assert_allclose(found.trust, trust, atol=1e-12)
    np.testing.assert_allclose(found.incentive, incentive, atol=1e-12)
    np.testing.assert_allclose(found.dividends, dividends, atol=1e-12)


@given(MATRICES, st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_uids_changes_no_bit(case, random):
    weights, stakes, bonds, permits = case_of(case)
    found = yuma(weights, stakes, bonds, permits)
    order = random.sample(range(len(stakes)), len(stakes))
    moved = yuma(
        weights[np.ix_(order, order)],
        [stakes[i] for i in order],
        bonds[np.ix_(order, order)],
        permits[order],
    )
    for name in ("consensus", "trust", "incentive", "dividends"):
        np.testing.assert_array_equal(getattr(moved, name), getattr(found, name)[order])
    np.testing.assert_array_equal(moved.bonds, found.bonds[np.ix_(order, order)])
    paid = split_emission(found.incentive, found.dividends, stakes, 10**12)
    again = split_emission(moved.incentive, moved.dividends, [stakes[i] for i in order], 10**12)
    np.testing.assert_array_equal(again[0], paid[0][order])
    np.testing.assert_array_equal(again[1], paid[1][order])
    assert again[2] == paid[2]


@given(
    MATRICES, st.fractions(Fraction(1, 10**9), 10**9), st.lists(st.integers(-40, 40), min_size=8, max_size=8)
)
@settings(max_examples=100, deadline=None)
def test_the_scale_of_stakes_and_of_a_validators_weights_is_its_own_affair(case, scale, powers):
    weights, stakes, bonds, permits = case_of(case)
    found = yuma(weights, stakes, bonds, permits)
    stretched = np.ldexp(weights, np.array(powers[: len(stakes)])[:, None])
    other = yuma(stretched, [stake * scale for stake in stakes], np.ldexp(bonds, powers[0]), permits)
    for one, two in zip(found, other, strict=True):
        np.testing.assert_array_equal(one, two)
    # And by a factor that rounds, all but the last digits.
    thirds = yuma(weights / 3, [stake / 3 for stake in stakes], bonds, permits)
    if all(np.ptp(column[column > 0]) > 1e-9 for column in weights.T if (column > 0).any()):
        np.testing.assert_allclose(thirds.incentive, found.incentive, atol=1e-9)


@given(
    st.lists(st.lists(st.integers(0, 1000), min_size=4, max_size=4), min_size=2, max_size=4),
    st.lists(st.lists(st.integers(0, 1000), min_size=4, max_size=4), min_size=1, max_size=3),
    st.lists(st.integers(1, 100), min_size=4, max_size=4),
    st.lists(st.integers(1, 100), min_size=3, max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_less_than_kappa_of_the_stake_lifts_nobody_above_the_largest_honest_weight(
    honest, liars, honest_stakes, liars_stakes
):
    stakes = [*honest_stakes[: len(honest)], *liars_stakes[: len(liars)]]
    lying = sum(stakes[len(honest) :])
    if Fraction(lying, sum(stakes)) >= KAPPA:
        # The same liars with little enough to say: the honest get what is missing, and one unit more.
        stakes[0] += 2 * lying + 1
    n = len(stakes) + 4
    weights = square([*honest, *liars], n)
    found = yuma(weights, [*stakes, *[0] * 4], np.zeros((n, n)), np.array([True] * len(stakes) + [False] * 4))
    for j in range(4):
        shares = [row[j] / sum(row) if sum(row) else 0.0 for row in honest]
        assert found.consensus[len(stakes) + j] <= max(shares)


def test_kappa_is_reached_exactly():
    # Two of three equal validators have 2/3: with kappa 2/3 they decide, with any more they do not.
    weights = np.zeros((4, 4))
    weights[:3, 3] = [1, 1, 0]
    weights[2, 0] = 1
    permits = np.array([True, True, True, False])
    for kappa, consensus in ((Fraction(2, 3), 1.0), (Fraction(2, 3) + Fraction(1, 10**30), 0.0)):
        found = yuma(weights, [Fraction(1, 3)] * 3 + [0], np.zeros((4, 4)), permits, kappa=kappa)
        assert found.consensus[3] == consensus


def test_half_of_the_stake_is_more_than_the_chains_kappa():
    weights = np.zeros((4, 4))
    weights[:2, 2:] = [[1, 0], [0, 1]]
    found = yuma(weights, [7, 7, 0, 0], np.zeros((4, 4)), np.array([True, True, False, False]))
    np.testing.assert_array_equal(found.consensus, [0, 0, 1, 1])
    np.testing.assert_array_equal(found.dividends, [0.5, 0.5, 0, 0])


def test_nobody_weighs_anybody_and_stake_is_paid():
    for weights, permits in ((np.zeros((5, 5)), PERMITS), (WEIGHTS, np.zeros(5, bool))):
        found = yuma(weights, STAKES, NONE, permits)
        for table in found:
            assert not table.any()
        to_peers, to_validators, remainder = split_emission(found.incentive, found.dividends, STAKES, 101)
        assert to_peers.tolist() == [0] * 5
        assert (to_validators.tolist(), remainder) == ([50, 30, 20, 0, 0], 1)
    # And where there is no stake either, nobody is.
    assert split_emission(np.zeros(2), np.zeros(2), [0, 0], 101)[2] == 101


def test_one_validator_decides_alone():
    weights = np.zeros((3, 3))
    weights[0] = [9.0, 1.0, 3.0]  # its weight on itself does not count
    found = yuma(weights, [5, 0, 0], np.zeros((3, 3)), np.array([True, False, False]))
    np.testing.assert_array_equal(found.consensus, [0, 0.25, 0.75])
    np.testing.assert_array_equal(found.incentive, [0, 0.25, 0.75])
    np.testing.assert_array_equal(found.dividends, [1, 0, 0])
    np.testing.assert_array_equal(found.trust, [1, 0, 0])


def test_equal_validators_are_paid_equally():
    weights = np.zeros((5, 5))
    weights[:3, 3:] = [[3, 1], [3, 1], [3, 1]]
    found = yuma(weights, [2, 2, 1, 0, 0], NONE, PERMITS)
    np.testing.assert_array_equal(found.consensus[3:], [0.75, 0.25])
    assert found.dividends[0] == found.dividends[1] == pytest.approx(0.4)


def test_a_weight_that_does_not_count_is_dropped_before_the_row_is_normalised():
    counted = np.ones((5, 5), bool)
    counted[:, 4] = False
    found = yuma(WEIGHTS, STAKES, NONE, PERMITS, counted=counted)
    np.testing.assert_array_equal(found.consensus, [0, 0, 0, 1, 0])
    np.testing.assert_array_equal(found.incentive, [0, 0, 0, 1, 0])


def play(rounds, stakes, permits=PERMITS):
    """Epochs one after another; returns the last."""
    bonds = np.zeros((len(stakes), len(stakes)))
    found = None
    for weights in rounds:
        found = yuma(weights, stakes, to_u16(bonds), permits)
        bonds = found.bonds
    assert found is not None
    return found


def test_who_copies_a_round_late_holds_less():
    # Peers' worth changes every round; the third validator shows what the others showed the round before.
    chance = np.random.default_rng(5)
    truth = [square(np.tile(chance.dirichlet([2, 2]), (3, 1)), 5) for _ in range(40)]
    late = []
    for now, before in zip(truth, [truth[0], *truth], strict=False):
        rows = now.copy()
        rows[2] = before[2]
        late.append(rows)
    stakes = [1, 1, 1, 0, 0]
    honest = play(truth, stakes)
    copied = play(late, stakes)
    assert honest.dividends[2] == pytest.approx(1 / 3, abs=1e-4)
    assert copied.dividends[2] < 0.9 * copied.dividends[0]
    assert copied.dividends[0] == pytest.approx(copied.dividends[1])


def test_bonds_of_a_validator_that_left_decay_by_the_moving_average():
    agreed = square([[1, 1]] * 3, 5)
    together = play([agreed] * 3, [1, 1, 1, 0, 0])
    bonds, left = together.bonds, np.array([True, True, False, False, False])
    for number in range(1, 6):
        found = yuma(agreed, [1, 1, 1, 0, 0], bonds, left)
        bonds = found.bonds
        np.testing.assert_allclose(found.dividends[2], 0.9**number / 3, rtol=1e-9)
        assert found.trust[2] == 0


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.one_of(st.integers(0, 50), st.integers(0, 2**53), st.just(2**63 - 1)),
)
@settings(max_examples=150, deadline=None)
def test_every_unit_of_an_emission_is_given_to_somebody(incentive, dividends, emission):
    n = max(len(incentive), len(dividends))
    peers, validators = np.zeros(n), np.zeros(n)
    peers[: len(incentive)], validators[: len(dividends)] = incentive, dividends
    stakes = list(range(n))
    to_peers, to_validators, remainder = split_emission(peers, validators, stakes, emission)
    assert sum(to_peers.tolist()) + sum(to_validators.tolist()) + remainder == emission
    assert (to_peers >= 0).all()
    assert (to_validators >= 0).all()
    whole = sum(map(Fraction, [*peers.tolist(), *validators.tolist()]))
    if whole:
        assert 0 <= remainder < 2 * n
        for paid, share in zip(to_peers.tolist(), peers.tolist(), strict=True):
            assert 0 <= Fraction(share) / whole * emission - paid < 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"weights": np.full((5, 5), np.nan)}, "finite"),
        ({"weights": -WEIGHTS}, "at least 0"),
        ({"weights": WEIGHTS[:4]}, "5 stakes need"),
        ({"bonds": np.full((5, 5), np.inf)}, "finite"),
        ({"bonds": np.zeros((5, 4))}, "5 stakes need"),
        ({"permits": PERMITS[:4]}, "5 permits"),
        ({"stakes": [1, 1, -1, 0, 0]}, "at least 0"),
        ({"stakes": [1, 1, float("nan"), 0, 0]}, "finite"),
    ],
)
def test_misshapen_evidence_is_refused(change, match):
    given = {"weights": WEIGHTS, "stakes": STAKES, "bonds": NONE, "permits": PERMITS} | change
    with pytest.raises(ValueError, match=match):
        yuma(**given)


@pytest.mark.parametrize("emission", [-1, 2**63])
def test_an_emission_out_of_range_is_refused(emission):
    with pytest.raises(ValueError, match="emission="):
        split_emission(np.ones(1), np.ones(1), [1], emission)


def test_rounding_to_u16():
    assert to_u16(np.array([0, 1, 0.5, 1 / 65535])).tolist() == [0, 65535, 32767, 1]
    with pytest.raises(ValueError, match="within"):
        to_u16(np.array([1.01]))
    assert max_upscaled(np.array([0.1, 0.3, 0.0])).tolist() == [21845, 65535, 0]
    assert max_upscaled(np.array([1.0, 4.0])).tolist() == [16384, 65535]  # 16383.75
    assert max_upscaled(np.zeros(2)).tolist() == [0, 0]
    assert max_upscaled(np.zeros(0)).tolist() == []
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="weights must be"):
            max_upscaled(np.array([bad]))
