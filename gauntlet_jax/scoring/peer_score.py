"""PeerScore: one number a peer out of its rating, its proof of computation and its standing.

Plain floats on the host: a validator computes it once a peer and round, from the history it keeps.
"""

import functools
import math

from gauntlet_jax.scoring.proof_of_computation import bias_corrected
from gauntlet_jax.types import PeerHistory, PeerScoreFn, Scores


def paper_peer_score(scores: Scores, history: PeerHistory) -> float:
    """The paper's: ``PeerScore_p = max(0, mu_p) max(0, LossRating_p)``.

    Args:
      scores: of this round; unused, since the history holds what they did.
      history: after this round's match.

    Returns:
      >= 0, finite. 0 for a new peer, whose LossRating and mu_p are 0.
    """
    del scores
    return _positive(history.proof) * _positive(loss_rating_of(history))


def gated_peer_score(*, threshold: float = 0.5, gamma: float = 0.95) -> PeerScoreFn:
    """A PeerScore in which the proof of computation opens a gate instead of scaling the pay.

    ``PeerScore_p = clip(mu_hat_p / threshold, 0, 1) max(0, LossRating_p)``, ``mu_hat_p = mu_p / (1 -
    gamma^n)``.

    The proof answers a yes-or-no question, and once the answer is clear, more of it says nothing about the
    worth of the work. Multiplying by it all the way up punishes those whose signs come out noisier for honest
    reasons: a peer that trains on twice the data fits the checked part of it less closely, so its mu_p rises
    more slowly, and in a toy study it earned less than an equal share in one seed of three. A copier's mu_hat
    stays around 0 either way.

    Args:
      threshold: bias-corrected proof from which a peer counts in full, in (0, 1].
      gamma: the memory with which the proof is updated.

    Returns:
      A ``PeerScoreFn``; its values are >= 0 and finite.

    Raises:
      ValueError: ``threshold`` is outside (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"the threshold of the proof of computation is {threshold}; it must be in (0, 1]")

    # A partial of a named function, so that a config that holds it can be written down with its settings.
    return functools.partial(_gated, threshold=threshold, gamma=gamma)


def _gated(scores: Scores, history: PeerHistory, *, threshold: float, gamma: float) -> float:
    del scores
    proof = _positive(bias_corrected(history.proof, history.evaluations, gamma=gamma))
    return min(proof / threshold, 1.0) * _positive(loss_rating_of(history))


def with_standing(score: float, history: PeerHistory) -> float:
    """What counts: ``PeerScore_p s_p``, so that failed rounds outlive later good evaluations.

    Args:
      score: PeerScore, >= 0.
      history: with the standing s_p in (0, 1].

    Returns:
      >= 0; 0 where ``score`` is not a number above 0.
    """
    return _positive(score) * history.standing


def loss_rating_of(history: PeerHistory) -> float:
    """``LossRating_p = mu_p - 3 sigma_p`` from a row of a validator's state, in units of mu; 0 for a new peer."""
    return history.rating_mu - 3.0 * history.rating_sigma


def _positive(value: float) -> float:
    """The value where it is a finite number above 0, else 0: nothing else may be paid."""
    return value if math.isfinite(value) and value > 0.0 else 0.0
