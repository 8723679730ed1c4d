"""Yuma consensus: from several validators' weights to one set of incentives, and to who is paid what (numpy float64, integers).

As the Bittensor chain computes it, on its original path (liquid alpha and Yuma3 off). Every validator and every peer has a place, its
uid; whoever is no validator has a row of zeros. Sums do not depend on the order of the uids, to the last bit.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

KAPPA = Fraction(32767, 65535)
"""The part of the stake that must give a peer a weight for it to count: half, as the chain rounds it."""

U16 = 65535
_MAX_UNITS = 2**63 - 1


class Consensus(NamedTuple):
    """What an epoch makes of the weights; float64[n] each, but for the bonds.

    Attributes:
      consensus: C_j in [0, 1], the largest weight that stake of at least kappa gives a peer.
      trust: of each validator, in [0, 1]: the part of its weights that the consensus leaves to it.
      incentive: I_j >= 0, sums to 1, or all 0.
      dividends: D_i >= 0, sums to 1, or all 0.
      bonds: float64[n, n] in [0, 1], what each validator holds of each peer, a column's largest at 1.
    """

    consensus: np.ndarray
    trust: np.ndarray
    incentive: np.ndarray
    dividends: np.ndarray
    bonds: np.ndarray


def yuma(
    weights: Float64[np.ndarray, "n n"],
    stakes: Sequence[float | Fraction],
    bonds: Float64[np.ndarray, "n n"],
    permits: Bool[np.ndarray, " n"],
    *,
    counted: Bool[np.ndarray, "n n"] | None = None,
    kappa: Fraction = KAPPA,
    bonds_moving_average: float = 0.9,
    bonds_penalty: float = 1.0,
) -> Consensus:
    """One epoch of Yuma consensus.

    With A the permitted stake and W the weights, each normalised::

        C_j  = max { w = W_ij : sum_{i: W_ij >= w} A_i >= kappa }          consensus
        Wc   = min(W, C);   trust_i = sum_j Wc_ij;   I_j ~ sum_i A_i Wc_ij  incentive, normalised
        dB   = A_i ((1 - beta) W_ij + beta Wc_ij), by column                bonds of this epoch
        E    = (1 - m) dB + m colnorm(B), by column;   D_i ~ sum_j E_ij I_j dividends, normalised

    What a validator gives beyond the consensus is cut off, so stake below kappa cannot lift a peer; and bonds grow with agreement
    over time, so who follows late holds less.

    Args:
      weights: W_ij >= 0, validator i on peer j, in any scale; u16 as they are on the chain.
      stakes: >= 0, in any scale.
      bonds: B_ij >= 0 after the epoch before, in any scale by column.
      permits: who may weigh, and has done so lately enough.
      counted: False drops a weight, such as one that was set before its target registered. Weights on oneself never count.
      kappa: in (0, 1].
      bonds_moving_average: m in [0, 1), 1 - alpha.
      bonds_penalty: beta in [0, 1].

    Returns:
      The epoch's outcome. All zeros where no permitted stake weighs anybody.

    Raises:
      ValueError: shapes differ, or a number is negative or not finite.
    """
    n = len(stakes)
    matrices, rows = [np.asarray(weights, float), np.asarray(bonds, float)], np.asarray(permits, bool)
    if any(matrix.shape != (n, n) for matrix in matrices) or rows.shape != (n,):
        raise ValueError(f"yuma: {n} stakes need weights and bonds of {n} x {n} and {n} permits")
    if not all(np.isfinite(matrix).all() and (matrix >= 0).all() for matrix in matrices):
        raise ValueError("yuma: weights and bonds must be finite and at least 0")
    exact = _shares(stakes, rows)
    share = np.array([float(part) for part in exact])[:, None]

    kept = rows[:, None] & ~np.eye(n, dtype=bool)
    if counted is not None:
        kept &= counted
    # By powers of two first, which change no share: the sum of huge weights would be no number any more.
    scaled = [np.ldexp(matrix, -np.frexp(matrix.max(initial=0.0))[1]) for matrix in matrices]
    W = _by_row(np.where(kept, scaled[0], 0.0))
    C = np.array([_consensus(W[:, j], exact, kappa) for j in range(n)])
    clipped = np.minimum(W, C)
    incentive = _normalised(_column_sums(share * clipped))
    bought = _by_column(share * ((1.0 - bonds_penalty) * W + bonds_penalty * clipped))
    held = _by_column(scaled[1])
    E = _by_column((1.0 - bonds_moving_average) * bought + bonds_moving_average * held)
    dividends = _normalised(_column_sums((E * incentive).T))
    largest = E.max(axis=0, initial=0.0)
    return Consensus(
        consensus=C,
        trust=_column_sums(clipped.T),
        incentive=incentive,
        dividends=dividends,
        bonds=np.divide(E, largest, out=np.zeros_like(E), where=largest > 0),
    )


def split_emission(
    incentive: Float64[np.ndarray, " n"],
    dividends: Float64[np.ndarray, " n"],
    stakes: Sequence[float | Fraction],
    emission: int,
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], int]:
    """Splits an epoch's emission into integer units.

    A peer gets ``floor(e I_j / (sum I + sum D))``, a validator ``floor(e D_i / (sum I + sum D))``, in exact arithmetic; where both
    sums are 0, the validators are paid by stake.

    Args:
      incentive: I_j >= 0.
      dividends: D_i >= 0.
      stakes: >= 0.
      emission: e, units, 0 to 2**63 - 1.

    Returns:
      ``(to peers, to validators, remainder)``: int64[n] each, and the units lost to flooring (all of them where there is no stake
      either); together they are the emission.

    Raises:
      ValueError: the emission is out of range, or a share is negative or not finite.
    """
    if not 0 <= emission <= _MAX_UNITS:
        raise ValueError(f"emission={emission}: must be between 0 and 2**63 - 1")
    parts = [[_fraction(value) for value in values] for values in (incentive, dividends)]
    if not any(map(any, parts)):
        parts[1] = [_fraction(stake) for stake in stakes]
    whole = sum(map(sum, parts), Fraction(0))
    # One denominator for all: many small fractions of different ones would be slow to add.
    paid = [[math.floor(emission * part / whole) if whole else 0 for part in row] for row in parts]
    remainder = emission - sum(map(sum, paid))
    return np.array(paid[0], np.int64), np.array(paid[1], np.int64), remainder


def to_u16(values: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Shares in [0, 1] as the chain stores them: ``floor(65535 x)``.

    Raises:
      ValueError: a share is outside [0, 1].
    """
    shares = np.asarray(values, float)
    if not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError("shares must be within [0, 1]")
    return np.floor(shares * U16).astype(np.int64)


