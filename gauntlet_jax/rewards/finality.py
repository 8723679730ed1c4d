"""Finality: which validator may post a round's record, and when a posted one stands. Pure rules over stakes and times.

Commits to weights are taken from the close of the put window for W seconds, and no record is posted before: it would show its
validator's scores. One record a round is final. The lead, of the largest stake, may post when the commits are closed; each next
in rank T seconds later, or at once when all before it have been vetoed. A record is final V seconds after it was posted, unless
more than half of the stake has rejected it by then. With two validators the larger stake cannot be overruled.
"""

import math
from collections.abc import Collection, Mapping
from fractions import Fraction


def succession(stakes: Mapping[str, float]) -> list[str]:
    """The validators in the order of their turns: the largest stake first, equal ones as they are given."""
    return sorted(stakes, key=lambda name: -stakes[name])


def may_post(
    validator: str,
    stakes: Mapping[str, float],
    vetoed: Collection[str],
    *,
    now: float,
    commits_close: float,
    succession_seconds: float,
) -> bool:
    """Whether it is a validator's turn to post.

    Args:
      validator: who wants to.
      stakes: > 0, by validator.
      vetoed: validators whose records of this round were vetoed; they are out.
      now: seconds.
      commits_close: when the commits to weights were closed, seconds of the same clock.
      succession_seconds: T.
    """
    order = succession(stakes)
    if validator not in stakes or validator in vetoed or now < commits_close:
        return False
    rank = order.index(validator)
    return now >= commits_close + rank * succession_seconds or all(name in vetoed for name in order[:rank])


def is_vetoed(stakes: Mapping[str, float], rejecting: Collection[str]) -> bool:
    """Whether those who reject a record hold more than half of the stake, counted exactly, as the numbers are written."""
    exact = {name: Fraction(repr(float(stake))) for name, stake in stakes.items()}
    return 2 * sum(stake for name, stake in exact.items() if name in rejecting) > sum(exact.values())


def commits_close_at(closes: float, awake_since: float, *, weights_seconds: float) -> float:
    """When the commits to a round's weights are closed, seconds.

    Args:
      closes: when the put window closes, seconds.
      awake_since: since when the ledger has been there without a break, seconds: whoever could not reach it has W after that.
      weights_seconds: W.
    """
    return max(closes, awake_since) + weights_seconds


def final_at(posted_at: float, awake_since: float, *, veto_seconds: float) -> float:
    """When a posting that is not vetoed becomes final, seconds.

    Args:
      posted_at: seconds.
      awake_since: since when the ledger has been there without a break, seconds: what was posted before an outage can be
        vetoed for V after it.
      veto_seconds: V.
    """
    return max(posted_at, awake_since) + veto_seconds


def tick_from(at: float, *, genesis: float, seconds: float) -> float:
    """The first ``genesis + n * seconds``, n >= 0, that is not before ``at``: a round begins there, so it waits for finality."""
    ticks = max(0, math.ceil((Fraction(at) - Fraction(genesis)) / Fraction(seconds)))
    return float(Fraction(genesis) + ticks * Fraction(seconds))


def begins_at(due: float, now: float, *, seconds: float) -> float | None:
    """When a round begins that is due, if it can begin now; None if not.

    It begins at a tick, and only one that the ledger has just seen: who was to take part could not know of a beginning during
    an outage of the ledger, so the round waits for the next tick. An outage costs time, and never a round.

    Args:
      due: the first tick at which it may begin.
      now: seconds.
      seconds: between two ticks.
    """
    if now < due:
        return None
    passed = (Fraction(now) - Fraction(due)) // Fraction(seconds)
    tick = float(Fraction(due) + passed * Fraction(seconds))
    return tick if now - tick <= min(1.0, seconds / 8) else None
