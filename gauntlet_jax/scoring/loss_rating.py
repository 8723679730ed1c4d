"""LossRating: a skill rating from the order of the LossScores (Gauntlet, section on LossRating).

Raw scores vary from round to round, but their *order* within a round is consistent. So each round is one
Plackett-Luce match in the sense of OpenSkill (Weng and Lin 2011, algorithm 4) among the evaluated peers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32


class Rating(NamedTuple):
    """Gaussian beliefs about the skill of n peers.

    Attributes:
      mu: means, float32[n].
      sigma: deviations, float32[n], positive.
    """

    mu: Float[Array, " n"]
    sigma: Float[Array, " n"]


def initial_rating(n: int, *, mu: float = 25.0, sigma: float = 25.0 / 3.0) -> Rating:
    """The rating of n peers that nothing is known about.

    Args:
      n: number of peers.
      mu: mean.
      sigma: deviation, positive.

    Returns:
      float32[n] of each; the LossRating of such a peer is ``mu - 3 sigma = 0``.
    """
    return Rating(jnp.full((n,), mu, jnp.float32), jnp.full((n,), sigma, jnp.float32))


def rate(
    rating: Rating,
    ranks: Int[Array, " n"],
    played: Bool[Array, " n"],
    *,
    beta: float = 7.0,
    tau: float = 0.1,
    kappa: float = 1e-4,
) -> Rating:
    """One Plackett-Luce match among the peers that played.

    With r ascending = best first, over the peers that played::

        sigma_i^2 <- sigma_i^2 + tau^2
        c   = sqrt(sum_i (sigma_i^2 + beta^2))
        Q_q = sum_{s: r_s >= r_q} exp(mu_s / c)
        A_q = #{s: r_s = r_q}
        p_iq = exp(mu_i / c) / Q_q                                           for q with r_q <= r_i
        omega_i = sum_q [(1 - p_iq) / A_q  if r_q = r_i  else  -p_iq / A_q]
        delta_i = sum_q p_iq (1 - p_iq) / A_q
        mu_i    <- mu_i + omega_i sigma_i^2 / c
        sigma_i <- sigma_i sqrt(max(1 - delta_i (sigma_i^2 / c^2) (sigma_i / c), kappa))

    The shapes do not depend on who played, so it compiles once. A tie lifts, or drags, everyone in it:
    fold duplicates first and pass strict ranks where a clone could profit (see ``ranks_from_scores``).

    Args:
      rating: of all n peers.
      ranks: int[n], smallest = best, equal = tied; ignored where ``played`` is False.
      played: bool[n], who took part. With fewer than two there is no match and nothing changes.
      beta: noise of one performance, in units of mu.
      tau: added to the uncertainty at each match, so that an old reputation stays open to revision.
      kappa: floor of the factor on sigma^2 in one match.

    Returns:
      The ratings after the match; unchanged, to the bit, for those that did not play.
    """
    variance = rating.sigma**2 + tau**2
    is_match = jnp.sum(played) > 1
    c = jnp.sqrt(jnp.sum(jnp.where(played, variance + beta**2, 0.0)))
    c = jnp.where(is_match, c, 1.0)
    strength = jnp.where(played, rating.mu / c, 0.0)

    both = played[:, None] & played[None, :]
    at_or_ahead = both & (ranks[None, :] <= ranks[:, None])  # [i, q]: r_q <= r_i
    tied = both & (ranks[None, :] == ranks[:, None])
    # p_iq = exp(log p_iq), with logsumexp taking out the maximum: strengths far apart must not overflow.
    contenders = jnp.where(at_or_ahead.T, strength[None, :], -jnp.inf)  # [q, s]: r_s >= r_q
    log_q = jnp.where(played, jax.nn.logsumexp(contenders, axis=1), 0.0)
    # i itself is in Q_q, so p_iq <= 1; rounding may not say otherwise.
    log_p = jnp.minimum(strength[:, None] - log_q[None, :], 0.0)
    p, not_p = jnp.exp(log_p), -jnp.expm1(log_p)
    sharers = jnp.maximum(jnp.sum(tied, axis=1), 1).astype(p.dtype)  # A_q
    weight = jnp.where(at_or_ahead, 1.0 / sharers[None, :], 0.0)
    omega = jnp.sum(jnp.where(tied, not_p, -p) * weight, axis=1)
    delta = jnp.sum(p * not_p * weight, axis=1)

    sigma = jnp.sqrt(variance)
    shrink = jnp.sqrt(jnp.maximum(1.0 - delta * (variance / c**2) * (sigma / c), kappa))
    changed = played & is_match
    return Rating(
        jnp.where(changed, rating.mu + omega * variance / c, rating.mu),
        jnp.where(changed, sigma * shrink, rating.sigma),
    )


def loss_rating(rating: Rating, *, z: float = 3.0) -> Float[Array, " n"]:
    """The rating that a peer has almost surely earned: ``LossRating = mu - z sigma`` (OpenSkill's ordinal).

    Args:
      rating: of n peers.
      z: deviations of caution.

    Returns:
      float[n], in units of mu; 0 for a new peer, negative for one that keeps losing.
    """
    return rating.mu - z * rating.sigma


def ranks_from_scores(
    scores: Float[Array, " n"], played: Bool[Array, " n"], tiebreak: UInt32[Array, " n"]
) -> Int[Array, " n"]:
    """Strict places of a match: the highest score is rank 0.

    Args:
      scores: LossScores on the random batch, nats/token. NaN, which any peer can provoke, comes last of those
        that played.
      played: bool[n]; who did not play is placed after everyone who did.
      tiebreak: uint32[n], the smaller wins an exact tie. It should come from hash(beacon, peer), so that
        nobody can choose to win ties; equal ones fall back on the position.

    Returns:
      int32[n], a permutation of 0..n-1.
    """
    order = jnp.lexsort(
        (tiebreak, -scores, ~played)
    )  # the last key counts first; NaN sorts behind every number
    return jnp.zeros(scores.shape, jnp.int32).at[order].set(jnp.arange(scores.size, dtype=jnp.int32))
