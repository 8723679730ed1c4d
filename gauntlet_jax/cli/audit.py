"""``gauntlet audit RUN``: computes a run again from what it has left behind, and says where it differs.

RUN is the folder of a simulation, or the URL of a shared run's ledger, whose buckets are then read as anybody may.
"""

import argparse
import dataclasses
import importlib
import secrets
import stat
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from gauntlet_jax.cli import libraries, overrides, run_folder
from gauntlet_jax.cli.leaderboard import printable
from gauntlet_jax.cli.run_folder import UsageError

_LONGEST_LINE = 600
_OBSERVED_REFUSALS = ("missing", "early", "late", "unreachable", "uncommitted", "altered")
_LARGEST_FILE = 8 * 1024**3
DIFFERS = 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def run(arguments: Sequence[str]) -> int:
    """The command.

    Args:
      arguments: what follows ``gauntlet audit``.

    Returns:
      0 if everything follows, 1 if something does not.

    Raises:
      UsageError: the folder holds no run that can be audited.
    """
    given = _parser().parse_args(arguments)
    if given.seed is None:
        given.seed = secrets.randbelow(2**32)
    if given.seed < 0:
        raise UsageError(f"--seed {given.seed}: at least 0")
    if given.sample is not None and given.sample < 0:
        raise UsageError(f"--sample {given.sample}: a number of rounds, at least 0")
    if not 0 <= given.tolerance < 1:
        raise UsageError(f"--tolerance {given.tolerance}: at least 0 and below 1")
    console = Console(highlight=False)
    libraries.quiet()
    with ExitStack() as stack:
        if given.run.startswith(("http://", "https://")):
            found = _shared(given, console, stack)
        else:
            found = _folder(given, console, stack)
    if found is not None:
        console.print(printable(f"differs: {found}", _LONGEST_LINE), markup=False, soft_wrap=True)
        return DIFFERS
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gauntlet audit",
        description="Computes again what a run says, from its artifacts, records and ledger alone: who is assigned what, loss"
        " scores, ratings, proofs, standings, PeerScores, incentives, the update, consensus and payouts. Exit code 0: all of it"
        " follows; 1: the first thing that does not is told.",
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        help="the folder of a simulation that kept its artifacts, or the URL of a run's ledger",
    )
    parser.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="a spot check: measure the loss scores of N rounds, drawn at random, and take those of the others from the records"
        " (default: measure all). All else is computed again in every round, but for the weights of validators whose record was"
        " not final: what they are worth only their own scores tell",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="S",
        help="of the draw of those rounds (default: another one each time, which is said: nobody shall know them before)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the run's config file, needed only if it has code of its own (a model, a score)",
    )
    parser.add_argument(
        "--data-path",
        metavar="PATH",
        help="of a shared run: where its training text is (default: as its terms say)",
    )
    parser.add_argument(
        "--allow-folder",
        action="append",
        default=[],
        metavar="PATH",
        help="of a shared run: folder below which buckets may be read; may be given again",
    )
    parser.add_argument(
        "--allow-endpoint",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="of a shared run: storage endpoint to read from although its address is not public; may be given again",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="X",
        help="what was measured counts as equal up to this relative difference: for a run of other hardware, which rounds"
        " otherwise (default: 0, to the bit)",
    )
    return parser


def _folder(given: argparse.Namespace, console: Console, stack: ExitStack) -> Any:
    """The first difference of a simulation's folder, or None."""
    builder, folder = importlib.import_module("gauntlet_jax.build.audit"), Path(given.run)
    for name in (run_folder.CONFIG, run_folder.ROUNDS, run_folder.SUMMARY, run_folder.LEDGER):
        _check_plain(folder / name)
    found = run_folder.read_run(folder)
    with _judging(given.run):
        _check_types(found.records)
        text = (folder / run_folder.CONFIG).read_text(encoding="utf-8")
        difference = builder.look_at_inputs(folder, text)
        if difference is not None:
            return difference
        config = _config(given.config, text)
        lines = (folder / run_folder.ROUNDS).read_text(encoding="utf-8").splitlines()
        behaviors = {
            one["name"]: one["behavior"] if isinstance(one["behavior"], str) else "custom"
            for kind in ("peers", "validators")
            for one in found.config[kind]
        }
        files = builder.RunFiles(folder, behaviors, lines, found.records, found.summary)
        _say(console, f"auditing {len(found.records)} rounds of {config.name}: compiling")
        audit = builder.RunAudit(
            config, files, sample=given.sample, seed=given.seed, tolerance=given.tolerance
        )
        stack.enter_context(closing(audit))
        difference = _walk(audit, len(found.records) + 2, found.records, console)
    if difference is None and len(found.records) < config.rounds:
        _say(console, f"the run is unfinished: its config has {config.rounds} rounds")
    return difference


