"""Copiers: every way to send what somebody else computed, under commit-reveal, and the same peers without a copy beside them.

Within a round there is nothing to copy before everybody is bound; what is left is to show something else than was committed to,
to take over another's commit or probe, or to build on what was published a round ago.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gauntlet_jax import compression
from gauntlet_jax.nodes.attacks import HONEST
from gauntlet_jax.nodes.payload import Payload
from gauntlet_jax.nodes.peer import Arrays, Behavior, Contribution, Peer, Turn, artifact_key
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.artifact import manifest_key
from gauntlet_jax.storage.commit import commit_key, write_commit

VICTIM = "ada"


class Mixer:
    """Adds pseudo-gradients up, each at the same length, and encodes the sum, as a copier's own software would."""

    def __init__(self) -> None:
        self._payload: Any = None
        self._decode: Any = None
        self._encode: Any = None

    def learn(self, compressor: compression.Compressor, params: Any) -> None:
        """The run's compressor and parameters, once they are known."""

        shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
        self._payload = Payload(compressor.format, shardings)

        def decode(packed: Any) -> Any:
            dense = compressor.decode(compression.unpack(compressor.format, packed)[0])
            norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(dense)))
            return jax.tree.map(lambda leaf: leaf / jnp.maximum(norm, 1e-12), dense)

        def encode(dense: Any) -> Any:
            return compression.pack(compressor.format, compressor.update(compressor.init(params), dense)[0])

        self._decode, self._encode = jax.jit(decode), jax.jit(encode)

    def mix(self, parts: list[Arrays]) -> Arrays:
        """One artifact of the sum of some."""
        total = jax.tree.map(
            lambda *leaves: sum(leaves),
            *[self._decode(self._payload.cut(self._payload.take(part))) for part in parts],
        )
        return self._payload.arrays(self._encode(total))


def one_sequence(turn: Turn, count: int) -> np.ndarray:
    """A single sequence of its assigned data, again and again."""
    return np.resize(turn.assignment.assigned(turn.opening.round, turn.slot, 1), count)


def shown_now(turn: Turn, arrays: Arrays) -> Arrays:
    """What the victim shows in this very round, once it does."""
    return dict(turn.others(0)).get(VICTIM, arrays)


def best_of_the_round_before(turn: Turn, arrays: Arrays) -> Arrays:
    """The best-paid peer's artifact of a round ago."""
    return next((theirs for _, theirs in turn.others(1)), arrays)


def with_noise(turn: Turn, arrays: Arrays) -> Arrays:
    """The same, its values moved a little so that it is no duplicate."""
    copied = dict(best_of_the_round_before(turn, arrays))
    generator = np.random.default_rng(turn.opening.round)
    flips = generator.integers(0, 4, copied["codes"].shape).astype(copied["codes"].dtype)
    codes = copied["codes"]  # those of a block of nothing are all 0, and must stay so
    return {**copied, "codes": np.where(codes > 3, codes ^ flips, codes)}


def behaviors(mixer: Mixer) -> Mapping[str, Behavior]:
    """The copiers by name, and the peer that trains on one sequence and copies nothing."""

    def with_own(turn: Turn, arrays: Arrays) -> Arrays:
        before = next((theirs for _, theirs in turn.others(1)), None)
        return arrays if before is None else mixer.mix([arrays, before])

    def average_with_own(turn: Turn, arrays: Arrays) -> Arrays:
        return mixer.mix([arrays, *(theirs for _, theirs in turn.others(1))])

    def average(turn: Turn, arrays: Arrays) -> Arrays:
        before = [theirs for _, theirs in turn.others(1)]
        return mixer.mix(before) if before else arrays

    lazy = dataclasses.replace(HONEST, data=one_sequence)
    return {
        "one_sequence": lazy,
        "shows_the_victims": dataclasses.replace(lazy, reveal=shown_now, uploads_at=0.9),
        "reposts_the_commit": dataclasses.replace(lazy, reveal=shown_now, uploads_at=0.9),
        "signs_the_commit": dataclasses.replace(lazy, reveal=shown_now, uploads_at=0.9),
        "claims_the_digests": dataclasses.replace(lazy, uploads_at=0.9),
        "shows_the_probe": dataclasses.replace(HONEST, uploads_at=0.9),
        "a_round_late": dataclasses.replace(lazy, artifact=best_of_the_round_before),
        "late_with_noise": dataclasses.replace(lazy, artifact=with_noise),
        "late_average": dataclasses.replace(lazy, artifact=average),
        "late_with_own": dataclasses.replace(lazy, artifact=with_own),
        "late_average_with_own": dataclasses.replace(lazy, artifact=average_with_own),
    }


def take_over(thief: Peer, victim: Peer) -> None:
    """Gives a peer what no stage of a behavior can do: another's commit, digests or probe, by the thief's name."""
    if thief.name == "shows_the_probe":
        _take_over_the_probe(thief, victim)
    elif thief.name == "claims_the_digests":
        _take_over_the_digests(thief, victim)
    else:
        _take_over_the_commit(thief, victim, signed=thief.name == "signs_the_commit")


def _take_over_the_probe(thief: Peer, victim: Peer) -> None:
    shown: dict[int, np.ndarray] = {}
    show, upload = victim.upload, thief.upload

    def noted(contribution: Contribution) -> None:
        show(contribution)
        shown[contribution.turn.opening.round] = contribution.probe  # public from now on

    def with_probe(contribution: Contribution) -> None:
        upload(contribution._replace(probe=shown[contribution.turn.opening.round]))

    victim.upload, thief.upload = noted, with_probe


def _take_over_the_digests(thief: Peer, victim: Peer) -> None:
    """The victim's manifest under the thief's name and signature, over what the thief has itself."""
    upload = thief.upload

    def with_digests(contribution: Contribution) -> None:
        upload(contribution)
        key = manifest_key(artifact_key(contribution.turn.opening.round))
        theirs = signed_json.json_of(victim._bucket.get(key, max_bytes=65536).data)
        fields = {name: value for name, value in theirs.items() if name not in ("key", "signature")}
        own = {**fields, "peer": thief.name, "salt": contribution.salt.hex()}
        thief._bucket.put(key, signed_json.sign(thief._identity, "manifest", own))

    thief.upload = with_digests


def _take_over_the_commit(thief: Peer, victim: Peer, *, signed: bool) -> None:
    def commit(contribution: Contribution) -> None:
        key = artifact_key(contribution.turn.opening.round)
        theirs = victim._bucket.get(commit_key(key), max_bytes=4096).data
        if signed:
            fields = signed_json.json_of(theirs)
            about = {name: fields[name] for name in ("run", "round", "commit")}
            write_commit(thief._bucket, key, peer=thief.name, identity=thief._identity, **about)
        else:
            thief._bucket.put(commit_key(key), theirs)

    thief.commit = commit
