"""From PeerScores to incentives to the weights that a validator posts (numpy float64; no I/O)."""

import math

import numpy as np
from jaxtyping import Bool, Float64

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


def weights_of(
    incentives: Float64[np.ndarray, " peers"], payable: Bool[np.ndarray, " peers"]
) -> tuple[Float64[np.ndarray, " peers"], float]:
    """The weights that a validator posts: the incentives of those who may be paid, and the rest for nobody.

    Args:
      incentives: ``float64[peers]`` in [0, 1] that sum to 1, or all 0.
      payable: ``bool[peers]``, who may be paid.

    Returns:
      ``(weights, reserve)``: ``float64[peers]`` >= 0, and the weight of the reserve, which has everything where nobody is payable;
      together they sum to 1.

    Raises:
      ValueError: incentives that are no shares, or arrays of different lengths.
    """
    shares = np.asarray(incentives, dtype=np.float64)
    may = np.asarray(payable, dtype=bool)
    if shares.shape != may.shape or shares.ndim != 1:
        raise ValueError(
            f"incentives{list(shares.shape)} and payable{list(may.shape)} must be two vectors of one length"
        )
    total = float(shares.sum())
    if not ((shares >= 0).all() and (total == 0 or abs(total - 1) <= _SUM_TOLERANCE)):
        raise ValueError(f"incentives must be at least 0 and sum to 1 or be all 0, their sum is {total}")
    weights = np.where(may, shares, 0.0)
    return weights, max(0.0, 1.0 - math.fsum(weights.tolist()))
