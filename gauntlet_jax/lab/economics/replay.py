"""A run's pay under other rules than it was run with, from what was recorded; nothing is simulated anew.

Exact for what only divides the pay. A rule that would also have changed who is aggregated (another rating) is replayed on
the matches as they were, which is what it would have been up to the slightly different model.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gauntlet_jax import scoring
from gauntlet_jax.lab.recorded import Recorded, column_names
from gauntlet_jax.rewards.incentive import incentives
from gauntlet_jax.rewards.rules import RewardRules
from gauntlet_jax.types import PeerHistory


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a run was judged with, where a replay must know it.

    Attributes:
      payable_after: evaluations before a peer may be paid.
      proof_gate: its bias-corrected proof must be above it to be paid, and counts in full from it on.
      proof_decay: gamma of the proof of computation.
      rating_beta: noise of one performance in a match.
      rating_tau: uncertainty added to a rating before each match.
    """

    payable_after: int
    proof_gate: float
    proof_decay: float = 0.95
    rating_beta: float = 7.0
    rating_tau: float = 0.1


@dataclasses.dataclass(frozen=True)
class PayRule:
    """How what is known of the peers becomes shares; the defaults replay the run as it was paid.

    Attributes:
      power: c in incentive = PeerScore^c / sum PeerScore^c.
      top: only the highest ``top`` PeerScores share; None: all.
      data_power: the PeerScore is multiplied by (declared sequences)^data_power first; 0 leaves it.
      proof_gate: the bias-corrected proof at which a peer counts in full and above which it may be paid; None: as in the run.
      rating_beta: the matches are rated again with this noise of a performance; None: as in the run.
    """

    power: float = 2.0
    top: int | None = None
    data_power: float = 0.0
    proof_gate: float | None = None
    rating_beta: float | None = None


def shares(run: Recorded, rule: PayRule, settings: Settings) -> Float[np.ndarray, " peers"]:
    """Each peer's share of all that the peers were paid in a run.

    ``share_p = sum_t incentive_p(t) payable_p(t) / sum_q sum_t incentive_q(t) payable_q(t)``: every round has the same emission.

    Args:
      run: the columns.
      rule: how they become shares.
      settings: what the run was judged with.

    Returns:
      float64[peers] >= 0 that sum to 1, or all 0 where nobody was paid.
    """
    scores, payable = run.peer_score, run.payable
    if rule.proof_gate is not None or rule.rating_beta is not None:
        gate = settings.proof_gate if rule.proof_gate is None else rule.proof_gate
        mu, sigma = (
            (run.rating_mu, run.rating_sigma)
            if rule.rating_beta is None
            else rated_again(run, rule.rating_beta, settings.rating_tau)
        )
        scores, payable = _judged_again(run, mu, sigma, gate, settings)
    # No artifact counts as one sequence: a power of 0 then changes nothing.
    scores = scores * np.maximum(run.declared, 1.0) ** rule.data_power
    paid = np.zeros(len(run.names))
    for row, may in zip(scores, payable, strict=True):
        paid += incentives(row, power=rule.power, top=rule.top) * may
    total = paid.sum()
    return paid / total if total > 0 else paid


def rated_again(
    run: Recorded, beta: float, tau: float
) -> tuple[Float[np.ndarray, "rounds peers"], Float[np.ndarray, "rounds peers"]]:
    """The recorded matches rated with another ``beta``: mu and sigma after each round."""
    rating = scoring.initial_rating(len(run.names))
    mu, sigma = np.zeros(run.rank.shape), np.zeros(run.rank.shape)
    for t, ranks in enumerate(run.rank):
        rating = _rate(rating, jnp.asarray(ranks, jnp.int32), jnp.asarray(ranks >= 0), beta=beta, tau=tau)
        mu[t], sigma[t] = np.asarray(rating.mu), np.asarray(rating.sigma)
    return mu, sigma


def struck_out(run: Recorded, settings: Settings) -> Recorded:
    """The same run without the strategist's identities but the first: as if they had not taken part in any match.

    Everybody else's LossScores stay what they were, so the difference is the identities' alone. Where everybody is evaluated
    it is exact up to the model, which would have been trained without them; where some are drawn, up to the draw too.
    """
    kept = np.array([0, *range(run.own, len(run.names))])
    ranks = run.rank[:, kept]
    # Places among those who are left: 0, 1, 2 ... in the old order; -1, who did not play, is below all and stays.
    places = np.array([[(row[row >= 0] < rank).sum() if rank >= 0 else -1 for rank in row] for row in ranks])
    columns = {name: getattr(run, name)[:, kept] for name in column_names() if name != "rank"}
    names = tuple(run.names[i] for i in kept)
    alone = Recorded(own=1, names=names, heldout_loss=run.heldout_loss, rank=places, **columns)
    mu, sigma = rated_again(alone, settings.rating_beta, settings.rating_tau)
    scores, payable = _judged_again(alone, mu, sigma, settings.proof_gate, settings)
    return dataclasses.replace(alone, rating_mu=mu, rating_sigma=sigma, peer_score=scores, payable=payable)


def _judged_again(
    run: Recorded, mu: np.ndarray, sigma: np.ndarray, gate: float, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """PeerScores (standing included) and who may be paid, [rounds, peers]."""
    peer_score = scoring.gated_peer_score(threshold=gate, gamma=settings.proof_decay)
    rewards = RewardRules(payable_after=settings.payable_after, payable_proof=gate)
    scores, payable = np.zeros(run.rank.shape), np.zeros(run.rank.shape, bool)
    for t, p in np.ndindex(*run.rank.shape):
        history = PeerHistory(
            rating_mu=float(mu[t, p]),
            rating_sigma=float(sigma[t, p]),
            proof=float(run.proof_of_computation[t, p]),
            evaluations=int(run.evaluations[t, p]),
            standing=float(run.standing[t, p]),
        )
        scores[t, p] = scoring.with_standing(peer_score({}, history), history)
        proof = scoring.bias_corrected(history.proof, history.evaluations, gamma=settings.proof_decay)
        sound = run.declared[t, p] > 0 and not run.slashed[t, p]
        payable[t, p] = sound and rewards.may_be_paid(history.evaluations, proof)
    return scores, payable


def net_of_registration(share: float, identities: int, *, cost: float, one: float) -> float:
    """A share less what its identities cost: ``share - identities cost one``.

    Args:
      share: of what all peers were paid.
      identities: how many were registered for it.
      cost: of one registration, as a part of what one honest peer with one batch is paid in the run.
      one: that pay, as a share.
    """
    return share - identities * cost * one


_rate = jax.jit(scoring.rate, static_argnames=("beta", "tau"))
