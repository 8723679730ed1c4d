"""Columns of runs that nobody ran, to compute with by hand."""

import numpy as np

from gauntlet_jax.lab.recorded import Recorded


def recorded(peer_score, *, own=1, **columns) -> Recorded:
    """A run with these PeerScores, [rounds][peers]; everybody is payable, accepted, and declares one sequence."""
    scores = np.array(peer_score, float)
    rounds, peers = scores.shape
    given = {
        "rating_mu": np.full(scores.shape, 25.0),
        "rating_sigma": np.full(scores.shape, 25.0 / 3.0),
        "proof_of_computation": np.full(scores.shape, 0.5),
        "standing": np.ones(scores.shape),
        "evaluations": np.arange(1, rounds + 1)[:, None].repeat(peers, axis=1),
        "payout": np.zeros(scores.shape, np.int64),
        "rank": np.arange(peers)[None, :].repeat(rounds, axis=0),
        "declared": np.ones(scores.shape, np.int64),
        "payable": np.ones(scores.shape, bool),
        "slashed": np.zeros(scores.shape, bool),
        "refused": np.zeros(scores.shape, bool),
        "aggregated": np.ones(scores.shape, bool),
        "random_score": np.full(scores.shape, np.nan),
        "assigned_score": np.full(scores.shape, np.nan),
        "heldout_loss": np.full(rounds, np.nan),
        **{name: np.array(column) for name, column in columns.items()},
    }
    return Recorded(own=own, names=tuple(f"p{i}" for i in range(peers)), peer_score=scores, **given)
