"""``gauntlet follow URL``: a shared run as an onlooker sees it, from its final records alone.

Nothing is asked of the nodes: the ledger says which record of a round is final, and the validators' buckets have it.
"""

import dataclasses
import fcntl
import importlib
import json
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from gauntlet_jax.cli import leaderboard, libraries, overrides, report, run_folder
from gauntlet_jax.cli.node import judging, stopping
from gauntlet_jax.cli.run_folder import UsageError
from gauntlet_jax.nodes.record import RoundRecord
from gauntlet_jax.rewards.ledger import LedgerUnreachable
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.storage.endpoints import EndpointPolicy
from gauntlet_jax.storage.public_bucket import PublicReader

USAGE = """usage: gauntlet follow URL [--out DIR] [--allow-endpoint HOST:PORT] [--allow-folder PATH]

Shows a shared run as it goes, from the ledger at URL and the records in the validators' buckets, and keeps what it
reads in DIR for gauntlet report and gauntlet explain. Whoever comes late reads all rounds from the first. Ctrl-C
ends it at any time, and the same command goes on from there.

gauntlet follow URL --help explains every flag."""

_LOCK = ".follow.lock"
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


def _follow(
    url: str, rest: Sequence[str], flags: FollowFlags, console: Console, stop: threading.Event
) -> int:
    policy = EndpointPolicy(frozenset(flags.allow_endpoint), tuple(flags.allow_folder))
    with ExitStack() as stack:
        client = stack.enter_context(closing(LedgerClient(url, stop=stop)))
        terms = _first_answer(client, console, stop)
        if terms is None:
            return 0
        followed, watching = (
            importlib.import_module(f"gauntlet_jax.cli.{name}") for name in ("followed_run", "onlooker")
        )
        config = followed.config_for_onlookers(terms)
        folder = flags.out if flags.out is not None else Path("runs") / config.name / "follow"
        text = followed.config_text(terms, config)
        there = folder.is_dir() and any(folder.iterdir())
        run_folder.open_for_run(folder, text, resume=there, overwrite=False)
        folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_alone(folder))
        records = run_folder.keep_rounds(folder / run_folder.ROUNDS, None)
        run_folder.write_atomically(folder / run_folder.CONFIG, text)
        lines = stack.enter_context((folder / run_folder.ROUNDS).open("a", encoding="utf-8"))
        reader = stack.enter_context(closing(PublicReader(policy)))
        onlooker = watching.Onlooker(client, policy, reader, config, records, lines)
        _say(console, f"run {config.name}, {config.rounds} rounds, into {folder}")
        onlooker.watch(console, stop)
        if len(records) == config.rounds:
            first, last = onlooker.postings()
            known = followed.summary(terms, config, records, first=first, last=last)
            _write_summary(folder, known)
    again = shlex.join(["gauntlet", "follow", url, *rest, *([] if flags.out else ["--out", str(folder)])])
    _close(console, folder, records, config.rounds, again)
    return 0


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a folder: two processes that append to one file would spoil it."""
    with (folder / _LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another gauntlet follow writes into {folder}: give another --out") from error
        yield


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
                _say(
                    console,
                    f"{leaderboard.printable(str(error), 400)} Trying for {_LEDGER_WAIT_SECONDS:.0f} s",
                )
                said = True
        stop.wait(_POLL_SECONDS)
    return None


def _write_summary(folder: Path, known: dict[str, Any]) -> None:
    text = json.dumps(known, indent=2, allow_nan=False) + "\n"
    run_folder.write_atomically(folder / run_folder.SUMMARY, text)
    run_folder.write_atomically(folder / run_folder.REPORT, report.render(run_folder.read_run(folder)))


def _close(console: Console, folder: Path, records: Sequence[RoundRecord], rounds: int, again: str) -> None:
    """The last lines: the table, what lies where, and how to go on."""
    if records:
        _say(console, f"\n{leaderboard.plain_table(records)}\n")
    if len(records) < rounds:
        _say(console, f"followed {len(records)} of {rounds} rounds; follow on with: {again}")
    else:
        _say(console, f"the run is over, parameters {records[-1].params_digest}")
        _say(console, f"report      {folder / run_folder.REPORT}")
    names = [peer.name for record in records for peer in record.peers]
    if names:
        shown = shlex.join(["gauntlet", "explain", str(folder), "--peer", names[0]])
        _say(console, f"why a peer got what it got: {leaderboard.printable(shown, 400)}")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