def max_upscaled(weights: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Weights as the chain takes them: the largest becomes 65535, the others in proportion, rounded to the nearest.

    Args:
      weights: finite and >= 0.

    Returns:
      int64[n] in [0, 65535]; all 0 where all are 0.

    Raises:
      ValueError: a weight is negative or not finite.
    """
    given = np.asarray(weights, float)
    if not (np.isfinite(given).all() and (given >= 0).all()):
        raise ValueError("weights must be finite and at least 0")
    largest = given.max(initial=0.0)
    if largest == 0:
        return np.zeros(given.shape, np.int64)
    return np.floor(given / largest * U16 + 0.5).astype(np.int64)


def _shares(stakes: Sequence[float | Fraction], permits: np.ndarray) -> list[Fraction]:
    """A: the stake of who may weigh, as exact shares, so that neither scale nor order changes a bit."""
    numbers = [_fraction(stake) if may else Fraction(0) for stake, may in zip(stakes, permits, strict=True)]
    total = sum(numbers)
    return [number / total for number in numbers] if total else numbers


def _consensus(column: np.ndarray, shares: Sequence[Fraction], kappa: Fraction) -> float:
    """The largest weight of a column that enough stake gives."""
    behind = Fraction(0)
    order = sorted((i for i, share in enumerate(shares) if share), key=lambda i: -column[i])
    for i in order:
        behind += shares[i]
        # Equal weights are in together: the one reached first has the same value.
        if behind >= kappa:
            return float(column[i])
    return 0.0


def _fraction(value: float | Fraction) -> Fraction:
    exact = value if isinstance(value, Fraction) else _exact(float(value))
    if exact < 0:
        raise ValueError(f"{value}: must be at least 0")
    return exact


def _exact(value: float) -> Fraction:
    if not math.isfinite(value):
        raise ValueError(f"{value}: must be finite")
    return Fraction(value)


def _column_sums(matrix: np.ndarray) -> np.ndarray:
    """Correctly rounded, so they are the same in any order."""
    return np.array([math.fsum(column) for column in matrix.T.tolist()])


def _normalised(values: np.ndarray) -> np.ndarray:
    total = math.fsum(values.tolist())
    return values / total if total > 0 else np.zeros_like(values)


def _by_column(matrix: np.ndarray) -> np.ndarray:
    sums = _column_sums(matrix)
    return np.divide(matrix, sums, out=np.zeros_like(matrix), where=sums > 0)


def _by_row(matrix: np.ndarray) -> np.ndarray:
    return _by_column(matrix.T).T