def _check_plain(path: Path) -> None:
    """Refuses what is no plain file of a sensible size: the folder may be a stranger's, and a pipe never ends."""
    try:
        found = path.lstat()
    except OSError:
        return  # who reads it says so
    if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_FILE:
        raise UsageError(f"{path} cannot be audited: it is no plain file of at most {_LARGEST_FILE:,} bytes")


def _check_types(records: Sequence[Any]) -> None:
    """Raises ValueError if a record holds values of other types than records do."""
    kind = importlib.import_module("gauntlet_jax.nodes.record").RoundRecord
    for record in records:
        try:
            msgspec.convert(dataclasses.asdict(record), kind, strict=True)
        except (msgspec.ValidationError, RecursionError) as error:
            raise ValueError(f"round {printable(repr(record.round), 20)} is no record: {error}") from error


def _shared(given: argparse.Namespace, console: Console, stack: ExitStack) -> Any:
    """The first difference of a shared run, as far as it is final, or None."""
    if given.sample is not None:
        raise UsageError("--sample is for the folder of a simulation: of a shared run all is measured")
    builder = importlib.import_module("gauntlet_jax.build.audit_shared")
    client_of = importlib.import_module("gauntlet_jax.rewards.ledger_client").LedgerClient
    buckets = importlib.import_module("gauntlet_jax.storage.public_bucket")
    endpoints = importlib.import_module("gauntlet_jax.storage.endpoints")
    with _judging(given.run):
        client = stack.enter_context(closing(client_of(given.run)))
        config = _shared_config(given, client.terms())
        policy = endpoints.EndpointPolicy(
            frozenset(given.allow_endpoint), tuple(map(Path, given.allow_folder))
        )
        reader = stack.enter_context(closing(buckets.PublicReader(policy)))
        _say(console, f"auditing {config.name}: compiling")
        audit = builder.SharedAudit(
            config,
            client,
            open_bucket=reader.open,
            say=lambda line: _say(console, printable(line, _LONGEST_LINE)),
            tolerance=given.tolerance,
        )
        return _walk(audit, audit.rounds, audit.records, console)


def _shared_config(given: argparse.Namespace, terms: Any) -> Any:
    """The config of a shared run's terms, or of a file that must agree with them."""
    shared = importlib.import_module("gauntlet_jax.terms")
    if given.config is None:
        config = importlib.import_module("gauntlet_jax.stored_config").from_terms(terms)
    else:
        config = overrides.load_config(given.config, importlib.import_module("gauntlet_jax.config").Config)
        shared.check_terms(config, terms)
    if given.data_path is None:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path=given.data_path))


def _walk(audit: Any, steps: int, records: Sequence[Any], console: Console) -> Any:
    """Takes an audit's steps up to the first difference."""
    began = time.monotonic()
    with _progress(console) as progress:
        task = progress.add_task("", total=steps)
        for step in audit.steps():
            progress.advance(task)
            if step is not None:
                return step
    _say(console, _verdict(audit, records, time.monotonic() - began))
    return None


@contextmanager
def _judging(run: str) -> Iterator[None]:
    """What is wrong with a run, or with a flag, is the user's to mend."""
    try:
        yield
    except UsageError:
        raise
    except (ValueError, OSError) as error:
        line = f"{run} cannot be audited: {run_folder.one_line(error)}"
        raise UsageError(printable(line, _LONGEST_LINE)) from error


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _config(path: str | None, text: str) -> Any:
    configs = importlib.import_module("gauntlet_jax.config")
    if path is None:
        return importlib.import_module("gauntlet_jax.stored_config").from_json(text)
    config = overrides.load_config(path, configs.Config)
    if configs.config_digest(configs.to_json(config)) != configs.config_digest(text):
        raise UsageError(f"{path} is not the config that the run was made with")
    return config


def _verdict(audit: Any, records: Sequence[Any], seconds: float) -> str:
    seen = Counter(
        peer.refusal for record in records for peer in record.peers if peer.refusal in _OBSERVED_REFUSALS
    )
    observed = ", ".join(f"{reason} x{count}" for reason, count in sorted(seen.items()))
    rest = f"; refusals that rest on what validators saw at the time: {observed}" if observed else ""
    scored = sum(bool(peer.scores) for t in audit.measured for peer in records[t].peers)
    units = sum(record.emission for record in records)
    drawn = f" (drawn with --seed {audit.seed})" if len(audit.measured) < len(records) else ""
    measured = f"{scored:,} evaluations of {len(audit.measured)} rounds measured again{drawn}"
    return (
        f"everything follows: {len(records)} rounds, {measured}, {units:,} units accounted for,"
        f" parameters {records[-1].params_digest[:12]}, {seconds:.1f} s{rest}"
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("audit"),
        MofNCompleteColumn(),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
