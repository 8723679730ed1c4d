"""How peers are judged: the constants of a validator."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ValidatorRules:
    """How peers are judged.

    Attributes:
      sample_size: peers evaluated by their loss a round, |S_t|; None evaluates everyone accepted.
      sample_batches: batches of data that a peer is evaluated on, of its own and of random ones. More tell peers with much data
        from several with little each, whom too small a sample pays as much.
      top_g: G, the peers whose pseudo-gradients make the update.
      step_fraction: c in beta_t = c * alpha_t, the step at which a LossScore is probed.
      max_sync_score: largest accepted distance of a sync probe, in signed steps (paper: 3; honest peers read 0).
      proof_decay: gamma of the proof of computation.
      rating_beta: noise of one performance in the OpenSkill match, in units of mu.
      rating_tau: uncertainty added to a rating before each match.
      slash_factor: phi, what a failed round multiplies the standing by.
      slashes_per_outage: consecutive failures for one reason that count.
      forgiven_after: clean rounds that undo one slash.
      overlap_floor: pairs that share fewer of their indices are never suspected.
      overlap_deviations: MADs above the round's median from which a pair is suspected.
      negative_scores_exclude: this many negative LossScores in a row keep a peer out of the update.
    """

    sample_size: int | None = None
    sample_batches: int = 1
    top_g: int = 15
    step_fraction: float = 0.2
    max_sync_score: float = 3.0
    proof_decay: float = 0.95
    rating_beta: float = 7.0
    rating_tau: float = 0.1
    slash_factor: float = 0.75
    slashes_per_outage: int = 3
    forgiven_after: int = 5
    overlap_floor: float = 0.4
    overlap_deviations: float = 6.0
    negative_scores_exclude: int = 3
