"""From a shared run's ledger to its audit: every validator that took part once more, over public buckets and its own observations."""

from collections.abc import Callable, Iterator

from gauntlet_jax.build.parts import Data, digest_of, make_validator, read_corpus
from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import make_task
from gauntlet_jax.config import Config
from gauntlet_jax.config_check import slots_of
from gauntlet_jax.nodes.audit import Auditor, Difference
from gauntlet_jax.nodes.beacon import LedgerBeacon, SeededBeacon
from gauntlet_jax.nodes.inspection import Member
from gauntlet_jax.nodes.observed_bucket import ObservedBucket
from gauntlet_jax.nodes.public_run import PublicRun
from gauntlet_jax.nodes.record import RoundRecord
from gauntlet_jax.nodes.settlement import paid
from gauntlet_jax.nodes.stopwatch import compile_all
from gauntlet_jax.rewards.ledger import Posting, SharedLedger
from gauntlet_jax.storage.bucket import ReadableBucket
from gauntlet_jax.storage.signed_json import BadDocument
from gauntlet_jax.training.eval_step import mean_loss


class SharedAudit:
    """The audit of a run of processes, as far as it is final, from what anybody can read of it.

    Attributes:
      rounds: how many there are to audit.
      measured: the same as a set: loss scores are measured in all of them.
      records: those that were audited, with what was paid.
    """

    def __init__(
        self,
        config: Config,
        ledger: SharedLedger,
        *,
        open_bucket: Callable[[str], ReadableBucket],
        say: Callable[[str], None],
        tolerance: float,
    ) -> None:
        """Builds the validators and compiles their steps.

        Args:
          config: of the run.
          ledger: of the run, to be read.
          open_bucket: a public address to a bucket; ValueError for one that is not accepted here.
          say: takes a line for the operator.
          tolerance: relative, up to which floats count as equal.

        Raises:
          ValueError: the run has no final round yet.
          OSError: the ledger or the text cannot be read.
        """
        self._config, self._ledger = config, ledger
        self._public = PublicRun(
            ledger, run=config.name, slots=slots_of(config), open_bucket=open_bucket, say=say
        )
        self._observed: dict[str, ObservedBucket] = {}
        self.records: list[RoundRecord] = []
        self.rounds = 0
        while self.rounds < config.rounds and ledger.epoch(self.rounds) is not None:
            self.rounds += 1
        if self.rounds == 0:
            raise ValueError("no round of it is final and paid yet")
        self.measured = frozenset(range(self.rounds))
        corpus = read_corpus(config)
        self._corpus = digest_of(corpus)
        task = make_task(config, corpus)
        data, steps = Data(config, corpus, task.shardings), Steps(config, task)
        compile_all(steps.stopwatch, steps.work(peer=False))
        self._stakes = {one.name: float(one.stake) for one in config.validators}
        self._auditor = Auditor(
            run=config.name,
            params=task.params,
            validators={name: make_validator(name, config, task, data, steps) for name in self._stakes},
            members=self._members,
            stakes=self._stakes,
            apply=steps.apply,
            heldout_loss=lambda params: mean_loss(steps.loss, params, list(data.heldout)),
            learning_rate=config.learning_rate.schedule(),
            digest=steps.digest,
            beacon=SeededBeacon(config.seed) if config.beacon == "seeded" else LedgerBeacon(ledger),
            times=config.times,
            commit_reveal=config.commit_reveal,
            emission=config.rewards.emission,
            books=ledger,
            tolerance=tolerance,
        )

    def steps(self) -> Iterator[Difference | None]:
        """Round after round; each step gives its first difference.

        Raises:
          OSError: something cannot be read now.
        """
        for t in range(self.rounds):
            yield self._round(t)

    def close(self) -> None:
        """Lets go of nothing: ledger and buckets are the caller's."""

    def _round(self, t: int) -> Difference | None:
        posting, epoch = self._ledger.record(t), self._ledger.epoch(t)
        if posting is None or epoch is None:
            return Difference(t, "", "final record", None, "one, since the round was paid")
        try:
            published = self._public.posted(posting)
        except BadDocument as bad:
            return Difference(t, posting.validator, "record", "a final one", str(bad))
        if published.corpus != self._corpus:
            return Difference(
                t, posting.validator, "the training text's sha256", published.corpus, self._corpus
            )
        observed = self._observations(t, posting, published.record)
        if isinstance(observed, Difference):
            return observed
        record = paid(
            published.record, epoch, stakes=self._stakes, behaviors={}, vetoed=self._ledger.vetoes(t)
        )
        self.records.append(record)
        return self._auditor.audit(record, start=posting.start, observed=observed)

    def _observations(
        self, t: int, posting: Posting, final: RoundRecord
    ) -> dict[str, RoundRecord] | Difference:
        """What each validator that judged a round says that it saw; who shows weights must show that."""
        observed = {posting.validator: final}
        weights = self._ledger.weights(t)
        for entry in self._public.validators():
            if entry.name == posting.validator or entry.name not in self._stakes:
                continue
            try:
                own = self._public.judged(entry, t)
            except BadDocument as bad:
                return Difference(t, entry.name, "its own record", "one", str(bad))
            if own is not None:
                observed[entry.name] = own.record
            elif entry.name in weights:
                return Difference(t, entry.name, "its own record", "weights on the ledger", "none to them")
        return observed

    def _members(self, t: int) -> list[Member]:
        """The peers of a round by slot."""
        found: list[Member] = []
        for entry in self._ledger.registrations(t):
            if entry.slot is not None:
                if entry.bucket not in self._observed:
                    self._observed[entry.bucket] = ObservedBucket(self._public.bucket(entry.bucket))
                found.append(Member(entry.name, entry.slot, self._observed[entry.bucket], entry.public_key))
        return sorted(found, key=lambda member: member.slot)
