"""Scoring: evidence in, numbers out (layer 1).

Pure functions, one concept a file: no I/O, no clock, no state but what is passed in. A round uses them in
this order: duplicates and fast evaluation sift the artifacts, ``draw_for_evaluation`` picks S_t, the
LossScores are measured, the match updates the LossRating and the sign the proof of computation, standing
remembers failures, and the PeerScore combines them; ``top_g`` picks whose updates are applied.
"""

from gauntlet_jax.scoring.duplicates import first_of_duplicates
from gauntlet_jax.scoring.fast_evaluation import Observation, Reason, Refusal, Window, refusal
from gauntlet_jax.scoring.loss_rating import Rating, initial_rating, loss_rating, ranks_from_scores, rate
from gauntlet_jax.scoring.loss_score import assigned_loss_score, loss_score, random_loss_score, score_all
from gauntlet_jax.scoring.overlap import index_overlap, later_of_pairs, overlapping_pairs
from gauntlet_jax.scoring.peer_score import gated_peer_score, loss_rating_of, paper_peer_score, with_standing
from gauntlet_jax.scoring.proof_of_computation import bias_corrected, update_proof
from gauntlet_jax.scoring.selection import draw_for_evaluation, top_g
from gauntlet_jax.scoring.standing import update_standing
from gauntlet_jax.scoring.sync_score import probe_indices, sync_score, take_probe

__all__ = [
    "Observation",
    "Rating",
    "Reason",
    "Refusal",
    "Window",
    "assigned_loss_score",
    "bias_corrected",
    "draw_for_evaluation",
    "first_of_duplicates",
    "gated_peer_score",
    "index_overlap",
    "initial_rating",
    "later_of_pairs",
    "loss_rating",
    "loss_rating_of",
    "loss_score",
    "overlapping_pairs",
    "paper_peer_score",
    "probe_indices",
    "random_loss_score",
    "ranks_from_scores",
    "rate",
    "refusal",
    "score_all",
    "sync_score",
    "take_probe",
    "top_g",
    "update_proof",
    "update_standing",
    "with_standing",
]
