"""Duplicates: entries with the same decoded payload are one entry, and the first to be uploaded is its owner.

A clone tied with its victim in the match would drag the victim down, so only one of them may play.
"""

import math
from collections.abc import Sequence


def first_of_duplicates(
    digests: Sequence[str | None],
    uploaded_at: Sequence[float | None],
    *,
    tiebreak: Sequence[int] | None = None,
) -> list[int | None]:
    """For each peer the entry that it repeats, if any.

    The owner of a payload is the one with the earliest time; at equal times, the one with the smallest
    ``tiebreak``. Pass None for the digest of an entry that is refused for another reason, so that it owns nothing.

    Args:
      digests: digest of each peer's *decoded* payload (re-encoding the same values must not hide a copy), or
        None.
      uploaded_at: when each was uploaded, or committed to where commits are used, seconds by the storage
        provider's clock; None or a time that is not a number counts as last.
      tiebreak: for equal times, which providers that keep whole seconds make common; from hash(beacon, peer), so that
        nobody can choose to win. None takes the places in the list.

    Returns:
      A peer's index into the list where its payload is an earlier one's; None where it is the owner or has no
      digest.

    Raises:
      ValueError: the lists differ in length.
    """
    if len(digests) != len(uploaded_at):
        raise ValueError(f"{len(digests)} digests but {len(uploaded_at)} upload times")
    ties = range(len(digests)) if tiebreak is None else tiebreak
    if len(ties) != len(digests):
        raise ValueError(f"{len(digests)} digests but {len(ties)} tiebreaks")
    owner: dict[str, int] = {}
    for peer in sorted(
        range(len(digests)), key=lambda index: (_order(uploaded_at[index]), ties[index], index)
    ):
        digest = digests[peer]
        if digest is not None:
            owner.setdefault(digest, peer)
    return [
        None if digest is None or owner[digest] == peer else owner[digest]
        for peer, digest in enumerate(digests)
    ]


def _order(time: float | None) -> float:
    return math.inf if time is None or math.isnan(time) else time
