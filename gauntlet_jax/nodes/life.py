"""The life of a process of a run: a turn after the other, until the run is over; an outage is waited out."""

import threading
from collections.abc import Callable

from gauntlet_jax.nodes.replica import Replica
from gauntlet_jax.nodes.shared_run import POLL_SECONDS, SharedRun
from gauntlet_jax.rewards.ledger import LedgerRefused, RunStatus

RETRY_SECONDS = 1.0


class Complaints:
    """Says a trouble once, not at every try."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Complaints to a node's operator, who gets lines through ``say``."""
        self._say = say
        self._last = ""

    def about(self, trouble: object) -> None:
        """Says it, unless it was said last."""
        if str(trouble) != self._last:
            self._say(f"{trouble}; trying again")
            self._last = str(trouble)

    def end(self) -> None:
        """It is over: the same would be news."""
        self._last = ""


def live(
    run: SharedRun,
    replica: Replica,
    turn: Callable[[RunStatus, threading.Event], None],
    stop: threading.Event,
    complaints: Complaints,
) -> None:
    """Takes turns until the replica has followed the run to its end, or ``stop`` is set.

    Args:
      run: the node's.
      replica: the node's.
      turn: what it does, given where the run stands; called again and again, at least every fraction of a second.
      stop: ends it.
      complaints: about what is waited out.

    Raises:
      ValueError: this node cannot take part in the run at all.
    """
    while not stop.is_set():
        try:
            status = run.ledger.status()
            if status.round is None:
                stop.wait(POLL_SECONDS)
                continue
            turn(status, stop)
            complaints.end()
        except (OSError, LedgerRefused) as error:
            complaints.about(error)
            stop.wait(RETRY_SECONDS)
        if replica.round >= run.rules.rounds:
            run.say(f"the run is over, parameters {replica.digest(replica.params)}")
            return
