"""A run as everybody may see it, an onlooker too: its ledger, its validators' buckets and the records in them."""

import hashlib
from collections.abc import Callable

from gauntlet_jax.nodes.published_record import (
    PublishedRecord,
    judged_key,
    max_record_bytes,
    read_published,
    record_key,
)
from gauntlet_jax.rewards.ledger import Posting, Registration, SharedLedger
from gauntlet_jax.storage.bucket import BucketUnavailable, Object, ObjectTooLarge, ReadableBucket
from gauntlet_jax.storage.signed_json import BadDocument


class NoRecord(OSError):
    """A record that the ledger knows cannot be had from any validator's bucket, now."""


class PublicRun:
    """What can be read of a run without taking part in it.

    Attributes:
      ledger: of the run.
      say: takes a line for the operator.
    """

    def __init__(
        self,
        ledger: SharedLedger,
        *,
        run: str,
        slots: int,
        open_bucket: Callable[[str], ReadableBucket],
        say: Callable[[str], None],
    ):
        """A view of a run.

        Args:
          ledger: of the run.
          run: its name.
          slots: places for peers: a bound on the size of a record.
          open_bucket: a public address to a bucket to read; ValueError for one that is not accepted here.
          say: takes a line for the operator.
        """
        self.ledger = ledger
        self.say = say
        self._run = run
        self._slots = slots
        self._open_bucket = open_bucket
        self._buckets: dict[str, ReadableBucket] = {}

    def validators(self) -> list[Registration]:
        """The registered validators, the largest stake first."""
        found = [entry for entry in self.ledger.registrations(None) if entry.slot is None]
        return sorted(found, key=lambda entry: -entry.stake)

    def bucket(self, address: str) -> ReadableBucket:
        """A public bucket; one that is not accepted here fails at every read."""
        if address not in self._buckets:
            try:
                self._buckets[address] = self._open_bucket(address)
            except ValueError as error:
                self.say(f"bucket {address.split('?', maxsplit=1)[0]} is not read: {error}")
                self._buckets[address] = _RefusedBucket()
        return self._buckets[address]

    def posted(self, posting: Posting) -> PublishedRecord:
        """The record that a validator posted, from its bucket or another validator's copy.

        Raises:
          NoRecord: no bucket has a document of that digest.
          BadDocument: the document is there, and is no record.
        """
        validators = self.validators()
        poster = next((entry for entry in validators if entry.name == posting.validator), None)
        if poster is None:
            raise NoRecord(f"round {posting.round}: its validator {posting.validator} is not registered")
        for entry in [poster, *(other for other in validators if other is not poster)]:
            try:
                found = self.bucket(entry.bucket).get(
                    record_key(posting.round, posting.digest), max_bytes=max_record_bytes(self._slots)
                )
            except (OSError, ObjectTooLarge):
                continue
            # Before anything is read of it: another validator's copy is only worth its digest.
            if hashlib.sha256(found.data).hexdigest() == posting.digest:
                return read_published(
                    found.data,
                    run=self._run,
                    round=posting.round,
                    validator=poster.name,
                    public_key=poster.public_key,
                    slots=self._slots,
                )
        raise NoRecord(
            f"round {posting.round}: the record of {posting.validator} is in no validator's bucket"
        )

    def judged(self, validator: Registration, round: int) -> PublishedRecord | None:
        """How a validator has judged a round itself; None if its bucket does not show that.

        Raises:
          BadDocument: what it shows is no record of its own.
          OSError: its bucket cannot be read now.
        """
        try:
            found = self.bucket(validator.bucket).get(
                judged_key(round), max_bytes=max_record_bytes(self._slots)
            )
        except FileNotFoundError:
            return None
        except ObjectTooLarge as error:
            raise BadDocument("it is longer than a record") from error
        return read_published(
            found.data,
            run=self._run,
            round=round,
            validator=validator.name,
            public_key=validator.public_key,
            slots=self._slots,
        )


class _RefusedBucket:
    """Stands for a bucket at an address that is not read here."""

    def head(self, key: str) -> None:
        """Fails."""
        raise BucketUnavailable("its address is not accepted here")

    def get(self, key: str, *, max_bytes: int) -> Object:
        """Fails."""
        raise BucketUnavailable("its address is not accepted here")
