"""Fast evaluation at work: what strangers uploaded, looked at step by step and refused at the first fault.

Waiting for their buckets goes on side by side and within deadlines, so that a slow one delays nobody; checking what came is
done one artifact at a time, and what passes is put aside on disk, so that memory does not grow with the peers.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import numpy as np

from gauntlet_jax import scoring
from gauntlet_jax.compression import Format, SparseTensor
from gauntlet_jax.nodes.beacon import derive_int
from gauntlet_jax.nodes.peer import Opening, artifact_key, probe_key
from gauntlet_jax.nodes.stopwatch import Stopwatch
from gauntlet_jax.storage.artifact import (
    PROBE,
    MalformedArtifact,
    MissingArtifact,
    OutsideWindow,
    Received,
    Schema,
    last_change,
    payload_digest,
    read_artifact,
)
from gauntlet_jax.storage.bucket import ReadableBucket
from gauntlet_jax.storage.commit import Commit, MissingCommit, read_commit, reveals
from gauntlet_jax.storage.spool import Spool
from gauntlet_jax.types import Params, PeerId, PseudoGradient

NOT_SEEN_IN_TIME = "its commit was not there when the window for commits had closed"
_NO_ANSWER = "its bucket did not answer in time"


class Member(NamedTuple):
    """A registered peer, as a validator knows it.

    Attributes:
      name: its public name.
      slot: its place in the assignment.
      bucket: its public bucket, to read.
      public_key: what it signs with.
    """

    name: PeerId
    slot: int
    bucket: ReadableBucket
    public_key: str


class Seen(NamedTuple):
    """What was seen of one peer's artifact; None where it does not exist or could not be read.

    Attributes:
      uploaded_at: the provider's time, seconds of the run's clock.
      committed_at: the same of its commit; None where commit-reveal is off.
      bytes: its size as stored.
      declared: sequences that it says it trained on.
      digest: of its payload.
      sync_score: distance of its probe, in signed steps.
      malformed, unreachable, uncommitted: what is wrong with it, its bucket or its commit, as one clause.
    """

    uploaded_at: float | None = None
    committed_at: float | None = None
    bytes: int | None = None
    declared: int | None = None
    digest: str | None = None
    sync_score: float | None = None
    malformed: str | None = None
    unreachable: str | None = None
    uncommitted: str | None = None


class _Fetched(NamedTuple):
    """What came from a bucket, unchecked but for its form."""

    received: Received | None = None
    commit: Commit | None = None
    uploaded_at: float | None = None
    malformed: str | None = None
    unreachable: str | None = None
    uncommitted: str | None = None


class Inspector:
    """Reads the peers' public buckets and judges what needs no loss."""

    def __init__(
        self,
        *,
        schema: Schema,
        unpack: Callable[..., tuple[PseudoGradient, Any]],
        probe: Callable[..., Any],
        batch: int,
        max_declared: int,
        max_sync_score: float,
        stopwatch: Stopwatch,
        readers: int = 1,
        wait_seconds: float | None = None,
    ):
        """An inspector for one kind of artifact.

        Args:
          schema: of an artifact's arrays.
          unpack: ``arrays -> (pseudo_gradient, well_formed)``, compiled.
          probe: ``(params, key) -> probe``, compiled.
          batch: the fewest sequences that a peer may declare.
          max_declared: the most.
          max_sync_score: largest accepted distance of a probe, in signed steps.
          stopwatch: counts "storage" (waiting for buckets).
          readers: buckets that are read side by side; 1 reads them one by one in this thread.
          wait_seconds: with several readers, how long one round's reading may take in all; who has not answered by then
            is refused. None waits for everybody.
        """
        self._schema = schema
        self._unpack = unpack
        self._probe = probe
        self._batch = batch
        self._max_declared = max_declared
        self._max_sync_score = max_sync_score
        self._stopwatch = stopwatch
        self._readers = readers
        self._wait_seconds = wait_seconds
        self._spool = Spool(schema)
        self._documents: dict[int, bytes] = {}
        self._pool = ThreadPoolExecutor(readers, "bucket") if readers > 1 else None
        self._timeouts: dict[PeerId, int] = {}
        self._watched: tuple[int, dict[int, Commit | str]] = (-1, {})

    def watch(self, opening: Opening, members: Sequence[Member], *, seconds: float) -> None:
        """Takes down the commits of a round as they stand once the window for them has closed.

        Who runs the storage of its bucket can give an object any time. What was not there when this was called has come
        later, whatever its time says, and so has what a bucket took too long to show.

        Args:
          opening: the round.
          members: who is registered.
          seconds: for all of them; to be over before anybody shows an artifact.
        """
        found = self._side_by_side(functools.partial(self._fetch_commit, opening), members, seconds)
        self._watched = (
            opening.round,
            {member.slot: found.get(member.slot, _NO_ANSWER) for member in members},
        )

    def look(self, opening: Opening, params: Params, members: Sequence[Member]) -> dict[int, Seen]:
        """Presence, time, form, commit, probe: each only where the one before held.

        Returns:
          What was seen, by slot. The payloads of those with a digest can be had from ``sent`` until the next look.
        """
        return {
            member.slot: self._check(opening, params, member, fetched)
            for member, fetched in self._fetch_all(opening, members)
        }

    def sent(self, slot: int) -> PseudoGradient:
        """The pseudo-gradient of a peer whose artifact had a digest in the last look."""
        arrays = self._spool.get(slot)
        del arrays[PROBE]
        return self._unpack(arrays)[0]

    def received(self, slot: int) -> tuple[dict[str, np.ndarray], bytes]:
        """The whole artifact of such a peer: its arrays, and its manifest as it was signed."""
        return self._spool.get(slot), self._documents[slot]

    def changed(self, opening: Opening, members: Sequence[Member]) -> dict[PeerId, str]:
        """Who has changed an artifact since its window closed: their names, with a clause that says which.

        Args:
          opening: of a round that is over.
          members: those whose artifacts were accepted in it.
        """

        def fault(member: Member) -> str | None:
            try:
                at = last_change(member.bucket, artifact_key(opening.round), self._schema)
            except OSError:
                return None  # a bucket that fails now is judged in its own round
            if at is None:
                return f"its artifact of round {opening.round} was deleted after it had been judged"
            if at >= opening.window.closes:
                return f"its artifact of round {opening.round} was changed after it had been judged"
            return None

        found = self._side_by_side(fault, members, self._wait_seconds)
        return {member.name: clause for member in members if (clause := found.get(member.slot)) is not None}

    def fast_evaluation(
        self, opening: Opening, members: Sequence[Member], seen: dict[int, Seen], altered: dict[PeerId, str]
    ) -> dict[int, scoring.Refusal | None]:
        """F_t: everybody, cheaply. Duplicates are folded among those that nothing else speaks against.

        Args:
          opening: the round.
          members: who is registered.
          seen: from ``look``.
          altered: peers that changed an earlier artifact after it was judged, with a clause that says which.
        """
        check = functools.partial(scoring.refusal, window=opening.window, max_sync_score=self._max_sync_score)

        def observe(member: Member, duplicate_of: PeerId | None) -> scoring.Refusal | None:
            s = seen[member.slot]
            return check(
                scoring.Observation(
                    s.uploaded_at,
                    s.malformed,
                    s.sync_score,
                    duplicate_of,
                    s.unreachable,
                    s.uncommitted,
                    altered.get(member.name),
                )
            )

        alone = [observe(member, None) for member in members]
        mine = [seen[member.slot] for member in members]
        owners = scoring.first_of_duplicates(
            [s.digest if refusal is None else None for s, refusal in zip(mine, alone, strict=True)],
            [s.uploaded_at if s.committed_at is None else s.committed_at for s in mine],
            tiebreak=[derive_int(opening.beacon, "first", member.name, bits=63) for member in members],
        )
        return {
            member.slot: refusal if owner is None else observe(member, members[owner].name)
            for member, refusal, owner in zip(members, alone, owners, strict=True)
        }

    def _fetch_all(self, opening: Opening, members: Sequence[Member]) -> Iterator[tuple[Member, _Fetched]]:
        if self._pool is None:
            for member in members:
                with self._stopwatch.measure("storage"):
                    fetched = self._fetch(opening, member)
                yield member, fetched
            return
        waiting = deque(self._slow_last(members))
        began = self._stopwatch.now()
        running: deque[tuple[Member, Future[_Fetched]]] = deque()
        while waiting or running:
            # Twice the readers are under way: enough to keep them busy, and a bound on what is held in memory.
            while waiting and len(running) < 2 * self._readers:
                member = waiting.popleft()
                running.append((member, self._pool.submit(self._fetch, opening, member)))
            member, future = running.popleft()
            left = (
                None
                if self._wait_seconds is None
                else max(0.0, began + self._wait_seconds - self._stopwatch.now())
            )
            with self._stopwatch.measure("storage"):
                try:
                    fetched = future.result(timeout=left)
                except TimeoutError:
                    future.cancel()
                    fetched = _Fetched(unreachable=_NO_ANSWER)
            slow = fetched.unreachable == _NO_ANSWER
            self._timeouts[member.name] = self._timeouts.get(member.name, 0) + 1 if slow else 0
            yield member, fetched

    def _side_by_side(
        self, read: Callable[[Member], Any], members: Sequence[Member], seconds: float | None
    ) -> dict[int, Any]:
        """What was read of the members' buckets within a time, by slot; who took longer is not in it."""
        if self._pool is None:
            return {member.slot: read(member) for member in members}
        reading = {member.slot: self._pool.submit(read, member) for member in self._slow_last(members)}
        wait(reading.values(), timeout=seconds)
        for future in reading.values():
            future.cancel()
        return {
            slot: future.result()
            for slot, future in reading.items()
            if future.done() and not future.cancelled()
        }

    def _slow_last(self, members: Sequence[Member]) -> list[Member]:
        """Who was slow before comes last: it may then use up its own time, not that of others."""
        return sorted(members, key=lambda member: self._timeouts.get(member.name, 0))

    def _fetch(self, opening: Opening, member: Member) -> _Fetched:
        """Everything that waits for a bucket; raises nothing that a peer could cause."""
        key = artifact_key(opening.round)
        try:
            received = read_artifact(
                member.bucket,
                key,
                self._schema,
                run=opening.run,
                round=opening.round,
                peer=member.name,
                public_key=member.public_key,
                max_declared=self._max_declared,
                window=opening.window,
            )
        except MissingArtifact:
            return _Fetched()
        except OutsideWindow as outside:
            return _Fetched(uploaded_at=outside.uploaded_at)
        except MalformedArtifact as malformed:
            return _Fetched(malformed=malformed.reason)
        except OSError:
            # Whose provider fails has chosen it: one bad bucket must not stop a round.
            return _Fetched(unreachable="its bucket could not be read")
        if opening.commits is None:
            return _Fetched(received)
        commit = self._fetch_commit(opening, member)
        return (
            _Fetched(received, uncommitted=commit) if isinstance(commit, str) else _Fetched(received, commit)
        )

    def _fetch_commit(self, opening: Opening, member: Member) -> Commit | str:
        """A commit, or what is wrong with it as one clause."""
        try:
            return read_commit(
                member.bucket,
                artifact_key(opening.round),
                run=opening.run,
                round=opening.round,
                peer=member.name,
                public_key=member.public_key,
            )
        except MissingCommit:
            return "no commit in its bucket"
        except MalformedArtifact as malformed:
            return f"its commit: {malformed.reason}"
        except OSError:
            return "its commit could not be read"

    def _check(self, opening: Opening, params: Params, member: Member, fetched: _Fetched) -> Seen:
        """The content of what came."""
        received = fetched.received
        if received is None:
            return Seen(
                uploaded_at=fetched.uploaded_at,
                malformed=fetched.malformed,
                unreachable=fetched.unreachable,
            )
        manifest, arrays = received.manifest, dict(received.arrays)
        seen = Seen(uploaded_at=received.uploaded_at, bytes=received.bytes)
        if manifest.declared < self._batch:
            # Fewer would be fitted the more closely, and prove computation too cheaply.
            return seen._replace(malformed=f"it declares fewer than {self._batch} sequences")
        probe = arrays.pop(PROBE)
        if not self._unpack(arrays)[1]:
            return seen._replace(malformed="its indices or values are out of range")
        digest = payload_digest(manifest.arrays)
        uncommitted = self._uncommitted(opening, member, fetched, digest)
        self._spool.put(member.slot, received.arrays)
        self._documents[member.slot] = received.document
        own_probe = self._probe(params, probe_key(opening.beacon, member.name))
        return seen._replace(
            committed_at=None if fetched.commit is None else fetched.commit.committed_at,
            declared=manifest.declared,
            digest=digest,
            sync_score=float(scoring.sync_score(own_probe, probe, opening.step_size)),
            uncommitted=uncommitted,
        )

    def _uncommitted(self, opening: Opening, member: Member, fetched: _Fetched, digest: str) -> str | None:
        """What is wrong with a commit, where there must be one."""
        commit, received = fetched.commit, fetched.received
        if opening.commits is None or commit is None or received is None:
            return fetched.uncommitted
        at = commit.committed_at
        if at < opening.commits.opens:
            return f"it committed {opening.commits.opens - at:.1f} s before it could know the round"
        if at >= opening.commits.closes:
            return f"it committed {at - opening.commits.closes:.1f} s after the window for commits had closed"
        watched_round, watched = self._watched
        if watched_round == opening.round and watched.get(member.slot) != commit:
            return NOT_SEEN_IN_TIME
        salt = bytes.fromhex(received.manifest.salt)
        if not reveals(commit.commit, opening.run, opening.round, member.public_key, salt, digest):
            return "its commit is to another artifact"
        return None


def wide_indices(fmt: Format, sent: PseudoGradient) -> np.ndarray | None:
    """The indices of the blocks of which at most an eighth is sent: int32[blocks, k], or None without such blocks."""
    leaves = jax.tree.leaves(sent, is_leaf=lambda node: isinstance(node, SparseTensor))
    wide = [
        np.asarray(leaf.indices).reshape(-1, fmt.k)
        for layout, leaf in zip(fmt.leaves(), leaves, strict=True)
        if 8 * fmt.k <= layout.size
    ]
    return np.concatenate(wide) if wide else None
