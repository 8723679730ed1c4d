"""A peer as a process of its own: follows the final records, and contributes to each round in time."""

import threading
from collections.abc import Callable
from typing import Any

from gauntlet_jax.nodes.hosts import Hosts
from gauntlet_jax.nodes.life import RETRY_SECONDS, Complaints, live
from gauntlet_jax.nodes.peer import Contribution, Opening, Peer, artifact_key
from gauntlet_jax.nodes.replica import Replica
from gauntlet_jax.nodes.shared_run import POLL_SECONDS, SharedRun
from gauntlet_jax.rewards.ledger import RunStatus
from gauntlet_jax.storage.bucket import Bucket
from gauntlet_jax.storage.checkpoint import Checkpoints


class PeerProcess:
    """The life of one peer, round after round.

    Attributes:
      contributed: the last round that it uploaded an artifact for; -1 before the first.
    """

    def __init__(
        self,
        run: SharedRun,
        peer: Peer,
        replica: Replica,
        *,
        bucket: Bucket,
        hosts: Hosts,
        checkpoints: Checkpoints,
        artifacts_kept: int,
    ):
        """A peer that has registered already.

        Args:
          run: its run.
          peer: what it does in a round.
          replica: its copy of the parameters.
          bucket: its own.
          hosts: that the node consists of.
          checkpoints: in a folder of its own, so that it goes on after a crash with its error feedback.
          artifacts_kept: rounds that its artifacts are kept.
        """
        self.contributed = -1
        self._run = run
        self._peer = peer
        self._replica = replica
        self._bucket = bucket
        self._hosts = hosts
        self._checkpoints = checkpoints
        self._artifacts_kept = artifacts_kept
        self._handled = -1
        self._complaints = Complaints(run.say)

    def restore(self) -> None:
        """Takes up its own newest checkpoint, if there is one."""
        found = self._checkpoints.restore_newest(self._arrays())
        for line in self._checkpoints.skipped:
            self._run.say(f"warning: {line}")
        if found is not None:
            round, arrays, _ = found
            self._replica.move_to(arrays["params"], round)
            self._peer.state = arrays["peer"]
            self._run.say(f"took up its own checkpoint of round {round}")

    def live(self, stop: threading.Event) -> None:
        """Contributes until the run is over or ``stop`` is set; an outage of ledger or storage is waited out.

        Raises:
          ValueError: this node cannot take part in the run at all.
        """
        try:
            live(self._run, self._replica, self._turn, stop, self._complaints)
        finally:
            self.save()

    def close(self) -> None:
        """Lets go of its files."""
        self._checkpoints.close()

    def save(self) -> None:
        """Stores its state, if that has moved on since it was stored last."""
        newest = self._checkpoints.newest()
        if self._replica.round > 0 and (newest is None or newest < self._replica.round):
            self._checkpoints.save(self._replica.round, self._arrays(), {})

    def _turn(self, status: RunStatus, stop: threading.Event) -> None:
        assert status.round is not None
        before = self._replica.round
        self._run.catch_up(self._replica, status.round, stop=stop)
        if (
            before // self._run.rules.checkpoint_every
            != self._replica.round // self._run.rules.checkpoint_every
        ):
            # Before the round's training, so that what is stored belongs together.
            self.save()
        if self._replica.round >= self._run.rules.rounds:
            return
        if self._handled >= status.round or self._replica.round > status.round or stop.is_set():
            stop.wait(POLL_SECONDS)
            return
        self._contribute(self._run.opening(status), stop)
        self._handled = status.round

    def _contribute(self, opening: Opening, stop: threading.Event) -> None:
        now, deadline = self._run.ledger.now, opening.window if opening.commits is None else opening.commits
        at = self._peer.upload_time(opening.window)
        if now() >= deadline.closes:
            self._run.say(f"round {opening.round}: too late to take part in it")
            return
        if at is None:
            return
        contribution = self._peer.prepare(opening, self._replica.params)
        if opening.commits is not None:
            if now() >= opening.commits.closes:
                self._run.say(f"round {opening.round}: too slow, the window for commits has closed")
                return
            self._retried(lambda: self._peer.commit(contribution), opening.commits.closes, stop)
        stop.wait(max(0.0, at - now()))
        if not stop.is_set():
            self._upload(contribution, opening, stop)

    def _upload(self, contribution: Contribution, opening: Opening, stop: threading.Event) -> None:
        self._retried(lambda: self._peer.upload(contribution), opening.window.closes, stop)
        self.contributed = opening.round
        self._run.say(f"round {opening.round}: uploaded")
        outdated = opening.round - self._artifacts_kept
        if outdated >= 0:
            self._hosts.told(lambda: self._bucket.delete_prefix(f"{artifact_key(outdated)}/"), None)

    def _retried(self, put: Callable[[], None], until: float, stop: threading.Event) -> None:
        """Puts, again and again while there is time."""
        while True:
            try:
                put()
                return
            except OSError as error:
                if stop.is_set() or self._run.ledger.now() + RETRY_SECONDS >= until:
                    raise
                self._complaints.about(error)
                stop.wait(RETRY_SECONDS)

    def _arrays(self) -> dict[str, Any]:
        return {"params": self._replica.params, "peer": self._peer.state}
