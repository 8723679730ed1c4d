"""A peer: gradients on its assigned data, compressed, uploaded to its own bucket inside the put window.

What a peer does is a row of stages, each a plain function; an attack replaces one of them (see ``attacks``). A peer
never imports what judges it.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from gauntlet_jax.nodes.beacon import derive_int
from gauntlet_jax.nodes.hosts import SOLE_HOST, Hosts
from gauntlet_jax.scoring import Window
from gauntlet_jax.storage.artifact import (
    PROBE,
    PROTOCOL,
    Manifest,
    array_digests,
    payload_digest,
    write_arrays,
    write_manifest,
)
from gauntlet_jax.storage.bucket import Bucket
from gauntlet_jax.storage.commit import commit_digest, write_commit
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.training.assignment import Assignment
from gauntlet_jax.training.train_step import LocalTraining
from gauntlet_jax.types import Batch, Params, PeerId

Arrays = Mapping[str, np.ndarray]


class Opening(NamedTuple):
    """What everybody knows when a round opens.

    Attributes:
      run: the run's name, which every artifact repeats.
      round: t.
      window: the put window, in seconds of the run's clock.
      commits: the window for commits; None where commit-reveal is off.
      beacon: the opening beacon.
      step_size: alpha_t.
    """

    run: str
    round: int
    window: Window
    commits: Window | None
    beacon: bytes
    step_size: float


class Turn(NamedTuple):
    """A peer's view of a round, for its stages.

    Attributes:
      opening: what everybody knows.
      peer: its name.
      slot: its place in the assignment.
      batch: sequences of one batch.
      assignment: SelectData.
      key: a PRNG key of its own for this round.
      others: ``rounds ago -> (peer, artifact)`` pairs: what the other peers' public buckets show by now of this round (0) or of
        an earlier one, best paid first, read one by one.
    """

    opening: Opening
    peer: PeerId
    slot: int
    batch: int
    assignment: Assignment
    key: Array
    others: Callable[[int], Iterator[tuple[PeerId, Arrays]]]


@dataclasses.dataclass(frozen=True)
class Behavior:
    """The stages of a peer; the defaults are the honest ones.

    Attributes:
      batches: batches of its assigned stream that it trains on and declares.
      remember: ``params -> memory`` at the start of the run.
      view: ``(memory, params) -> (params to train on, memory)``.
      data: ``(turn, count) -> window indices`` that it trains on.
      gradient: ``(turn, gradient) -> gradient`` that it compresses.
      artifact: ``(turn, arrays) -> arrays`` that it makes its pseudo-gradient, and commits to where commit-reveal is on.
      reveal: ``(turn, arrays) -> arrays`` that it uploads in their place; another one than committed to is refused.
      probe: ``(params it trained on, params of the round) -> params`` from which it takes its sync probe.
      uploads_at: when it uploads, as a part of the put window: 0 as it opens, 1 as it closes; None never.
    """

    batches: int = 1
    remember: Callable[[Params], Any] = lambda params: ()
    view: Callable[[Any, Params], tuple[Params, Any]] = lambda memory, params: (params, memory)
    data: Callable[[Turn, int], np.ndarray] = lambda turn, count: turn.assignment.assigned(
        turn.opening.round, turn.slot, count
    )
    gradient: Callable[[Turn, Params], Params] = lambda turn, gradient: gradient
    artifact: Callable[[Turn, Arrays], Arrays] = lambda turn, arrays: arrays
    reveal: Callable[[Turn, Arrays], Arrays] = lambda turn, arrays: arrays
    probe: Callable[[Params, Params], Params] = lambda seen, current: seen
    uploads_at: float | None = 0.5


class Contribution(NamedTuple):
    """What a peer has made in a round and not uploaded yet.

    Attributes:
      turn: the round as it sees it.
      arrays: its pseudo-gradient.
      probe: its sync probe.
      declared: sequences that it declares.
      salt: 32 bytes that nobody else knows before the upload.
    """

    turn: Turn
    arrays: Arrays
    probe: np.ndarray
    declared: int
    salt: bytes


class PeerSteps(NamedTuple):
    """The compiled functions that all peers of a process share.

    Attributes:
      training: local work (see ``training.train_step``).
      init: ``params -> residual``.
      encode: ``(residual, gradient) -> (an artifact's arrays, residual)``; the residual is donated.
      probe: ``(params, key) -> probe``.
    """

    training: LocalTraining
    init: Callable[[Params], Any]
    encode: Callable[[Any, Params], tuple[Arrays, Any]]
    probe: Callable[[Params, Array], Array]


def artifact_key(round: int) -> str:
    """Where in its bucket a peer puts a round's artifact."""
    return f"rounds/{round:08d}"


def probe_key(beacon: bytes, peer: PeerId) -> Array:
    """The PRNG key of a peer's sync probe in the round that the beacon opens."""
    return jax.random.key(derive_int(beacon, "probe", peer))


class Peer:
    """One peer of a run.

    Attributes:
      name: its public identity.
      behavior: its stages.
      state: what it keeps between rounds, a pytree: ``residual``, ``training`` and ``memory``.
    """

    def __init__(
        self,
        identity: Identity,
        name: PeerId,
        slot: int,
        behavior: Behavior,
        *,
        params: Params,
        steps: PeerSteps,
        batch: int,
        batches_of: Callable[[np.ndarray], Sequence[Batch]],
        assignment: Assignment,
        bucket: Bucket,
        seed: int,
        others: Callable[[PeerId, int], Iterator[tuple[PeerId, Arrays]]],
        hosts: Hosts = SOLE_HOST,
    ):
        """A peer at the start of a run.

        Args:
          identity: its keys; what it uploads is signed with them.
          name: its public name.
          slot: its place in the assignment.
          behavior: its stages.
          params: theta_0.
          steps: compiled functions.
          batch: sequences of one batch.
          batches_of: window indices to batches of ``batch`` sequences.
          assignment: SelectData.
          bucket: its own, to write.
          seed: of its own randomness.
          others: ``(itself, round) -> (name, artifact)`` pairs of the other peers' public buckets.
          hosts: that it consists of.
        """
        self._identity = identity
        self.name = name
        self.slot = slot
        self.behavior = behavior
        self.state = {
            "residual": steps.init(params),
            "training": steps.training.init(params),
            "memory": behavior.remember(params),
        }
        self._steps = steps
        self._batch = batch
        self._batches_of = batches_of
        self._assignment = assignment
        self._bucket = bucket
        self._key = jax.random.fold_in(jax.random.key(seed), slot)
        self._others = others
        self._hosts = hosts

    def upload_time(self, window: Window) -> float | None:
        """When it uploads, in seconds of the run's clock; None if it does not."""
        part = self.behavior.uploads_at
        return None if part is None else window.opens + part * (window.closes - window.opens)

    def prepare(self, opening: Opening, params: Params) -> Contribution:
        """Trains and compresses; ``params`` is theta_t as an honest node holds it. Its state moves on by a round."""
        behavior, steps = self.behavior, self._steps
        turn = Turn(
            opening,
            self.name,
            self.slot,
            self._batch,
            self._assignment,
            jax.random.fold_in(self._key, opening.round),
            lambda ago: self._others(self.name, opening.round - ago),
        )
        seen, memory = behavior.view(self.state["memory"], params)
        declared = behavior.batches * self._batch
        batches = self._batches_of(behavior.data(turn, declared))
        gradient, training = steps.training.run(seen, self.state["training"], batches)
        encoded, residual = steps.encode(self.state["residual"], behavior.gradient(turn, gradient))
        self.state = {"residual": residual, "training": training, "memory": memory}
        arrays = behavior.artifact(turn, encoded)
        shown = behavior.probe(seen, params)
        probe = np.asarray(steps.probe(shown, probe_key(opening.beacon, self.name)))
        return Contribution(turn, arrays, probe, declared, self._salt(opening))

    def commit(self, contribution: Contribution) -> None:
        """Binds itself to what it will upload, without showing it."""
        opening = contribution.turn.opening
        digest = payload_digest(self._hosts.merged(array_digests(contribution.arrays)))

        def write() -> None:
            write_commit(
                self._bucket,
                artifact_key(opening.round),
                run=opening.run,
                round=opening.round,
                peer=self.name,
                commit=commit_digest(
                    opening.run, opening.round, self._identity.public_key, contribution.salt, digest
                ),
                identity=self._identity,
            )

        self._hosts.told(write, None)

    def upload(self, contribution: Contribution) -> None:
        """Shows what it has made: each host its own parts, and then the leading one the manifest."""
        opening, key = contribution.turn.opening, artifact_key(contribution.turn.opening.round)
        arrays = dict(self.behavior.reveal(contribution.turn, contribution.arrays))
        if self._hosts.leads:
            arrays[PROBE] = contribution.probe
        manifest = Manifest(
            opening.run,
            opening.round,
            self.name,
            contribution.declared,
            PROTOCOL,
            self._hosts.merged(array_digests(arrays)),
            contribution.salt.hex() if opening.commits else "",
        )
        self._hosts.together(lambda: write_arrays(self._bucket, key, arrays))
        self._hosts.told(lambda: write_manifest(self._bucket, key, manifest, self._identity), int)

    def _salt(self, opening: Opening) -> bytes:
        """Known to the holder of the key alone, and the same after a restart."""
        return hashlib.sha256(
            self._identity.sign("salt", f"{opening.run}/{opening.round}".encode()).encode()
        ).digest()
