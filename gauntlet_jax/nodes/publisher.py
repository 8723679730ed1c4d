"""What a validator shows of its work: its record, copies of the artifacts that it aggregates, the signed update, checkpoints.

Nothing of a round is shown before the commits to weights are closed, since whoever copies weights would read them off it: until
then it waits in a folder of the validator's own.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gauntlet_jax.nodes.published_record import PublishedRecord, judged_key, publish, record_key
from gauntlet_jax.nodes.record import RoundRecord
from gauntlet_jax.nodes.shared_run import SharedRun
from gauntlet_jax.storage.artifact import write_copy
from gauntlet_jax.storage.bucket import Bucket
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.publication import copy_key, signs_of, write_checkpoint, write_update
from gauntlet_jax.types import Params

_PREFIXES = ("copies/", "updates/")
_MOST_OBJECTS = 100_000


class Publishing(NamedTuple):
    """What a validator needs to publish.

    Attributes:
      identity: its keys.
      bucket: its own, to write.
      unpublished: of this node alone: what waits until it may be shown.
      slots: of the run.
      heldout_loss: ``params -> nats/token``.
      heldout_every: rounds between two measurements.
      signed: whether updates are signs, and so can be published at one bit a parameter.
      checkpoints_kept: published checkpoints that stay.
    """

    identity: Identity
    bucket: Bucket
    unpublished: Bucket
    slots: int
    heldout_loss: Callable[[Params], float]
    heldout_every: int
    signed: bool
    checkpoints_kept: int


class Publisher:
    """Signs, puts aside and shows."""

    def __init__(self, run: SharedRun, validator: str, publishing: Publishing) -> None:
        """The publisher of a validator.

        Args:
          run: its run.
          validator: its name.
          publishing: what it signs and writes with.
        """
        self._run = run
        self._validator = validator
        self._publishing = publishing

    def prepare(
        self,
        record: RoundRecord,
        update: Params,
        received: Callable[[int], tuple[dict[str, np.ndarray], bytes]],
    ) -> PublishedRecord:
        """Signs a record, and puts aside what is to be shown with it, in place of what was put aside before.

        Args:
          record: as it was judged.
          update: of the round, shaped like the parameters.
          received: ``slot -> (arrays, manifest)`` of the artifacts that it aggregates, as their peers have signed them: whoever
            follows the record depends on no peer's bucket.

        Raises:
          OSError: the disk is full.
        """
        aside, members = self._publishing.unpublished, self._run.members(record.round)
        for prefix in _PREFIXES:
            aside.delete_prefix(prefix)
        for peer in record.peers:
            if peer.aggregated:
                write_copy(aside, copy_key(record.round, peer.name), *received(members[peer.name].slot))
        planes, sha256 = (
            write_update(aside, record.round, signs_of(update)) if self._publishing.signed else (0, "")
        )
        return publish(
            record,
            run=self._run.rules.run,
            validator=self._validator,
            corpus=self._run.rules.corpus,
            update_planes=planes,
            update_sha256=sha256,
            identity=self._publishing.identity,
        )

    def show(self, own: PublishedRecord) -> None:
        """Publishes a record and what was put aside for it; may be repeated.

        Raises:
          OSError: the bucket cannot be written.
        """
        aside, bucket, round = self._publishing.unpublished, self._publishing.bucket, own.record.round
        for prefix in _PREFIXES:
            # Of this round alone: what is put aside already for the next one must wait for its own commits.
            for key in aside.list(f"{prefix}{round:08d}/", limit=_MOST_OBJECTS):
                head = aside.head(key)
                if head is not None:
                    bucket.put(key, aside.get(key, max_bytes=head.size).data)
        # Last, since they say that the others are there.
        bucket.put(record_key(round, own.digest), own.document)
        bucket.put(judged_key(round), own.document)
        outdated = round - self._run.rules.checkpoint_every * (self._publishing.checkpoints_kept + 1)
        if outdated >= 0:
            bucket.delete_prefix(f"copies/{outdated:08d}/")

    def keep(self, published: PublishedRecord) -> None:
        """Keeps a second copy of another validator's record: that one's bucket may be gone tomorrow."""
        if published.validator != self._validator:
            self._publishing.bucket.put(
                record_key(published.record.round, published.digest), published.document
            )

    def checkpoint(self, round: int, flat: np.ndarray) -> None:
        """Publishes theta of a round's beginning, and takes an outdated one away."""
        bucket = self._publishing.bucket
        write_checkpoint(bucket, round, flat)
        outdated = round - self._publishing.checkpoints_kept * self._run.rules.checkpoint_every
        if outdated > 0:
            bucket.delete_prefix(f"checkpoints/{outdated:08d}/")
