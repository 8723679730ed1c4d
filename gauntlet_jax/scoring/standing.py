"""Standing: the memory of failed rounds, kept apart from the score so that no later evaluation undoes it.

In the paper a failed fast evaluation multiplies the peer's score by phi. A score that is recomputed at the
next evaluation forgets that; a factor of its own does not.
"""

import sys

from gauntlet_jax.types import PeerHistory


def update_standing(
    history: PeerHistory,
    failure: str | None,
    *,
    phi: float = 0.75,
    most_in_a_row: int = 3,
    forgiven_after: int = 5,
) -> PeerHistory:
    """A peer's history after a round, with its standing s_p.

    ``s_p <- phi s_p`` in a failed round, but at most ``most_in_a_row`` times for one outage (consecutive
    failures for the same reason), so that an honest peer's long night costs what three rounds cost;
    ``s_p <- min(1, s_p / phi)`` after every ``forgiven_after`` clean rounds in a row.

    Args:
      history: before the round.
      failure: why the round failed for this peer (a refusal's reason, or ``overlap``); None if it was clean.
      phi: factor of one failure, in (0, 1).
      most_in_a_row: failures of one outage that count.
      forgiven_after: clean rounds that undo one failure.

    Returns:
      The history with ``standing`` in (0, 1] and the counts it rests on; nothing else is changed.

    Raises:
      ValueError: ``failure`` is the empty string, which means a clean round in a history.
    """
    if failure is None:
        clean = history.clean_in_a_row + 1
        forgiven = clean % forgiven_after == 0
        return history._replace(
            standing=min(1.0, history.standing / phi) if forgiven else history.standing,
            failed_in_a_row=0,
            clean_in_a_row=clean,
            last_failure="",
        )
    if not failure:
        raise ValueError("a failure needs a reason; pass None for a clean round")
    failed = history.failed_in_a_row + 1 if failure == history.last_failure else 1
    # Floored at the smallest normal float: at zero no number of clean rounds could ever raise it again.
    lowered = max(history.standing * phi, sys.float_info.min)
    return history._replace(
        standing=lowered if failed <= most_in_a_row else history.standing,
        failed_in_a_row=failed,
        clean_in_a_row=0,
        last_failure=failure,
    )
