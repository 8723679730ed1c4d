"""Reads the final records of a shared run, one after the other, and shows them."""

import math
import threading
from collections.abc import Callable
from typing import TextIO

from rich.console import Console

from gauntlet_jax.cli import leaderboard
from gauntlet_jax.cli.run_folder import UsageError
from gauntlet_jax.config import Config
from gauntlet_jax.config_check import slots_of
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.public_run import NoRecord, PublicRun
from gauntlet_jax.nodes.record import RoundRecord, as_judged, to_json
from gauntlet_jax.nodes.settlement import paid
from gauntlet_jax.rewards.ledger import LedgerUnreachable, Posting, RunStatus
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.storage.endpoints import EndpointPolicy, RefusedAddress
from gauntlet_jax.storage.public_bucket import PublicReader

_POLL_SECONDS = 1.0
_LONGEST_LINE = 600


class Onlooker:
    """Reads final records, one after the other, into ``records`` and ``rounds.jsonl``."""

    def __init__(
        self,
        client: LedgerClient,
        policy: EndpointPolicy,
        reader: PublicReader,
        config: Config,
        records: list[RoundRecord],
        lines: TextIO,
    ) -> None:
        """An onlooker who has read nothing yet.

        Args:
          client: reads the ledger.
          policy: which buckets may be read.
          reader: opens them.
          config: of the run.
          records: those that an earlier process has read; the others are appended.
          lines: ``rounds.jsonl``, which they are appended to as well.
        """
        self._say: Callable[[str], None] = lambda line: None
        self._run = PublicRun(
            client,
            run=config.name,
            slots=slots_of(config),
            open_bucket=reader.open,
            say=self._tell,
        )
        self._policy = policy
        self._config = config
        self._records = records
        self._lines = lines
        self._kept = len(records)
        self._said = ""

    def watch(self, console: Console, stop: threading.Event) -> None:
        """Reads and shows records until the run is over or ``stop`` is set."""
        self._say = lambda line: console.print(line, markup=False, soft_wrap=True)
        with console.status("reading the records of the rounds so far") as status:
            while not stop.is_set() and self._step():
                status.update(f"reading the records of the rounds so far: {len(self._records)}")
        if self._is_done or stop.is_set():
            return
        with leaderboard.Display(console, self._config.rounds, len(self._records)) as display:
            self._say = display.say
            display.update(self._records)
            while not stop.is_set() and not self._is_done:
                if self._step():
                    display.update(self._records)
                else:
                    self._note(display, console.is_terminal)
                    stop.wait(_POLL_SECONDS)

    def postings(self) -> tuple[Posting, Posting]:
        """The final postings of the first round and of the last."""
        first, last = (self._run.ledger.record(at) for at in (0, self._config.rounds - 1))
        assert first is not None and last is not None, "the run is over"
        return first, last

    @property
    def _is_done(self) -> bool:
        return len(self._records) == self._config.rounds and not self._kept

    def _step(self) -> bool:
        """Reads one record, if there is one that was not read yet."""
        try:
            if self._kept:
                self._check_kept()
            if self._is_done:
                return False
            posting = self._run.ledger.record(len(self._records))
            if posting is None:
                return False
            published = self._run.posted(posting)
            epoch = self._run.ledger.epoch(len(self._records))
            vetoed = self._run.ledger.vetoes(len(self._records))
        except (LedgerUnreachable, NoRecord) as error:
            if isinstance(error, NoRecord):
                self._check_readable()
            self._once(f"{error}; trying again")
            return False
        if epoch is None:
            self._once(f"round {len(self._records)}: final, and not paid yet")
            return False
        self._said = ""
        stakes = {entry.name: entry.stake for entry in self._run.validators()}
        record = paid(published.record, epoch, stakes=stakes, behaviors={}, vetoed=vetoed)
        self._lines.write(to_json(record) + "\n")
        self._lines.flush()
        self._records.append(record)
        return True

    def _check_kept(self) -> None:
        """The newest record of an earlier process must be this run's too."""
        posting = self._run.ledger.record(self._kept - 1)
        if posting is None or self._run.posted(posting).record != as_judged(self._records[-1]):
            raise UsageError(
                "the folder holds another run of the same config: give another --out for this one"
            )
        self._kept = 0

    def _check_readable(self) -> None:
        """Raises UsageError if waiting is in vain: no validator's bucket may be read with the given flags."""
        buckets = {entry.name: entry.bucket for entry in self._run.validators()}
        refusals = {name: self._refusal(bucket) for name, bucket in buckets.items()}
        if all(refusals.values()):
            told = [f"{name}'s, {buckets[name].split('?')[0]}, is {why}" for name, why in refusals.items()]
            whole = f"no validator's bucket may be read from here: {'; '.join(told)}"
            raise UsageError(leaderboard.printable(whole, _LONGEST_LINE))

    def _refusal(self, bucket: str) -> str:
        try:
            self._policy.check(bucket)
        except RefusedAddress as error:
            return str(error)
        return ""

    def _note(self, display: leaderboard.Display, is_terminal: bool) -> None:
        try:
            status = self._run.ledger.status()
        except LedgerUnreachable as error:
            display.note("the ledger does not answer")
            self._once(f"{error}; trying again")
            return
        display.note(phase(status, self._config.times, len(self._records)))
        if status.round is None and not is_terminal:
            self._once(_waits(status))

    def _tell(self, line: str) -> None:
        """Says a line, in which there may be strangers' words."""
        self._say(leaderboard.printable(line, _LONGEST_LINE))

    def _once(self, line: str) -> None:
        """Says a line, not again at every try."""
        if line != self._said:
            self._tell(line)
            self._said = line


def phase(status: RunStatus, times: RoundTimes, known: int) -> str:
    """What a run is doing, in a few words.

    Args:
      status: of the run.
      times: a round's ``RoundTimes``.
      known: rounds whose final record has been read.
    """
    if status.round is None:
        return _waits(status)
    since = status.now - (status.start or 0.0)
    if known > status.round:
        return f"round {known} is about to begin"
    if known < status.round:
        return f"reading the record of round {known}"
    if since < times.closes:
        return f"round {known}: peers train and upload, {math.ceil(times.closes - since)} s until their time is up"
    if status.pending is not None:
        return f"round {known}: {status.pending.validator} has posted its record, which can still be vetoed"
    vetoed = f" (vetoed: {', '.join(status.vetoed)})" if status.vetoed else ""
    return f"round {known}: validators judge{vetoed}"


def _waits(status: RunStatus) -> str:
    if status.waiting_for:
        return f"the run waits for {', '.join(status.waiting_for)}"
    return "everybody is there; the first round is about to begin"
