"""A peer's bucket as a validator saw it in one round: the objects of now, under the times and outages of then."""

from gauntlet_jax.nodes.inspection import NOT_SEEN_IN_TIME
from gauntlet_jax.nodes.record import PeerRecord
from gauntlet_jax.scoring import Window
from gauntlet_jax.storage.bucket import BucketUnavailable, Head, Object, ReadableBucket
from gauntlet_jax.types import PeerId

_COMMIT = "/commit.json"
_READ = (None, "out_of_sync", "duplicate", "altered")
"""Refusals of artifacts that were read to their end."""


class ArtifactGone(Exception):
    """What a validator saw is not there any more; ``peer`` is whose it was."""

    def __init__(self, peer: PeerId) -> None:
        super().__init__(f"what {peer} had uploaded is not there any more")
        self.peer = peer


class ObservedBucket:
    """What is read of a bucket long after a round, so that the round comes out the same."""

    def __init__(self, bucket: ReadableBucket) -> None:
        """A bucket before the first round.

        Args:
          bucket: holds the objects.
        """
        self._bucket = bucket
        self._peer: PeerId = ""
        self._refusal: str | None = "missing"
        self._uploaded_at = 0.0
        self._committed_at: float | None = None

    def show(self, peer: PeerRecord, window: Window) -> None:
        """Goes to a round.

        Args:
          peer: what a validator observed in it.
          window: of the round.
        """
        self._peer = peer.name
        self._refusal = peer.refusal
        # Something that was there without a readable time was judged by its content: any time in the window will do.
        at = 0.0 if peer.uploaded_at is None else peer.uploaded_at
        self._uploaded_at = window.opens + at
        self._committed_at = None if peer.committed_at is None else window.opens + peer.committed_at
        if peer.detail == NOT_SEEN_IN_TIME:
            self._committed_at = None  # it was looked for between the windows, which nobody can do again

    def head(self, key: str) -> Head | None:
        """Time and size of an object; None if there was none."""
        self._check_reachable()
        found = None if self._is_missing(key) else self._bucket.head(key)
        return None if found is None else Head(self._time(key), found.size)

    def get(self, key: str, *, max_bytes: int) -> Object:
        """An object; errors as for every bucket.

        Raises:
          ArtifactGone: a validator saw one there.
        """
        self._check_reachable()
        if self._is_missing(key):
            raise FileNotFoundError(f"no object {key!r} was seen")
        try:
            data = self._bucket.get(key, max_bytes=max_bytes).data
        except FileNotFoundError as error:
            if self._refusal in _READ:
                raise ArtifactGone(self._peer) from error
            raise
        return Object(data, Head(self._time(key), len(data)))

    def _check_reachable(self) -> None:
        if self._refusal == "unreachable":
            raise BucketUnavailable("it was not reachable")

    def _is_missing(self, key: str) -> bool:
        return self._refusal == "missing" or (key.endswith(_COMMIT) and self._committed_at is None)

    def _time(self, key: str) -> float:
        at = self._committed_at if key.endswith(_COMMIT) else self._uploaded_at
        assert at is not None
        return at
