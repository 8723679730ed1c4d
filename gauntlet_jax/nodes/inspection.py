"""Fast evaluation at work: what a stranger uploaded, looked at step by step and refused at the first fault."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gauntlet_jax import scoring
from gauntlet_jax.compression import Format, SparseTensor
from gauntlet_jax.nodes.peer import Opening, artifact_key, probe_key
from gauntlet_jax.storage.artifact import (
    PROBE,
    MalformedArtifact,
    Schema,
    head_artifact,
    payload_digest,
    read_artifact,
)
from gauntlet_jax.storage.bucket import Bucket
from gauntlet_jax.types import Params, PeerId, PseudoGradient


class Seen(NamedTuple):
    """What was seen of one peer's artifact; None where it does not exist or could not be read."""

    uploaded_at: float | None = None
    bytes: int | None = None
    declared: int | None = None
    digest: str | None = None
    sent: PseudoGradient | None = None
    sync_score: float | None = None
    malformed: str | None = None


class Inspector:
    """Reads the peers' public buckets and judges what needs no loss."""

    def __init__(
        self,
        buckets: Mapping[PeerId, Bucket],
        *,
        schema: Schema,
        unpack: Callable[..., tuple[PseudoGradient, Any]],
        probe: Callable[..., Any],
        batch: int,
        max_declared: int,
        max_sync_score: float,
    ):
        """An inspector for one kind of artifact.

        Args:
          buckets: by peer, to read.
          schema: of an artifact's arrays.
          unpack: ``arrays -> (pseudo_gradient, well_formed)``, compiled.
          probe: ``(params, key) -> probe``, compiled.
          batch: the fewest sequences that a peer may declare.
          max_declared: the most.
          max_sync_score: largest accepted distance of a probe, in signed steps.
        """
        self._buckets = buckets
        self._schema = schema
        self._unpack = unpack
        self._probe = probe
        self._batch = batch
        self._max_declared = max_declared
        self._max_sync_score = max_sync_score

    def look(self, opening: Opening, params: Params, peer: PeerId) -> Seen:
        """Presence and time, then form, then the probe: each only where the one before held."""
        bucket, key = self._buckets[peer], artifact_key(opening.round)
        head = head_artifact(bucket, key, self._schema)
        if head is None:
            return Seen()
        seen = Seen(uploaded_at=head.last_modified, bytes=head.size)
        if not opening.window.opens <= head.last_modified <= opening.window.closes:
            return seen
        try:
            return self._read(opening, params, peer, seen)
        except MalformedArtifact as malformed:
            return seen._replace(malformed=malformed.reason)
        except OSError:
            # Whose provider fails has chosen it: one bad bucket must not stop a round.
            return seen._replace(malformed="its bucket could not be read")

    def _read(self, opening: Opening, params: Params, peer: PeerId, seen: Seen) -> Seen:
        """The content of an artifact that came in time; raises MalformedArtifact."""
        arrays, manifest = read_artifact(
            self._buckets[peer],
            artifact_key(opening.round),
            self._schema,
            run=opening.run,
            round=opening.round,
            peer=peer,
            max_declared=self._max_declared,
        )
        if manifest.declared < self._batch:
            # Fewer would be fitted the more closely, and prove computation too cheaply.
            raise MalformedArtifact(f"it declares fewer than {self._batch} sequences")
        sent, well_formed = self._unpack({name: array for name, array in arrays.items() if name != PROBE})
        if not well_formed:
            raise MalformedArtifact("its indices or values are out of range")
        own_probe = self._probe(params, probe_key(opening.beacon, peer))
        distance = scoring.sync_score(own_probe, arrays[PROBE], opening.step_size)
        return seen._replace(
            declared=manifest.declared,
            digest=payload_digest(arrays),
            sent=sent,
            sync_score=float(distance),
        )

    def fast_evaluation(
        self, opening: Opening, peers: Sequence[PeerId], seen: Sequence[Seen]
    ) -> list[scoring.Refusal | None]:
        """F_t: everybody, cheaply. Duplicates are folded among those that nothing else speaks against."""
        check = functools.partial(scoring.refusal, window=opening.window, max_sync_score=self._max_sync_score)
        alone = [
            check(scoring.Observation(s.uploaded_at, s.malformed, s.sync_score, duplicate_of=None))
            for s in seen
        ]
        owners = scoring.first_of_duplicates(
            [s.digest if refusal is None else None for s, refusal in zip(seen, alone, strict=True)],
            [s.uploaded_at for s in seen],
        )
        return [
            refusal
            if owner is None
            else check(scoring.Observation(s.uploaded_at, s.malformed, s.sync_score, peers[owner]))
            for s, refusal, owner in zip(seen, alone, owners, strict=True)
        ]

    def nothing(self) -> PseudoGradient:
        """A pseudo-gradient of zeros, which stands where nobody sent one."""
        arrays = {
            name: np.zeros(spec.shape, spec.dtype) for name, spec in self._schema.items() if name != PROBE
        }
        return self._unpack(arrays)[0]


def wide_indices(fmt: Format, sent: PseudoGradient | None) -> np.ndarray | None:
    """The indices of the blocks of which at most an eighth is sent: int32[chunks, k], or None without such blocks."""
    leaves = jax.tree.leaves(sent, is_leaf=lambda node: isinstance(node, SparseTensor))
    wide = [
        np.asarray(leaf.indices)
        for layout, leaf in zip(fmt.leaves(), leaves, strict=True)
        if 8 * fmt.k <= layout.size
    ]
    return np.concatenate(wide) if wide else None
