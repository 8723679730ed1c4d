"""``gauntlet follow URL``: a shared run as an onlooker sees it, from its final records alone.

Nothing is asked of the nodes: the ledger says which record of a round is final, and the validators' buckets have it.
"""

import dataclasses
import importlib
import json
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, TextIO

import tyro
from rich.console import Console

from gauntlet_jax.cli import leaderboard, libraries, overrides, report, run_folder
from gauntlet_jax.cli.node import judging, stopping
from gauntlet_jax.cli.run_folder import UsageError
from gauntlet_jax.nodes.record import RoundRecord, to_json
from gauntlet_jax.rewards.ledger import LedgerUnreachable, Posting, RunStatus
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.rewards.writer_lock import sole_writer
from gauntlet_jax.storage.endpoints import EndpointPolicy, RefusedAddress
from gauntlet_jax.storage.public_bucket import PublicReader

USAGE = """usage: gauntlet follow URL [--out DIR] [--allow-endpoint HOST:PORT] [--allow-folder PATH]

Shows a shared run as it goes, from the ledger at URL and the records in the validators' buckets, and keeps what it
reads in DIR for gauntlet report and gauntlet explain. Whoever comes late reads all rounds from the first. Ctrl-C
ends it at any time, and the same command goes on from there.

gauntlet follow URL --help explains every flag."""

_POLL_SECONDS = 1.0
_LEDGER_WAIT_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class FollowFlags:
    """A shared run, shown as it goes.

    Attributes:
      out: folder for what is read (default: runs/<run>/follow).
      allow_endpoint: HOST:PORT of a storage endpoint to read from although its address is not public.
      allow_folder: folder below which the validators' buckets may be read.
    """

    out: Path | None = None
    allow_endpoint: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    allow_folder: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()


def run(arguments: Sequence[str]) -> int:
    """The command.

    Args:
      arguments: what follows ``gauntlet follow``.

    Returns:
      0, when the run is over and when Ctrl-C came.

    Raises:
      UsageError: anything that the user can mend.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        if arguments:
            return 0
        raise UsageError("follow needs the URL of a ledger, such as http://127.0.0.1:7400")
    url, *rest = arguments
    if url.startswith("-"):
        raise UsageError(f"the URL comes first: gauntlet follow URL {' '.join(arguments)}")
    flags = overrides.apply_overrides(FollowFlags(), rest, program=f"gauntlet follow {url}")
    libraries.quiet()
    stop, console = threading.Event(), Console(highlight=False)
    with stopping(stop, lambda line: None), judging():
        return _follow(url, rest, flags, console, stop)


def phase(status: RunStatus, times: Any, known: int) -> str:
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
        return f"round {status.round} is final, round {known} is about to begin"
    if known < status.round:
        return f"reading the record of round {known}"
    if since < times.closes:
        return f"round {known}: peers train and upload, {times.closes - since:.0f} s until their time is up"
    if status.pending is not None:
        return f"round {known}: {status.pending.validator} has posted its record, which can still be vetoed"
    vetoed = f" (vetoed: {', '.join(status.vetoed)})" if status.vetoed else ""
    return f"round {known}: validators judge{vetoed}"


def _waits(status: RunStatus) -> str:
    if status.waiting_for:
        return f"the run waits for {', '.join(status.waiting_for)}"
    return "everybody is there; the first round is about to begin"


def _follow(
    url: str, rest: Sequence[str], flags: FollowFlags, console: Console, stop: threading.Event
) -> int:
    policy = EndpointPolicy(frozenset(flags.allow_endpoint), tuple(flags.allow_folder))
    client = LedgerClient(url, stop=stop)
    terms = _first_answer(client, console, stop)
    if terms is None:
        return 0
    followed = importlib.import_module("gauntlet_jax.cli.followed_run")
    config = followed.config_for_onlookers(terms)
    folder = flags.out if flags.out is not None else Path("runs") / config.name / "follow"
    again = shlex.join(["gauntlet", "follow", url, *rest, *([] if flags.out else ["--out", str(folder)])])
    text = followed.config_text(terms, config)
    there = folder.is_dir() and any(folder.iterdir())
    run_folder.open_for_run(folder, text, resume=there, overwrite=False)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(sole_writer(folder / run_folder.ROUNDS))
        records = run_folder.keep_rounds(folder / run_folder.ROUNDS, None)
        run_folder.write_atomically(folder / run_folder.CONFIG, text)
        lines = stack.enter_context((folder / run_folder.ROUNDS).open("a", encoding="utf-8"))
        reader = PublicReader(policy)
        stack.callback(reader.close)
        onlooker = _Onlooker(client, policy, reader, config, records, lines)
        _say(console, f"run {config.name}, {config.rounds} rounds, into {folder}")
        onlooker.watch(console, stop)
        over = len(records) == config.rounds
        if over:
            _finish(followed, terms, config, folder, records, onlooker)
    _close(console, folder, records, config.rounds, again)
    return 0


class _Onlooker:
    """Reads final records, one after the other, into ``records`` and ``rounds.jsonl``."""

    def __init__(
        self,
        client: LedgerClient,
        policy: EndpointPolicy,
        reader: PublicReader,
        config: Any,
        records: list[RoundRecord],
        lines: TextIO,
    ) -> None:
        public = importlib.import_module("gauntlet_jax.nodes.public_run")
        self._no_record = public.NoRecord
        self._say: Callable[[str], None] = lambda line: None
        self._run = public.PublicRun(
            client,
            run=config.name,
            slots=config.slots,
            open_bucket=reader.open,
            say=lambda line: self._say(line),
        )
        self._policy = policy
        self._config = config
        self._records = records
        self._lines = lines
        self._kept = len(records)
        self._said = ""

    def watch(self, console: Console, stop: threading.Event) -> None:
        """Reads and shows records until the run is over or ``stop`` is set."""
        self._say = lambda line: _say(console, line)
        with console.status("reading the records of the rounds so far") as status:
            while not stop.is_set() and self._step():
                status.update(f"reading the records of the rounds so far: {len(self._records)}")
        if len(self._records) == self._config.rounds or stop.is_set():
            return
        with leaderboard.Display(console, self._config.rounds, len(self._records)) as display:
            self._say = display.say
            display.update(self._records)
            while not stop.is_set() and len(self._records) < self._config.rounds:
                if self._step():
                    display.update(self._records)
                else:
                    self._note(display)
                    stop.wait(_POLL_SECONDS)

    def postings(self) -> tuple[Posting, Posting]:
        """The final postings of the first round and of the last."""
        first, last = (self._run.ledger.record(at) for at in (0, self._config.rounds - 1))
        assert first is not None and last is not None, "the run is over"
        return first, last

    def validators(self) -> list[Any]:
        """The run's validators."""
        return self._run.validators()

    def _step(self) -> bool:
        """Reads one record, if there is one that was not read yet."""
        if len(self._records) == self._config.rounds:
            return False
        try:
            if self._kept:
                self._check_kept()
            posting = self._run.ledger.record(len(self._records))
            if posting is None:
                return False
            published = self._run.posted(posting)
        except (LedgerUnreachable, self._no_record) as error:
            if isinstance(error, self._no_record):
                self._check_readable()
            self._once(f"{error}; trying again")
            return False
        self._said = ""
        record = published.record
        if {peer.name: peer.payout for peer in record.peers} != dict(posting.payouts):
            self._say(f"round {record.round}: the ledger paid otherwise than its record says")
        self._lines.write(to_json(record) + "\n")
        self._lines.flush()
        self._records.append(record)
        return True

    def _check_kept(self) -> None:
        """The newest record of an earlier process must be this run's too."""
        posting = self._run.ledger.record(self._kept - 1)
        if posting is None or to_json(self._run.posted(posting).record) != to_json(self._records[-1]):
            raise UsageError(
                "the folder holds another run of the same config: give another --out for this one"
            )
        self._kept = 0

    def _check_readable(self) -> None:
        """Raises UsageError if waiting is in vain: no validator's bucket may be read with the given flags."""
        refusals = []
        for entry in self._run.validators():
            try:
                address = self._policy.check(entry.bucket)
            except RefusedAddress as error:
                refusals.append(f"{entry.name}'s bucket {entry.bucket.split('?')[0]} is {error}")
                continue
            del address
            return
        raise UsageError(f"no validator's bucket may be read: {'; '.join(refusals)}")

    def _note(self, display: leaderboard.Display) -> None:
        try:
            status = self._run.ledger.status()
        except LedgerUnreachable as error:
            self._once(f"{error}; trying again")
            return
        display.note(phase(status, self._config.times, len(self._records)))
        if status.round is None:
            self._once(_waits(status))

    def _once(self, line: str) -> None:
        """Says a line, not again at every try."""
        if line != self._said:
            self._say(line)
            self._said = line


