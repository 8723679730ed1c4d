"""Proof of computation: did the peer train on the data it was assigned? (Gauntlet, section on mu_p.)

An update fits the data it was computed from better than other data of the same distribution. Plain floats:
this is a row of the validator's state, and an auditor recomputes it to the bit.
"""


def update_proof(proof: float, assigned_score: float, random_score: float, *, gamma: float = 0.95) -> float:
    """One evaluation's contribution to mu_p.

    ``mu_p <- gamma mu_p + (1 - gamma) sign(LossScore_p(D_assigned) - LossScore_p(D_random))``, where a tie
    counts as -1: a peer that sends nothing scores 0 on both. NaN counts as -1 too.

    Args:
      proof: mu_p before, in [-1, 1], 0 at the start.
      assigned_score: LossScore on assigned data, nats/token.
      random_score: LossScore on the round's random batch, nats/token.
      gamma: memory; 0.95 looks back on about 20 evaluations.

    Returns:
      mu_p after, in [-1, 1]. Towards +1 = it trained on its own data, around 0 = copied or trained on
      something else.
    """
    # A comparison, not the sign of a difference: both scores may be infinite.
    sign = 1.0 if assigned_score > random_score else -1.0
    return gamma * proof + (1.0 - gamma) * sign


def bias_corrected(proof: float, evaluations: int, *, gamma: float = 0.95) -> float:
    """mu_p as an average of the evaluations so far, without the pull of its start at 0.

    ``mu_hat_p = mu_p / (1 - gamma^n)``, as Adam corrects its moments.

    Args:
      proof: mu_p after n evaluations.
      evaluations: n.
      gamma: the memory with which ``proof`` was updated, in [0, 1).

    Returns:
      In [-1, 1] up to rounding; 0 while n = 0.
    """
    if evaluations == 0:
        return 0.0
    return proof / (1.0 - gamma**evaluations)
