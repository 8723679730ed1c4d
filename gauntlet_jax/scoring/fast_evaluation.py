"""Fast evaluation: the cheap checks that every artifact of a round must pass (Gauntlet, section on F_t)."""

import math
from typing import Literal, NamedTuple, TypeAlias

from gauntlet_jax.types import PeerId

Reason: TypeAlias = Literal[
    "missing",
    "unreachable",
    "early",
    "late",
    "malformed",
    "out_of_sync",
    "duplicate",
    "uncommitted",
    "altered",
]


class Window(NamedTuple):
    """The put window: from its opening up to, but without, its closing.

    Half open, since providers cut times down to whole seconds: with windows that begin and end on whole seconds an
    object is then judged exactly as by its true time.

    Attributes:
      opens: seconds, on the same clock as the upload times.
      closes: seconds.
    """

    opens: float
    closes: float


class Observation(NamedTuple):
    """What a validator saw of one peer's artifact.

    Attributes:
      uploaded_at: the storage provider's time of the upload, seconds; None if there is no artifact.
      malformed: why the artifact could not be read, as one clause; None if it is well-formed.
      sync_score: distance from the validator's parameters in signed steps; None without a readable probe.
      duplicate_of: the peer whose payload it repeats; None if it is its own.
      unreachable: how its bucket failed, as one clause; None if it answered.
      uncommitted: what is wrong with the commit that had to come before it, as one clause; None if nothing is.
      altered: which earlier artifact was changed after it had been judged, as one clause; None if none was.
    """

    uploaded_at: float | None
    malformed: str | None
    sync_score: float | None
    duplicate_of: PeerId | None
    unreachable: str | None = None
    uncommitted: str | None = None
    altered: str | None = None


class Refusal(NamedTuple):
    """Why an artifact is not evaluated.

    Attributes:
      reason: a fixed word, which counts and standings go by.
      detail: one clause for a reader.
    """

    reason: Reason
    detail: str


def refusal(observation: Observation, window: Window, *, max_sync_score: float) -> Refusal | None:
    """The first check that an artifact fails.

    The order is that of the work each takes, so that a refused artifact costs the validator least: presence
    and time (a HEAD request), form (a bounded read), commit (a digest), probe (a comparison), duplicate (a look at
    everybody else's), and what it did to earlier ones. Hence a copy that also shows its victim's probe is ``out_of_sync``.

    Args:
      observation: what was seen.
      window: when uploads counted.
      max_sync_score: signed steps, the largest that passes. The paper's 3 lets a peer five rounds behind
        through, because signed steps partly cancel; honest peers read 0.

    Returns:
      None if it may be evaluated.
    """
    return _refusal_by_time(observation, window) or _refusal_by_content(observation, max_sync_score)


def _refusal_by_time(observation: Observation, window: Window) -> Refusal | None:
    at = observation.uploaded_at
    if observation.unreachable is not None:
        return Refusal("unreachable", observation.unreachable)
    if at is None and observation.malformed is not None:
        return None  # something is there, and could not be read far enough to tell when it came
    if at is None or not math.isfinite(at):
        return Refusal("missing", "no artifact in its bucket")
    if at < window.opens:
        return Refusal("early", f"uploaded {window.opens - at:.1f} s before the window opened")
    if at >= window.closes:
        return Refusal("late", f"uploaded {at - window.closes:.1f} s after the window closed")
    return None


def _refusal_by_content(observation: Observation, max_sync_score: float) -> Refusal | None:
    if observation.malformed is not None:
        return Refusal("malformed", observation.malformed)
    if observation.uncommitted is not None:
        return Refusal("uncommitted", observation.uncommitted)
    steps = observation.sync_score
    if steps is None or not math.isfinite(steps):
        return Refusal("out_of_sync", "no usable sync probe")
    if steps > max_sync_score:
        return Refusal(
            "out_of_sync",
            f"{steps:.2f} signed steps from the validator's parameters, {max_sync_score:.2f} allowed",
        )
    if observation.duplicate_of is not None:
        return Refusal("duplicate", f"same payload as {observation.duplicate_of}")
    if observation.altered is not None:
        return Refusal("altered", observation.altered)
    return None
