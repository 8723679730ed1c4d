"""What the processes of a run share: a ledger, public buckets and the final records; nothing else passes between them."""

import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import optax

from gauntlet_jax.nodes.beacon import Beacon
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.hosts import SOLE_HOST, Hosts
from gauntlet_jax.nodes.inspection import Member
from gauntlet_jax.nodes.peer import Opening
from gauntlet_jax.nodes.public_run import NoRecord, PublicRun
from gauntlet_jax.nodes.published_record import PublishedRecord
from gauntlet_jax.nodes.replica import Replica
from gauntlet_jax.rewards.ledger import Posting, RunStatus, SharedLedger
from gauntlet_jax.storage.bucket import ReadableBucket
from gauntlet_jax.types import PeerId

POLL_SECONDS = 0.25


class RunRules(NamedTuple):
    """What a node knows of its run from the terms.

    Attributes:
      run: the run's name.
      rounds: where it ends.
      slots: places for peers.
      times: how a round is cut up.
      commit_reveal: whether artifacts are committed to first.
      learning_rate: alpha_t.
      stakes: of the validators, in the terms' order.
      succession_seconds: T, between the turns of two validators.
      veto_seconds: V, in which a posted record can be rejected.
      checkpoint_every: rounds between two published checkpoints.
      corpus: sha256 of the training text of this node.
    """

    run: str
    rounds: int
    slots: int
    times: RoundTimes
    commit_reveal: bool
    learning_rate: optax.Schedule
    stakes: Mapping[str, float]
    succession_seconds: float
    veto_seconds: float
    checkpoint_every: int
    corpus: str


class SharedRun(PublicRun):
    """A run as one of its processes sees it."""

    def __init__(
        self,
        ledger: SharedLedger,
        rules: RunRules,
        *,
        beacon: Beacon,
        open_bucket: Callable[[str], ReadableBucket],
        say: Callable[[str], None],
        hosts: Hosts = SOLE_HOST,
    ):
        """A view of a run.

        Args:
          ledger: of the run.
          rules: from its terms.
          beacon: of the run.
          open_bucket: a public address to a bucket to read; ValueError for one that this node does not accept.
          say: takes a line for the node's operator.
          hosts: that the node consists of.
        """
        super().__init__(ledger, run=rules.run, slots=rules.slots, open_bucket=open_bucket, say=say)
        self.rules = rules
        self._hosts = hosts
        self._beacon = beacon

    def opening(self, status: RunStatus) -> Opening:
        """The current round, as everybody knows it."""
        assert status.round is not None and status.start is not None
        return self.opening_of(status.round, status.start)

    def opening_of(self, round: int, start: float) -> Opening:
        """A round that has begun at ``start``, seconds of the run's clock."""
        rules = self.rules
        return Opening(
            rules.run,
            round,
            rules.times.window(start),
            rules.times.commit_window(start) if rules.commit_reveal else None,
            self._beacon.opening(round),
            float(np.asarray(rules.learning_rate(round))),
        )

    def closing(self, round: int) -> bytes:
        """The beacon that nobody knew before the round's put window had closed."""
        return self._beacon.closing(round)

    def members(self, round: int) -> dict[PeerId, Member]:
        """The peers that take part in a round, by name."""
        return {
            entry.name: Member(entry.name, entry.slot, self.bucket(entry.bucket), entry.public_key)
            for entry in self.ledger.registrations(round)
            if entry.slot is not None
        }

    def join(self, replica: Replica, round: int) -> None:
        """Takes up the newest published checkpoint that is newer than the replica, and of a round up to ``round``.

        A checkpoint is believed for its digest alone, which the final record of the round before it has.
        """
        every = self.rules.checkpoint_every
        buckets = [self.bucket(entry.bucket) for entry in self.validators()]
        for candidate in range(round // every * every, replica.round, -every):
            posting = self.ledger.record(candidate - 1)
            if posting is None:
                continue
            digest = self._together(posting).record.params_digest
            if any(replica.restore_published(bucket, candidate, digest) for bucket in buckets):
                self.say(f"took up the checkpoint of round {candidate}")
                return

    def catch_up(
        self,
        replica: Replica,
        round: int,
        *,
        stop: threading.Event,
        followed: Callable[[PublishedRecord], None] = lambda published: None,
    ) -> None:
        """Follows the final records as far as there are any.

        Args:
          replica: moves on.
          round: where it must be at the least.
          stop: ends it between two rounds.
          followed: called after each round.

        Raises:
          NoRecord: a record cannot be had now: try again later.
          Diverged: a final record cannot be followed at all.
          ValueError: the run trains on another text than this node.
        """
        if round - replica.round > self.rules.checkpoint_every:
            self.join(replica, round)
        while not stop.is_set() and replica.round < self.rules.rounds:
            posting = self.ledger.record(replica.round)
            if posting is None and replica.round >= round:
                return
            if posting is None:
                raise NoRecord(f"round {replica.round}: the ledger has no final record yet")
            published = self._together(posting)
            self.check_corpus(published)
            buckets = self.buckets_for(posting)
            params = replica.after(published, self.members(replica.round), buckets)
            replica.move_to(params, replica.round + 1)
            followed(published)

    def _together(self, posting: Posting) -> PublishedRecord:
        """The record that a validator posted, once all hosts of this node have it."""
        return self._hosts.together(lambda: self.posted(posting))

    def buckets_for(self, posting: Posting) -> list[ReadableBucket]:
        """The validators' buckets, the one of a record's own validator first."""
        entries = sorted(self.validators(), key=lambda entry: entry.name != posting.validator)
        return [self.bucket(entry.bucket) for entry in entries]

    def check_corpus(self, published: PublishedRecord) -> None:
        """Raises ValueError if a record was made with another text than this node's."""
        if published.corpus != self.rules.corpus:
            raise ValueError(
                f"this run trains on another text than this node has ({self.rules.corpus[:12]} here,"
                f" {published.corpus[:12]} there; the default text differs between Python versions): give --data-path"
            )
