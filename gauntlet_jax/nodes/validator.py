"""A validator: checks everybody cheaply, scores a few by the loss, and decides the round.

One method a stage, in the order of a round; every formula is called, none is written here.
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gauntlet_jax import scoring
from gauntlet_jax.compression import Aggregator, Format
from gauntlet_jax.nodes.aggregation import combine_sent
from gauntlet_jax.nodes.beacon import derive_int
from gauntlet_jax.nodes.inspection import Inspector, Member, Seen, wide_indices
from gauntlet_jax.nodes.memory import RANDOM, Memory
from gauntlet_jax.nodes.peer import Opening
from gauntlet_jax.nodes.primary_evaluation import Evaluation
from gauntlet_jax.nodes.record import PeerRecord, finite_or_none
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.nodes.stopwatch import Stopwatch
from gauntlet_jax.rewards.incentive import incentives
from gauntlet_jax.rewards.rules import RewardRules
from gauntlet_jax.storage.artifact import Schema
from gauntlet_jax.types import Params, PeerHistory, PeerId, PeerScoreFn, PseudoGradient


class ValidatorSteps(NamedTuple):
    """The compiled functions of a validator.

    Attributes:
      inspect: ``arrays -> (pseudo_gradient, well_formed)``.
      probe: ``(params, key) -> probe``.
      loss: ``(params, batch) -> nats/token``.
      evaluate: one peer's scores (see ``training.eval_step.make_evaluation``).
      overlap: ``(indices[peers, chunks, k], valid[peers]) -> share of common indices [peers, peers]``.
      rate: ``(rating, ranks, played) -> rating``, one match.
      combine: the aggregator, its functions compiled.
    """

    inspect: Callable[..., tuple[PseudoGradient, Any]]
    probe: Callable[..., Any]
    loss: Callable[..., Any]
    evaluate: Callable[..., dict[str, Any]]
    overlap: Callable[..., Any]
    rate: Callable[..., scoring.Rating]
    combine: Aggregator


class Verdict(NamedTuple):
    """A validator's decisions in a round.

    Attributes:
      peers: what it saw and decided of each registered one, by slot.
      update: the round's update, shaped like the parameters; all zero where nobody is aggregated.
    """

    peers: tuple[PeerRecord, ...]
    update: Params


class Validator:
    """One validator of a run.

    Attributes:
      members: the registered peer of each slot, or None.
    """

    def __init__(
        self,
        name: str,
        *,
        slots: int,
        rules: ValidatorRules,
        rewards: RewardRules,
        steps: ValidatorSteps,
        fmt: Format,
        schema: Schema,
        evaluation: Evaluation,
        batch: int,
        capacity: int,
        peer_score: PeerScoreFn,
        stopwatch: Stopwatch,
        aggregate_for_scores: bool = False,
        readers: int = 1,
        wait_seconds: float | None = None,
    ):
        """A validator at the start of a run, who knows no peer yet.

        Args:
          name: its identity; its draws depend on it.
          slots: places for peers.
          rules: how it judges.
          rewards: how it pays.
          steps: compiled functions.
          fmt: of the pseudo-gradients.
          schema: of an artifact's arrays.
          evaluation: the scores of S_t.
          batch: sequences of one batch, the fewest that a peer may declare.
          capacity: the most.
          peer_score: scores and history to PeerScore.
          stopwatch: counts the time that it waits for buckets.
          aggregate_for_scores: whether a score reads ``ScoreInputs.aggregate``, which is then made each round.
          readers, wait_seconds: how the peers' buckets are read (see ``Inspector``).

        Raises:
          ValueError: G is larger than the number of peers, or a rule is out of range.
        """
        if not 1 <= rules.top_g <= slots:
            raise ValueError(
                f"validator.top_g: G = {rules.top_g} is larger than the number of peers, {slots}"
                if rules.top_g > 0
                else f"validator.top_g: G = {rules.top_g}, at least 1 peer must be aggregated"
            )
        self.name = name
        self.members: list[Member | None] = [None] * slots
        self._memory = Memory(slots)
        self._digests: dict[int, str | None] = {}
        self._inspector = Inspector(
            schema=schema,
            unpack=steps.inspect,
            probe=steps.probe,
            batch=batch,
            max_declared=capacity,
            max_sync_score=rules.max_sync_score,
            stopwatch=stopwatch,
            readers=readers,
            wait_seconds=wait_seconds,
        )
        self._rules = rules
        self._rewards = rewards
        self._steps = steps
        self._fmt = fmt
        self._primary_evaluation = evaluation
        self._peer_score = peer_score
        self._aggregate_for_scores = aggregate_for_scores

    def admit(self, member: Member) -> None:
        """Takes a registered peer into account from the next round on; again with another bucket if it moved.

        Who takes over another's slot starts afresh.
        """
        before = self.members[member.slot]
        if before is not None and before.name != member.name:
            self._memory.forget(member.slot)
        self.members[member.slot] = member

    def watch(self, opening: Opening, *, seconds: float) -> None:
        """Looks at the commits of a round once the window for them has closed (see ``Inspector``)."""
        members = [member for member in self.members if member is not None]
        self._inspector.watch(opening, members, seconds=seconds)

    def changed(self, opening: Opening, names: Collection[PeerId]) -> dict[PeerId, str]:
        """Which of some peers have changed what they published for a round that is over (see ``Inspector``)."""
        members = [member for member in self.members if member is not None and member.name in names]
        return self._inspector.changed(opening, members)

    def received(self, slot: int) -> tuple[dict[str, np.ndarray], bytes]:
        """An artifact of the round that was judged last, as it was received (see ``Inspector``)."""
        return self._inspector.received(slot)

    def judge(
        self,
        opening: Opening,
        closing: bytes,
        params: Params,
        *,
        altered: Mapping[PeerId, str] | None = None,
    ) -> Verdict:
        """Decides a round whose put window has closed.

        Args:
          opening: what everybody knew when it opened.
          closing: the beacon that nobody knew before it closed.
          params: theta_t, not donated.
          altered: peers that changed an earlier artifact after it had been judged, with a clause that says which.
        """
        members = [member for member in self.members if member is not None]
        seen = self._inspector.look(opening, params, members)
        self._digests = {slot: evidence.digest for slot, evidence in seen.items()}
        refusals = self._inspector.fast_evaluation(opening, members, seen, dict(altered or {}))
        accepted = np.zeros(len(self.members), bool)
        for slot, refusal in refusals.items():
            accepted[slot] = refusal is None
        drawn = self._draw(opening.round, closing, accepted)
        aggregate = (
            self._combine(accepted, divisor=len(accepted), places=len(accepted))
            if self._aggregate_for_scores
            else None
        )
        declared = {slot: seen[slot].declared or 0 for slot in np.flatnonzero(drawn).tolist()}
        scores = self._primary_evaluation(
            opening, closing, params, declared=declared, sent=self._inspector.sent, aggregate=aggregate
        )
        overlapping = self._overlap(seen, accepted, scores)
        ranks = self._match(closing, scores)
        self._memory.remember(opening.round, refusals, overlapping, scores, self._rules)

        peer_scores = np.array(
            [
                scoring.with_standing(self._peer_score(own, history), history)
                for own, history in zip(scores, self._memory.histories, strict=True)
            ]
        )
        # What is refused, or sent by another already, is neither applied nor paid, however good its past.
        sound = accepted & ~overlapping
        chosen = self._choose(closing, peer_scores, sound)
        update = self._combine(chosen, divisor=self._rules.top_g, places=self._rules.top_g)
        shares = incentives(peer_scores, power=self._rewards.power, top=self._rewards.top)
        earned = [self._rewards.may_be_paid(h.evaluations, self._proof(h)) for h in self._memory.histories]
        payable = sound & np.array(earned)
        records = []
        for member in members:
            i = member.slot
            history, refusal, evidence = self._memory.histories[i], refusals[i], seen[i]
            slashed = (refusal.reason,) if refusal else ("overlap",) if overlapping[i] else ()
            records.append(
                PeerRecord(
                    name=member.name,
                    behavior="unknown",
                    declared=evidence.declared,
                    uploaded_at=None
                    if evidence.uploaded_at is None
                    else evidence.uploaded_at - opening.window.opens,
                    bytes=evidence.bytes,
                    digest=evidence.digest,
                    sync_score=None if evidence.sync_score is None else finite_or_none(evidence.sync_score),
                    refusal=refusal.reason if refusal else None,
                    slashed=slashed,
                    detail=refusal.detail if refusal else "",
                    scores={
                        key: number
                        for key, value in scores[i].items()
                        if (number := finite_or_none(value)) is not None
                    },
                    rank=ranks.get(i),
                    rating_mu=history.rating_mu,
                    rating_sigma=history.rating_sigma,
                    loss_rating=scoring.loss_rating_of(history),
                    proof_of_computation=history.proof,
                    evaluations=history.evaluations,
                    standing=history.standing,
                    peer_score=float(peer_scores[i]),
                    aggregated=bool(chosen[i]),
                    incentive=float(shares[i]),
                    payable=bool(payable[i]),
                    payout=0,
                    committed_at=None
                    if evidence.committed_at is None
                    else evidence.committed_at - opening.window.opens,
                )
            )
        return Verdict(tuple(records), update)

    def update_of(self, peers: Sequence[PeerRecord]) -> Params | None:
        """The update that follows from the artifacts that a record of the round judged last aggregates.

        Args:
          peers: of anybody's record.

        Returns:
          It, or None where this validator has not seen all of those artifacts as that record says.
        """
        slots = {member.name: member.slot for member in self.members if member is not None}
        chosen = np.zeros(len(self.members), bool)
        for peer in peers:
            if not peer.aggregated:
                continue
            slot = slots.get(peer.name)
            if slot is None or self._digests.get(slot) != peer.digest:
                return None
            chosen[slot] = True
        return self._combine(chosen, divisor=self._rules.top_g, places=self._rules.top_g)

    def state(self) -> dict[str, Any]:
        """All that it must remember between rounds, for JSON."""
        return self._memory.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what ``state`` gave."""
        self._memory.restore(state)

    def _draw(self, round: int, closing: bytes, accepted: np.ndarray) -> np.ndarray:
        """S_t."""
        ratings = np.array([scoring.loss_rating_of(h) for h in self._memory.histories])
        return scoring.draw_for_evaluation(
            ratings,
            round - 1 - self._memory.evaluated_at,
            accepted,
            sample_size=self._rules.sample_size,
            key=derive_int(closing, "evaluated peers", self.name, bits=128),
        )

    def _overlap(
        self, seen: Mapping[int, Seen], accepted: np.ndarray, scores: Sequence[Mapping[str, float]]
    ) -> np.ndarray:
        """Who is slashed for sending what another sends: bool[slots]."""
        # What does not lower the loss is left out, or a crowd that sends noise makes the honest pairs stand out. Who is not
        # evaluated now counts by what it has done before.
        before = [scoring.loss_rating_of(h) > 0 and h.proof > 0 for h in self._memory.histories]
        counted = accepted & np.array(
            [own[RANDOM] > 0 if own else known for own, known in zip(scores, before, strict=True)]
        )
        indices = [
            wide_indices(self._fmt, self._inspector.sent(slot)) if ok else None
            for slot, ok in enumerate(counted)
        ]
        filler = next((found for found in indices if found is not None), None)
        if filler is None:
            self._memory.suspected = np.zeros_like(self._memory.suspected)
            return np.zeros(len(counted), bool)
        stack = np.stack([filler if found is None else found for found in indices])
        shares = self._steps.overlap(stack, counted)
        suspected = scoring.overlapping_pairs(
            np.asarray(shares),
            counted,
            floor=self._rules.overlap_floor,
            mads=self._rules.overlap_deviations,
        )
        times = np.full(len(counted), np.nan)
        for slot, s in seen.items():
            first = s.uploaded_at if s.committed_at is None else s.committed_at
            times[slot] = np.nan if first is None else first
        slashed = scoring.later_of_pairs(suspected, self._memory.suspected, times)
        self._memory.suspected = suspected
        return slashed

    def _match(self, closing: bytes, scores: Sequence[Mapping[str, float]]) -> dict[int, int]:
        """The round's Plackett-Luce match among the evaluated; returns their places."""
        played = np.array([RANDOM in own for own in scores])
        values = np.array([own.get(RANDOM, 0.0) for own in scores], np.float32)
        ties = np.array(self._ties(closing, "tie"), np.uint32)
        ranks = np.asarray(
            scoring.ranks_from_scores(jnp.asarray(values), jnp.asarray(played), jnp.asarray(ties))
        )
        before = scoring.Rating(
            jnp.array([h.rating_mu for h in self._memory.histories], jnp.float32),
            jnp.array([h.rating_sigma for h in self._memory.histories], jnp.float32),
        )
        after = self._steps.rate(before, ranks, played)
        self._memory.histories = [
            h._replace(rating_mu=float(mu), rating_sigma=float(sigma))
            for h, mu, sigma in zip(self._memory.histories, after.mu, after.sigma, strict=True)
        ]
        return {int(i): int(ranks[i]) for i in np.flatnonzero(played)}

    def _choose(self, closing: bytes, peer_scores: np.ndarray, sound: np.ndarray) -> np.ndarray:
        """The top-G: sound, with a score, and not one that has kept raising the loss."""
        harmless = np.array(
            [h.negative_in_a_row < self._rules.negative_scores_exclude for h in self._memory.histories]
        )
        ties = np.array(self._ties(closing, "top G"), np.int64)
        return scoring.top_g(peer_scores, sound & harmless, g=self._rules.top_g, tiebreak=ties)

    def _ties(self, closing: bytes, purpose: str) -> list[int]:
        """Numbers that nobody could foresee, by slot."""
        return [0 if member is None else derive_int(closing, purpose, member.name) for member in self.members]

    def _combine(self, chosen: np.ndarray, *, divisor: int, places: int) -> Params:
        """The update of the chosen peers in the order of their slots."""
        return combine_sent(
            self._steps.combine,
            [functools.partial(self._inspector.sent, int(slot)) for slot in np.flatnonzero(chosen)],
            divisor=divisor,
            places=places,
        )

    def _proof(self, history: PeerHistory) -> float:
        """The bias-corrected proof of computation, in [-1, 1]."""
        return float(
            scoring.bias_corrected(history.proof, history.evaluations, gamma=self._rules.proof_decay)
        )
