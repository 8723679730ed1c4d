"""What one validator can say against another's record: facts that every honest reader of the same artifacts comes to."""

from collections.abc import Sequence

from gauntlet_jax.nodes.record import PeerRecord

_FAULTS = ("malformed", "uncommitted", "out_of_sync")
"""Refusals that follow from the artifact alone; the others depend on when and what else was read."""


def disagreement(theirs: Sequence[PeerRecord], own: Sequence[PeerRecord]) -> str | None:
    """What a record says of peers that this validator has seen to be false, as one clause; None if nothing is.

    Scores are not looked at: every validator has its own, and they are paid by consensus.

    Args:
      theirs: the record's peers.
      own: the same round as this validator has judged it.
    """
    seen = {peer.name: peer for peer in own}
    for peer in theirs:
        mine = seen.get(peer.name)
        if mine is None or not peer.aggregated or mine.digest != peer.digest:
            continue  # a peer that shows everybody something else has signed both: that is no fault of the record's
        if mine.refusal in _FAULTS:
            return f"it aggregates {peer.name}, whose artifact is refused here as {mine.refusal}"
    return None
