"""Selection: who is evaluated in a round (S_t), and whose pseudo-gradients are applied (the top-G)."""

import numpy as np
from jaxtyping import Bool, Float, Integer


def draw_for_evaluation(
    ratings: Float[np.ndarray, " n"],
    rounds_since: Integer[np.ndarray, " n"],
    eligible: Bool[np.ndarray, " n"],
    *,
    sample_size: int | None,
    key: int,
    bins: int = 5,
) -> Bool[np.ndarray, " n"]:
    """Draws S_t, the peers that get the expensive evaluation this round.

    As the paper's reference does: sort the eligible peers by rating, cut them into bins, draw one bin, and
    draw in it without replacement, weighted by the rounds since each was last evaluated, plus one. Peers of
    one bin are close in skill, so their match tells most. Where the bin holds fewer than ``sample_size``, its
    neighbours on both sides fill up, the nearest first.

    Args:
      ratings: LossRating, NaN counts as lowest.
      rounds_since: rounds since the last evaluation, >= 0; for a newcomer, since it came.
      eligible: who passed fast evaluation.
      sample_size: peers wanted; None, or at least as many as are eligible, takes all of those.
      key: in [0, 2**128), from a beacon that nobody knew before the put window closed and the validator's
        identity.
      bins: number of bins.

    Returns:
      bool[n]; the same for the same arguments, on every machine.

    Raises:
      ValueError: ``sample_size`` or ``bins`` is below 1, ``key`` out of range, or a count of rounds negative.
    """
    if sample_size is not None and sample_size < 1:
        raise ValueError(f"sample_size is {sample_size}; at least 1 peer must be drawn (None: all of them)")
    if bins < 1:
        raise ValueError(f"bins is {bins}; it must be at least 1")
    if not 0 <= key < 2**128:
        raise ValueError("the key of a draw must be in [0, 2**128)")
    if np.any(rounds_since < 0):
        raise ValueError("rounds since the last evaluation cannot be negative")
    candidates = np.flatnonzero(eligible)
    if sample_size is None or sample_size >= candidates.size:
        return eligible.copy()

    # Raw words of the counter-based generator: numpy keeps those stable, and may change how `choice` uses
    # them.
    words = np.random.Philox(key=key).random_raw(eligible.size + 1)
    uniforms = (words >> np.uint64(11)) * 2.0**-53  # [0, 1)
    # Exponential arrival times at rate w, earliest first, are weighted draws without replacement.
    arrival = -np.log1p(-uniforms[1:]) / (rounds_since + 1.0)

    levels = np.where(np.isnan(ratings), -np.inf, ratings)
    by_rating = candidates[np.argsort(levels[candidates], kind="stable")]
    groups = np.array_split(by_rating, min(bins, candidates.size))
    start = int(uniforms[0] * len(groups))
    distance = np.concatenate([np.full(group.size, abs(i - start)) for i, group in enumerate(groups)])
    order = by_rating[np.lexsort((arrival[by_rating], distance))]
    drawn = np.zeros_like(eligible)
    drawn[order[:sample_size]] = True
    return drawn


def top_g(
    peer_scores: Float[np.ndarray, " n"],
    eligible: Bool[np.ndarray, " n"],
    *,
    g: int,
    tiebreak: Integer[np.ndarray, " n"],
) -> Bool[np.ndarray, " n"]:
    """The G peers with the highest PeerScores, whose pseudo-gradients make the round's update.

    Args:
      peer_scores: PeerScore times standing; only finite ones above 0 count.
      eligible: who has an accepted artifact this round.
      g: how many at most.
      tiebreak: the smaller wins an exact tie, from hash(beacon, peer); equal ones fall back on the position.

    Returns:
      bool[n] with at most ``g`` True: fewer where fewer have a score above 0.

    Raises:
      ValueError: ``g`` is below 1.
    """
    if g < 1:
        raise ValueError(f"G is {g}; at least 1 peer must be aggregated")
    worthy = eligible & np.isfinite(peer_scores) & (peer_scores > 0)
    order = np.lexsort((tiebreak, -np.where(worthy, peer_scores, -np.inf)))
    chosen = np.zeros_like(eligible)
    chosen[order[:g]] = True
    return chosen & worthy
