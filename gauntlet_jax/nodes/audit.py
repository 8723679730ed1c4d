"""The audit of a run: everything that its records and its ledger say is computed again from public artifacts, and compared.

A validator of the same kind judges every round again. Taken from the records are only observations that nobody can make twice:
when a bucket received something, whether it answered, what a validator saw of commits between the windows; each stands under its
validator's signature, or in a record whose digest is on the ledger.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gauntlet_jax.nodes.beacon import Beacon
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.inspection import Member
from gauntlet_jax.nodes.observed_bucket import ArtifactGone, ObservedBucket
from gauntlet_jax.nodes.peer import Opening
from gauntlet_jax.nodes.record import PeerRecord, RoundRecord
from gauntlet_jax.nodes.settlement import weights_in
from gauntlet_jax.nodes.validator import Validator, Verdict
from gauntlet_jax.rewards.epoch import WEIGHTS_STAND, epoch_of
from gauntlet_jax.rewards.ledger import Epoch
from gauntlet_jax.rewards.weight_commit import normalised
from gauntlet_jax.storage.digest import ParamsDigest
from gauntlet_jax.types import Params, PeerId

_CLOSE = 1e-6
_OBSERVED = ("missing", "unreachable", "uncommitted", "altered")
"""Refusals whose clause says what a validator saw at the time, and no artifact shows."""

FACTORS = (
    "declared", "bytes", "digest", "sync_score", "refusal", "slashed", "detail", "scores", "rank", "rating_mu", "rating_sigma",
    "loss_rating", "proof_of_computation", "evaluations", "standing", "peer_score", "aggregated", "incentive", "payable",
)  # fmt: skip
"""What is recomputed of a peer, each from what stands before it."""


class Difference(NamedTuple):
    """Where a run says something else than what follows from its artifacts.

    Attributes:
      round: t; None for what belongs to no round.
      who: a peer, a validator, or "" for the round itself.
      factor: what differs, such as "scores.random" or "payout".
      says: what the run says.
      follows: what was computed again.
    """

    round: int | None
    who: str
    factor: str
    says: Any
    follows: Any

    def __str__(self) -> str:
        where = "the run" if self.round is None else f"round {self.round}"
        whose = f", {self.who}" if self.who else ""
        line = f"{where}{whose}, {self.factor}: the run says {self.says!r}, what follows is {self.follows!r}"
        close = type(self.says) is type(self.follows) is float and is_equal(self.says, self.follows, _CLOSE)
        return f"{line} (other hardware rounds otherwise: --tolerance {_CLOSE:g})" if close else line


def is_equal(says: Any, follows: Any, tolerance: float) -> bool:
    """Whether two values are the same; floats up to a relative tolerance, which is an absolute one around 0."""
    if type(says) is float and type(follows) is float:
        if not tolerance:
            return repr(says) == repr(follows)  # 0.0 and -0.0 are two
        return math.isclose(says, follows, rel_tol=tolerance, abs_tol=tolerance)
    return type(says) is type(follows) and says == follows


class Books(Protocol):
    """What an audit reads of a ledger."""

    def weights(self, round: int) -> Mapping[str, Mapping[PeerId, float]]:
        """The revealed weights of a round by validator."""
        ...

    def epoch(self, round: int) -> Epoch | None:
        """What a round's weights came to."""
        ...

    def vetoes(self, round: int) -> Mapping[str, str]:
        """Whose records of a round were vetoed, and why."""
        ...


