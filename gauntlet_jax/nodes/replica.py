"""A replica: one node's copy of the parameters, which moves on by final records alone and so stays equal to all others.

It makes the update again from the artifacts that the record names, in the record's order. Where one of them is gone or was
changed, or this hardware rounds otherwise, it takes the update's published signs: theta - alpha * (+-1) is exact everywhere.
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gauntlet_jax.compression import Aggregator
from gauntlet_jax.nodes.aggregation import combine_sent
from gauntlet_jax.nodes.hosts import Hosts
from gauntlet_jax.nodes.inspection import Member
from gauntlet_jax.nodes.peer import artifact_key
from gauntlet_jax.nodes.published_record import PublishedRecord
from gauntlet_jax.storage.artifact import (
    MalformedArtifact,
    MissingArtifact,
    Schema,
    payload_digest,
    read_artifact,
)
from gauntlet_jax.storage.bucket import ReadableBucket
from gauntlet_jax.storage.digest import ParamsDigest
from gauntlet_jax.storage.publication import copy_key, read_checkpoint, read_update
from gauntlet_jax.types import Params, PeerId, PseudoGradient

_FEW_SIGNS = 1e-3
"""The part of an update's signs that other hardware may round otherwise."""


class Diverged(OSError):
    """A record cannot be followed with what can be had now: for a final one, wait until more can."""


class Unavailable(Diverged):
    """That is because artifacts or updates of it cannot be had."""


class ReplicaSteps(NamedTuple):
    """The compiled functions of a replica.

    Attributes:
      inspect: ``arrays -> (pseudo_gradient, well_formed)``.
      combine: the aggregator, its functions compiled.
      apply: ``(params, update, alpha) -> params``; the old ones are donated.
    """

    inspect: Callable[..., tuple[PseudoGradient, Any]]
    combine: Aggregator
    apply: Callable[..., Params]


