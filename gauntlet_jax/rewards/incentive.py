"""From PeerScores to incentives to integer payouts (numpy float64 and exact integers; no I/O)."""

import math

import numpy as np
from jaxtyping import Bool, Float64, Int64

MAX_UNITS = 2**63 - 1
"""The most units that an account or an emission may hold."""

_SUM_TOLERANCE = 1e-9


def incentives(
    peer_scores: Float64[np.ndarray, " peers"], *, power: float = 2.0, top: int | None = None
) -> Float64[np.ndarray, " peers"]:
    """The normalised weights of a round: what each peer deserves of the emission.

    ``incentive_p = PeerScore_p^c / sum_k PeerScore_k^c`` (Gauntlet, section on the incentive, c = 2). With
    c > 1 one strong identity earns more than its parts would if split over several.

    Args:
      peer_scores: ``float64[peers]``, >= 0, the standing included.
      power: c > 0.
      top: only the ``top`` highest scores count (of equal ones the first); None = all, as in the paper.

    Returns:
      ``float64[peers]`` in [0, 1] that sum to 1, or all 0 where no peer has a score.

    Raises:
      ValueError: a score is negative, NaN or infinite; ``power`` or ``top`` is out of its range.
    """
    scores = np.asarray(peer_scores, dtype=np.float64)
    if not np.isfinite(scores).all() or (scores < 0).any():
        raise ValueError(f"peer scores must be finite and at least 0: {scores}")
    if not (math.isfinite(power) and power > 0):
        raise ValueError(f"power={power}: must be finite and above 0")
    if top is not None:
        if top < 1:
            raise ValueError(f"top={top}: must be at least 1")
        kept = np.argsort(-scores, kind="stable")[:top]
        scores = np.where(np.isin(np.arange(scores.size), kept), scores, 0.0)
    best = scores.max(initial=0.0)
    if best == 0:
        return np.zeros_like(scores)
    # Relative to the best, so that no power overflows and the sum is at least 1.
    powers = (scores / best) ** power
    return powers / powers.sum()


def split_emission(
    incentives: Float64[np.ndarray, " peers"], payable: Bool[np.ndarray, " peers"], emission: int
) -> tuple[Int64[np.ndarray, " peers"], int]:
    """Splits a round's emission into integer units, to the last one.

    The payable peers together get ``floor(emission * their share of the incentives)``; among them each gets
    the floor of its own quota, and the units left go to the largest remainders, of equal ones to the first.
    What nobody may have, the share of peers that are not payable, goes to the reserve. Integers, exact.

    Args:
      incentives: ``float64[peers]`` in [0, 1] that sum to 1, or all 0.
      payable: ``bool[peers]``, who may be paid.
      emission: units, 0 to 2**63 - 1.

    Returns:
      ``(payouts, reserve)``: ``int64[peers]`` >= 0, 0 for who is not payable or has no incentive, and the
      rest; ``payouts.sum() + reserve == emission``. Everything is reserve where no incentive is payable.

    Raises:
      ValueError: incentives that are no shares, arrays of different lengths, or an emission out of range.
    """
    shares = np.asarray(incentives, dtype=np.float64)
    may = np.asarray(payable, dtype=bool)
    if shares.shape != may.shape or shares.ndim != 1:
        raise ValueError(
            f"incentives{list(shares.shape)} and payable{list(may.shape)} must be two vectors of one length"
        )
    if not 0 <= emission <= MAX_UNITS:
        raise ValueError(f"emission={emission}: must be between 0 and 2**63 - 1")
    total = float(shares.sum())
    if not ((shares >= 0).all() and (total == 0 or abs(total - 1) <= _SUM_TOLERANCE)):
        raise ValueError(f"incentives must be at least 0 and sum to 1 or be all 0, their sum is {total}")
    payouts = np.zeros(shares.shape, dtype=np.int64)
    if not (shares[may] > 0).any():
        return payouts, emission

    weights = _exact_weights(shares)
    whole = sum(weights)
    quotas = {index: divmod(emission * weights[index], whole) for index in np.flatnonzero(may).tolist()}
    paid = emission * sum(weights[index] for index in quotas) // whole
    left = paid - sum(units for units, _ in quotas.values())
    # sorted() is stable: of equal remainders the first peer comes first.
    lucky = set(sorted(quotas, key=lambda index: -quotas[index][1])[:left])
    for index, (units, _) in quotas.items():
        payouts[index] = units + (index in lucky)
    return payouts, emission - paid


def _exact_weights(shares: np.ndarray) -> list[int]:
    """The same ratios as integers: a float64 is a fraction whose denominator is a power of two."""
    fractions = [share.as_integer_ratio() for share in shares.tolist()]
    common = max(denominator for _, denominator in fractions)
    return [numerator * (common // denominator) for numerator, denominator in fractions]