class Auditor:
    """Judges a run's rounds again, one after the other."""

    def __init__(
        self,
        *,
        run: str,
        params: Params,
        validators: Mapping[str, Validator],
        members: Callable[[int], Sequence[Member]],
        stakes: Mapping[str, float],
        apply: Callable[..., Params],
        heldout_loss: Callable[[Params], float],
        learning_rate: optax.Schedule,
        digest: ParamsDigest,
        beacon: Beacon,
        times: RoundTimes,
        commit_reveal: bool,
        emission: int,
        books: Books,
        tolerance: float,
    ):
        """An audit from the start of a run.

        Args:
          run: the run's name.
          params: theta_0.
          validators: by name; new ones, without any memory.
          members: the peers of a round by slot, each with an ``ObservedBucket``.
          stakes: by validator.
          apply: ``(params, update, alpha) -> params``, the old ones donated.
          heldout_loss: ``params -> nats/token``.
          learning_rate: alpha_t.
          digest: of parameters, as the run agrees on it.
          beacon: of the run.
          times: how a round is cut up.
          commit_reveal: whether artifacts were committed to.
          emission: units a round.
          books: the ledger.
          tolerance: relative, up to which floats count as equal: other hardware rounds otherwise.
        """
        self.params = jax.tree.map(jnp.copy, params)
        self._run = run
        self._validators = validators
        self._members = members
        self._stakes = stakes
        self._apply = apply
        self._heldout_loss = heldout_loss
        self._learning_rate = learning_rate
        self._digest = digest
        self._beacon = beacon
        self._times = times
        self._commit_reveal = commit_reveal
        self._emission = emission
        self._books = books
        self._tolerance = tolerance
        self._shown: dict[int, Mapping[str, Mapping[PeerId, float]]] = {}
        self._bonds: Mapping[str, Mapping[PeerId, int]] = {}

    def audit(
        self, record: RoundRecord, *, start: float, observed: Mapping[str, RoundRecord]
    ) -> Difference | None:
        """Judges the next round again.

        Args:
          record: the final one of the round, with what was paid.
          start: when it began, seconds of the run's clock.
          observed: by validator that judged the round, the record that has its observations: its own, which is compared whole, or
            another's where they have seen the same, and then its weights are.

        Returns:
          The first difference; None if there is none.
        """
        try:
            return next(self._differences(record, start, observed), None)
        except ArtifactGone as gone:
            return Difference(record.round, gone.peer, "artifact", "it was there", "it is not there any more")

    def _differences(
        self, record: RoundRecord, start: float, observed: Mapping[str, RoundRecord]
    ) -> Iterator[Difference]:
        t = record.round
        alpha = float(np.asarray(self._learning_rate(t)))
        if not self._equal(record.learning_rate, alpha):
            yield Difference(t, "", "learning_rate", record.learning_rate, alpha)
        window = self._times.window(start)
        commits = self._times.commit_window(start) if self._commit_reveal else None
        opening = Opening(self._run, t, window, commits, self._beacon.opening(t), alpha)
        members = self._members(t)
        closing = self._beacon.closing(t)
        if record.validator not in self._validators or record.validator not in observed:
            yield Difference(t, "", "validator", record.validator, " or ".join(self._validators))
            return
        verdicts: dict[str, Verdict] = {}
        for name, seen in observed.items():
            if [peer.name for peer in seen.peers] != [member.name for member in members]:
                names = [[one.name for one in rows] for rows in (seen.peers, members)]
                yield Difference(t, name, "peers", *names)
                return
            for peer, member in zip(seen.peers, members, strict=True):
                assert isinstance(member.bucket, ObservedBucket)
                member.bucket.show(peer, window)
                self._validators[name].admit(member)
            altered = {peer.name: peer.detail for peer in seen.peers if peer.refusal == "altered"}
            verdicts[name] = self._validators[name].judge(opening, closing, self.params, altered=altered)
            if seen.validator == name:
                yield from self._peers(t, seen.peers, verdicts[name].peers)
        params = self._apply(self.params, verdicts[record.validator].update, np.float32(alpha))
        self.params = params
        digest = self._digest(params)
        if record.params_digest != digest:
            yield Difference(t, "", "params_digest", record.params_digest, digest)
        if record.heldout_loss is not None:
            loss = self._heldout_loss(params)
            if not self._equal(record.heldout_loss, loss):
                yield Difference(t, "", "heldout_loss", record.heldout_loss, loss)
        shown = self._books.weights(t)
        for name, own in verdicts.items():
            if name in shown:
                yield from self._tables(
                    t, name, "weight", shown[name], normalised(weights_in(own.peers)), self._tolerance
                )
        yield from self._epoch(record, shown)

    def _peers(self, t: int, said: Sequence[PeerRecord], found: Sequence[PeerRecord]) -> Iterator[Difference]:
        """Factor after factor, since what is wrong with one peer's score is wrong with everybody's rank."""
        for factor in FACTORS:
            for one, other in zip(said, found, strict=True):
                if factor == "detail" and one.refusal in _OBSERVED:
                    continue
                says, follows = getattr(one, factor), getattr(other, factor)
                if isinstance(says, Mapping):
                    yield from self._tables(t, one.name, factor, says, follows, self._tolerance)
                elif not self._equal(says, follows):
                    yield Difference(t, one.name, factor, says, follows)

    def _epoch(
        self, record: RoundRecord, shown: Mapping[str, Mapping[PeerId, float]]
    ) -> Iterator[Difference]:
        """Consensus, payouts and bonds, from the weights on the ledger alone."""
        t = record.round
        self._shown[t] = shown
        standing: dict[str, Mapping[PeerId, float]] = {}
        for past in range(t, max(-1, t - WEIGHTS_STAND), -1):
            for name, weights in self._shown.get(past, {}).items():
                standing.setdefault(name, weights)
        expected = epoch_of(
            t,
            standing,
            stakes=self._stakes,
            peers=[peer.name for peer in record.peers],
            bonds=self._bonds,
            emission=self._emission,
            vetoed=self._books.vetoes(t),
        )
        self._bonds = expected.bonds
        said = self._books.epoch(t)
        if said is None:
            yield Difference(t, "", "epoch", None, "one")
            return
        for factor in ("consensus", "incentive", "trust", "dividends", "payouts"):
            yield from self._tables(t, "", factor, getattr(said, factor), getattr(expected, factor))
        for name in {**said.bonds, **expected.bonds}:
            yield from self._tables(t, name, "bonds", said.bonds.get(name, {}), expected.bonds.get(name, {}))
        for factor in ("reserve", "remainder"):
            says, follows = getattr(said, factor), getattr(expected, factor)
            if says != follows:
                yield Difference(t, "", f"{factor} on the ledger", says, follows)
        yield from self._paid(record, expected)

    def _paid(self, record: RoundRecord, epoch: Epoch) -> Iterator[Difference]:
        """What the record says of the payouts."""
        t = record.round
        whole = {"emission": epoch.emission, "reserve": epoch.reserve, "remainder": epoch.remainder}
        for factor, follows in whole.items():
            if getattr(record, factor) != follows:
                yield Difference(t, "", factor, getattr(record, factor), follows)
        for peer in record.peers:
            expected = {
                "payout": epoch.payouts.get(peer.name, 0),
                "consensus": epoch.consensus.get(peer.name, 0.0),
            }
            yield from self._tables(
                t, peer.name, "", {name: getattr(peer, name) for name in expected}, expected
            )
        rows = {one.name: dataclasses.asdict(one) for one in record.validators}
        for name, stake in self._stakes.items():
            expected = {
                "stake": stake,
                "trust": epoch.trust.get(name),
                "dividends": epoch.dividends.get(name, 0.0),
                "payout": epoch.payouts.get(name, 0),
            }
            said = {factor: rows.get(name, {}).get(factor, "absent") for factor in expected}
            yield from self._tables(t, name, "", said, expected)

    def _tables(
        self,
        t: int,
        who: str,
        factor: str,
        said: Mapping[str, Any],
        found: Mapping[str, Any],
        tolerance: float = 0.0,
    ) -> Iterator[Difference]:
        """Name by name; without a tolerance where only plain numbers are computed, which are the same everywhere."""
        for name in {**said, **found}:
            says, follows = said.get(name, "absent"), found.get(name, "absent")
            if not is_equal(says, follows, tolerance):
                yield Difference(t, who, f"{factor}.{name}".strip("."), says, follows)

    def _equal(self, says: Any, follows: Any) -> bool:
        return is_equal(says, follows, self._tolerance)