class Replica:
    """The parameters of a run, at one node.

    Attributes:
      params: theta_t.
      round: t, the next round whose record is to be followed.
      digest: ``params -> digest``, as the run agrees on it.
    """

    def __init__(
        self,
        params: Params,
        *,
        run: str,
        steps: ReplicaSteps,
        schema: Schema,
        reads: Collection[str],
        digest: ParamsDigest,
        hosts: Hosts,
        top_g: int,
        max_declared: int,
        say: Callable[[str], None],
    ):
        """A replica at the start of a run.

        Args:
          params: theta_0.
          run: the run's name.
          steps: compiled functions.
          schema: of an artifact's arrays.
          reads: names of the arrays that this process needs.
          digest: of parameters.
          hosts: that the node consists of.
          top_g: G, the divisor of the update.
          max_declared: the most sequences that a peer may declare.
          say: takes a line for the node's operator.
        """
        self.params = params
        self.round = 0
        self._run = run
        self._steps = steps
        self._schema = schema
        self._reads = reads
        self.digest = digest
        self._hosts = hosts
        self._top_g = top_g
        self._max_declared = max_declared
        self._say = say

    @property
    def parameters(self) -> int:
        """How many numbers theta has."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def flat(self) -> np.ndarray:
        """theta_t as one row, float32[parameters]."""
        leaves = jax.device_get(jax.tree.leaves(self.params))
        return np.concatenate([np.asarray(leaf, np.float32).reshape(-1) for leaf in leaves])

    def after(
        self,
        published: PublishedRecord,
        members: Mapping[PeerId, Member],
        buckets: Sequence[ReadableBucket],
        *,
        strict: bool = False,
    ) -> Params:
        """theta_{t+1} as a record of round t says; this replica stays where it is.

        Args:
          published: the record.
          members: the peers by name, to read the artifacts that it names.
          buckets: of validators, its own first: they have copies of the artifacts, and the update's signs.
          strict: for a record that is not final: its artifacts must be there, and must give its update, but for the few
            signs that other hardware may round otherwise.

        Raises:
          Unavailable: not everything that it takes can be had.
          Diverged: it does not lead to the parameters whose digest the record has.
        """
        record = published.record
        assert record.round == self.round
        sent = self._artifacts(published, members, buckets)
        if sent is not None and not all(bool(self._steps.inspect(arrays)[1]) for arrays in sent):
            self._say(f"round {record.round}: an artifact of the record is malformed")
            sent = None
        if sent is None and strict:
            raise Unavailable(f"round {record.round}: not all artifacts of the record can be had")
        update = None
        if sent is not None:
            update = combine_sent(
                self._steps.combine,
                [functools.partial(self._unpack, arrays) for arrays in sent],
                divisor=self._top_g,
                places=self._top_g,
            )
            found = self._apply(update, record.learning_rate)
            if self.digest(found) == record.params_digest:
                return found
            self._say(
                f"round {record.round}: the artifacts give other parameters here; trying the signed update"
            )
        signs = self._signs(published, buckets)
        if signs is not None and (not strict or (update is not None and _nearly_equal(update, signs))):
            found = self._apply(signs, record.learning_rate)
            if self.digest(found) == record.params_digest:
                return found
        kind = Unavailable if sent is None and signs is None else Diverged
        raise kind(
            f"round {record.round}: the record of {published.validator} cannot be followed: nothing that can be had"
            f" gives the parameters {record.params_digest[:12]}"
        )

    def move_to(self, params: Params, round: int) -> None:
        """Takes up parameters that were checked."""
        self.params, self.round = params, round

    def restore_published(self, bucket: ReadableBucket, round: int, digest: str) -> bool:
        """Takes up a checkpoint of theta_round from a validator's bucket, if it is there and has the digest."""
        try:
            flat = self._hosts.together(lambda: _readable(read_checkpoint, bucket, round, self.parameters))
        except OSError:
            return False
        found = self._unflatten(flat)
        if self.digest(found) != digest:
            return False
        self.move_to(found, round)
        return True

    def _artifacts(
        self,
        published: PublishedRecord,
        members: Mapping[PeerId, Member],
        buckets: Sequence[ReadableBucket],
    ) -> list[Mapping[str, np.ndarray]] | None:
        """The artifacts of the record's top-G, by slot; None if one cannot be had as it was judged."""
        sent = []
        for peer in published.record.peers:
            if not peer.aggregated:
                continue
            member = members.get(peer.name)
            found = None if member is None else self._artifact(member, peer.digest, buckets)
            if self._hosts.any(found is None) or found is None:
                self._say(f"round {self.round}: the artifact of {peer.name} cannot be had as it was judged")
                return None
            sent.append(found)
        return sent

    def _artifact(
        self, member: Member, digest: str | None, buckets: Sequence[ReadableBucket]
    ) -> Mapping[str, np.ndarray] | None:
        """A peer's artifact of a digest: from a validator's copy, which nobody can make slow or change for all, or else
        from its own bucket."""
        places = [(bucket, copy_key(self.round, member.name)) for bucket in buckets]
        for bucket, key in [*places, (member.bucket, artifact_key(self.round))]:
            try:
                received = read_artifact(
                    bucket,
                    key,
                    self._schema,
                    run=self._run,
                    round=self.round,
                    peer=member.name,
                    public_key=member.public_key,
                    max_declared=self._max_declared,
                    only=self._reads,
                )
            except (MissingArtifact, MalformedArtifact, OSError):
                continue
            if payload_digest(received.manifest.arrays) == digest:
                return received.arrays
        return None

    def _unpack(self, arrays: Mapping[str, np.ndarray]) -> PseudoGradient:
        return self._steps.inspect(arrays)[0]

    def _signs(self, published: PublishedRecord, buckets: Sequence[ReadableBucket]) -> Params | None:
        """The published signs of the update, shaped like the parameters."""
        if not published.update_planes:
            return None
        for bucket in buckets:
            try:
                flat = self._hosts.together(
                    lambda bucket=bucket: _readable(
                        read_update,
                        bucket,
                        self.round,
                        parameters=self.parameters,
                        planes=published.update_planes,
                        sha256=published.update_sha256,
                    )
                )
            except OSError:
                continue
            return self._unflatten(np.asarray(flat, np.float32))
        return None

    def _unflatten(self, flat: np.ndarray) -> Params:
        """A row as a tree like the parameters, placed like them."""
        leaves, structure = jax.tree.flatten(self.params)
        ends = np.cumsum([leaf.size for leaf in leaves])
        parts = np.split(flat, ends[:-1])
        return jax.tree.unflatten(
            structure,
            [
                jax.make_array_from_callback(
                    leaf.shape, leaf.sharding, part.reshape(leaf.shape).astype(leaf.dtype).__getitem__
                )
                for part, leaf in zip(parts, leaves, strict=True)
            ],
        )

    def _apply(self, update: Params, alpha: float) -> Params:
        # The step donates its parameters; these must stay until the result is known to be right.
        return self._steps.apply(jax.tree.map(jnp.copy, self.params), update, np.float32(alpha))


def _readable(read: Callable[..., np.ndarray], *arguments: Any, **named: Any) -> np.ndarray:
    """What is missing or malformed cannot be had, like what a provider does not give."""
    try:
        return read(*arguments, **named)
    except (MissingArtifact, MalformedArtifact) as error:
        raise OSError(str(error)) from error


def _nearly_equal(update: Params, signs: Params) -> bool:
    """Whether two signed updates differ in a few signs at most."""
    pairs = list(zip(jax.tree.leaves(update), jax.tree.leaves(signs), strict=True))
    differing = sum(int(np.sum(np.asarray(one) != np.asarray(other))) for one, other in pairs)
    return differing <= _FEW_SIGNS * sum(one.size for one, _ in pairs)