def _first_answer(client: LedgerClient, console: Console, stop: threading.Event) -> dict[str, Any] | None:
    """The run's terms; None if Ctrl-C came first. A ledger that is being started is waited for."""
    until, said = time.monotonic() + _LEDGER_WAIT_SECONDS, False
    while not stop.is_set():
        try:
            return client.terms()
        except LedgerUnreachable as error:
            if time.monotonic() > until:
                raise
            if not said:
                _say(console, f"{error} Trying for {_LEDGER_WAIT_SECONDS:.0f} s")
                said = True
        stop.wait(_POLL_SECONDS)
    return None


def _finish(
    followed: Any,
    terms: Any,
    config: Any,
    folder: Path,
    records: Sequence[RoundRecord],
    onlooker: _Onlooker,
) -> None:
    first, last = onlooker.postings()
    known = followed.summary(
        terms, config, records, first=first, last=last, validators=onlooker.validators()
    )
    text = json.dumps(known, indent=2, allow_nan=False) + "\n"
    run_folder.write_atomically(folder / run_folder.SUMMARY, text)
    run_folder.write_atomically(folder / run_folder.REPORT, report.render(run_folder.read_run(folder)))


def _close(console: Console, folder: Path, records: Sequence[RoundRecord], rounds: int, again: str) -> None:
    """The last lines: the table, what lies where, and how to go on."""
    if records:
        _say(console, f"\n{leaderboard.plain_table(records)}\n")
    if len(records) < rounds:
        _say(console, f"followed {len(records)} of {rounds} rounds; go on with: {again}")
    else:
        _say(console, f"the run is over, parameters {records[-1].params_digest}")
        _say(console, f"report      {folder / run_folder.REPORT}")
    names = [peer.name for record in records for peer in record.peers]
    if names:
        shown = shlex.join(["gauntlet", "explain", str(folder), "--peer", names[0]])
        _say(console, f"why a peer got what it got: {shown}")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
