"""A validator as a process of its own: judges every round, posts when it is its turn, and rejects what is wrong.

After each round it writes a journal: what it remembers of the peers, and the record that it has signed. A validator that is
killed goes on from there: it never judges a round twice, and what it had not posted yet it posts then.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gauntlet_jax.nodes.examination import disagreement
from gauntlet_jax.nodes.life import Complaints, live
from gauntlet_jax.nodes.peer import Opening
from gauntlet_jax.nodes.published_record import PublishedRecord, read_published
from gauntlet_jax.nodes.publisher import Publisher, Publishing
from gauntlet_jax.nodes.record import RoundRecord
from gauntlet_jax.nodes.replica import Diverged, Replica, Unavailable
from gauntlet_jax.nodes.shared_run import POLL_SECONDS, NoRecord, SharedRun
from gauntlet_jax.nodes.validator import Validator, Verdict
from gauntlet_jax.nodes.weight_posting import WeightPosting
from gauntlet_jax.rewards import finality
from gauntlet_jax.rewards.ledger import LedgerRefused, Posting, RunStatus
from gauntlet_jax.storage.journal import read_journal, write_journal
from gauntlet_jax.storage.signed_json import BadDocument
from gauntlet_jax.types import Params

_CLOCK_SKEW = 0.5
_WATCH_SECONDS = 1.0


class ValidatorProcess:
    """The life of one validator, round after round.

    Attributes:
      judged: the last round that it judged; -1 before the first.
    """

    def __init__(
        self,
        run: SharedRun,
        validator: Validator,
        replica: Replica,
        publishing: Publishing,
        *,
        apply: Callable[..., Params],
        journal: Path,
    ):
        """A validator that has registered already.

        Args:
          run: its run.
          validator: how it judges.
          replica: its copy of the parameters.
          publishing: what it signs and writes with.
          apply: ``(params, update, alpha) -> params``, the old ones donated.
          journal: the file that it goes on from.
        """
        self.judged = -1
        self._run = run
        self._validator = validator
        self._replica = replica
        self._publishing = publishing
        self._publisher = Publisher(run, validator.name, publishing)
        self._apply = apply
        self._journal = journal
        self._own: PublishedRecord | None = None
        self._before: tuple[int, float, list[str]] | None = None
        self._examined: set[str] = set()
        self._watched = -1
        self._complaints = Complaints(run.say)
        self._weights = WeightPosting(run.ledger, run.rules.run, publishing.identity, self._complaints)
        self._shown = -1

    def restore(self) -> None:
        """Takes up its journal, if there is one.

        Raises:
          CorruptJournal: the file was altered.
        """
        found = read_journal(self._journal)
        if found is None:
            return
        self._validator.restore(found["memory"])
        self.judged = found["judged"]
        round, start, accepted = found["before"]
        self._before = (round, start, accepted)
        publishing = self._publishing
        self._own = read_published(
            found["document"].encode(),
            run=self._run.rules.run,
            round=self.judged,
            validator=self._validator.name,
            public_key=publishing.identity.public_key,
            slots=publishing.slots,
        )
        self._run.say(f"took up its journal of round {self.judged}")

    def live(self, stop: threading.Event) -> None:
        """Judges until the run is over or ``stop`` is set; an outage of ledger or storage is waited out.

        Raises:
          ValueError: this node cannot take part in the run at all.
        """
        live(self._run, self._replica, self._turn, stop, self._complaints)

    def close(self) -> None:
        """Lets go of nothing: its journal is closed after every round."""

    def _turn(self, status: RunStatus, stop: threading.Event) -> None:
        assert status.round is not None
        self._run.catch_up(self._replica, status.round, stop=stop, followed=self._followed)
        if status.round >= self._run.rules.rounds or stop.is_set():
            return
        if self._replica.round > status.round:
            stop.wait(POLL_SECONDS)
            return
        opening = self._run.opening(status)
        if self._run.ledger.now() < opening.window.closes:
            self._watch(opening)
            stop.wait(POLL_SECONDS)
            return
        if self.judged < status.round:
            before = self._validator.state()
            try:
                self._judge(opening)
            except BaseException:
                # Half of a decision is none: the next try must not count the round twice.
                self._validator.restore(before)
                raise
            status = self._run.ledger.status()
        if status.round != opening.round or self._replica.round != opening.round:
            return
        self._show(status)
        if status.pending is None:
            self._post(opening, status)
        elif (
            status.pending.final_at is None
            and status.pending.validator != self._validator.name
            and status.pending.digest not in self._examined
        ):
            self._examine(status.pending)
        stop.wait(POLL_SECONDS)

    def _watch(self, opening: Opening) -> None:
        """Sees who has committed, once, as soon as nobody may any more (and a clock that is a little fast may say so)."""
        commits, now = opening.commits, self._run.ledger.now()
        if commits is None or self._watched >= opening.round or now < commits.closes + _CLOCK_SKEW:
            return
        if now > opening.window.opens + _WATCH_SECONDS:
            return  # it came too late itself: what it saw now would prove nothing, and providers' times must do
        self._admit(opening.round)
        until = max(opening.window.opens, commits.closes + _CLOCK_SKEW + _WATCH_SECONDS)
        self._validator.watch(opening, seconds=max(0.0, until - self._run.ledger.now()))
        self._watched = opening.round

    def _admit(self, round: int) -> None:
        for member in self._run.members(round).values():
            self._validator.admit(member)

    def _judge(self, opening: Opening) -> None:
        """Decides the round, signs the decision and writes the journal, in this order: showing it comes after."""
        replica = self._replica
        if self._own is not None and self._shown < self._own.record.round:
            # It was killed before it had shown an earlier round: what it remembers of that must be there to be audited.
            self._publisher.show(self._own)
            self._shown = self._own.record.round
        self._admit(opening.round)
        altered = self._changed()
        verdict = self._validator.judge(
            opening, self._run.closing(opening.round), replica.params, altered=altered
        )
        record = self._record(opening, verdict)
        own = self._publisher.prepare(record, verdict.update, self._validator.received)
        accepted = [peer.name for peer in record.peers if peer.refusal is None]
        self._before = (opening.round, opening.window.opens - self._run.rules.times.opens, accepted)
        document = {
            "judged": opening.round,
            "before": list(self._before),
            "memory": self._validator.state(),
            "document": own.document.decode(),
        }
        write_journal(self._journal, document)
        self._own, self.judged = own, opening.round
        refused = [f"{peer.name} {peer.refusal}" for peer in record.peers if peer.refusal]
        self._run.say(
            f"round {opening.round}: {len(record.peers) - len(refused)} of {len(record.peers)} accepted"
            + (f" ({', '.join(refused)})" if refused else "")
        )

    def _changed(self) -> dict[str, str]:
        """Who has changed what was accepted in the round judged before."""
        if self._before is None:
            return {}
        round, start, accepted = self._before
        return self._validator.changed(self._run.opening_of(round, start), accepted)

    def _record(self, opening: Opening, verdict: Verdict) -> RoundRecord:
        params = self._apply(
            jax.tree.map(jnp.copy, self._replica.params), verdict.update, np.float32(opening.step_size)
        )
        measured = opening.round == 0 or (opening.round + 1) % self._publishing.heldout_every == 0
        return RoundRecord(
            round=opening.round,
            learning_rate=opening.step_size,
            heldout_loss=self._publishing.heldout_loss(params) if measured else None,
            baseline_loss=None,
            params_digest=self._replica.digest(params),
            emission=0,
            reserve=0,
            peers=verdict.peers,
            validator=self._validator.name,
        )

    def _show(self, status: RunStatus) -> None:
        """Commits to its weights of the round; and once nobody can any more, shows them and all of its work."""
        own = self._own
        if own is None or own.record.round != status.round or status.commits_close is None:
            return
        self._weights.post(own.record, status)
        if self._shown < own.record.round and status.now >= status.commits_close:
            self._publisher.show(own)
            self._shown = own.record.round

    def _post(self, opening: Opening, status: RunStatus) -> None:
        """Posts its record, if it is its turn: the ledger decides that."""
        own = self._own
        if own is None or own.record.round != opening.round or self._validator.name in status.vetoed:
            return
        if self._shown < own.record.round or status.commits_close is None:
            return
        rules = self._run.rules
        order = finality.succession(rules.stakes)
        rank = order.index(self._validator.name)
        turn = status.commits_close + rank * rules.succession_seconds
        if self._run.ledger.now() < turn and not set(order[:rank]) <= set(status.vetoed):
            return
        record = own.record
        try:
            self._run.ledger.post_record(record.round, own.digest)
        except LedgerRefused as refused:
            self._complaints.about(f"round {record.round}: the ledger did not take the record: {refused}")
        else:
            self._run.say(f"round {record.round}: posted")

    def _examine(self, posting: Posting) -> None:
        """Looks at the record that another validator posted, and rejects it if it is wrong."""
        try:
            fault = self._fault(posting)
        except (NoRecord, Unavailable) as error:
            # It may still come; but a record that nobody could follow must not become final.
            if self._run.ledger.now() < posting.posted_at + self._run.rules.veto_seconds / 2:
                self._complaints.about(error)
                return
            fault = "it, or an artifact of it, cannot be had"
        self._examined.add(posting.digest)
        if fault is None:
            return
        self._run.say(f"round {posting.round}: rejecting the record of {posting.validator}: {fault}")
        try:
            self._run.ledger.reject_record(posting.round, posting.digest)
        except LedgerRefused as refused:
            self._complaints.about(f"round {posting.round}: the ledger did not take the rejection: {refused}")

    def _fault(self, posting: Posting) -> str | None:
        """What is wrong with a posted record, as one clause; None if nothing is."""
        try:
            published = self._run.posted(posting)
        except BadDocument as bad:
            return str(bad)
        record = published.record
        expected = self._run.opening_of(posting.round, self._run.ledger.status().start or 0.0).step_size
        if record.learning_rate != expected:
            return "its step size is not the schedule's"
        if published.corpus != self._run.rules.corpus:
            return "it was made with another text"
        if self._own is not None and self._own.record.round == posting.round:
            fault = disagreement(record.peers, self._own.record.peers)
            if fault is not None:
                return fault
        try:
            self._replica.after(
                published, self._run.members(posting.round), self._run.buckets_for(posting), strict=True
            )
        except Unavailable:
            raise
        except Diverged:
            return "its parameters do not follow from its artifacts"
        # Before it is final, and so whether or not its validator stays.
        self._publisher.keep(published)
        return None

    def _followed(self, published: PublishedRecord) -> None:
        """Keeps a copy of what became final, and publishes checkpoints."""
        self._publisher.keep(published)
        round = published.record.round + 1
        if round % self._run.rules.checkpoint_every == 0:
            self._publisher.checkpoint(round, self._replica.flat())
