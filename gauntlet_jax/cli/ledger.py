"""``gauntlet ledger serve|status|show|transfer|verify``: the ledger of a shared run.

The service is the trusted stand-in for a chain: it keeps the order, the beacon and the balances, and can be audited, since all
that it decides is in a hash-chained file; but it could refuse a call, or foretell the beacon.
"""

import contextlib
import dataclasses
import importlib
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from gauntlet_jax.cli import overrides
from gauntlet_jax.cli.ledger_table import account_lines, epoch_lines
from gauntlet_jax.cli.ledger_transfer import TransferFlags, transfer
from gauntlet_jax.cli.node import judging
from gauntlet_jax.cli.run_folder import UsageError
from gauntlet_jax.rewards.beacon_chain import make_chain
from gauntlet_jax.rewards.ledger import Epoch, RunStatus
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.rewards.ledger_http import application, listen, server_of
from gauntlet_jax.rewards.ledger_service import LedgerService
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.rewards.writer_lock import sole_writer

USAGE = """usage: gauntlet ledger serve DB [--config CONFIG] [--host 127.0.0.1] [--port 7400] [--start-delay SECONDS]
       gauntlet ledger status URL
       gauntlet ledger show URL|DB [ROUND]
       gauntlet ledger transfer URL --key FILE --to ACCOUNT --units N [--name NAME] [--receipt RECEIPT]
       gauntlet ledger verify DB

serve    keeps the ledger of a shared run in the SQLite file DB and answers on http://HOST:PORT. A new DB needs --config.
status   says where a run stands.
show     prints what the validators' weights of a round came to (the newest, if none is given), and what every account holds.
transfer gives units of a node's account, or of its key's, to another account.
verify   recomputes the hash chain of DB, of a shared run or of a simulation."""

_SECRET_BYTES = 32
_SUBJECTS = {"serve": "DB", "status": "URL", "show": "URL or DB", "transfer": "URL", "verify": "DB"}


@dataclasses.dataclass(frozen=True)
class ServeFlags:
    """The ledger of a shared run, on http://HOST:PORT.

    Attributes:
      config: the run's config file; needed once, for a new ledger.
      host: address to listen on; 127.0.0.1 serves this machine alone.
      port: port to listen on; 0 takes a free one and says which.
      start_delay: seconds until the first round of a new run; None waits until every peer and validator of the config has
        registered.
    """

    config: Path | None = None
    host: str = "127.0.0.1"
    port: int = 7400
    start_delay: float | None = None


_FLAGS: Mapping[str, ServeFlags | TransferFlags] = {"serve": ServeFlags(), "transfer": TransferFlags()}


def run(arguments: Sequence[str]) -> int:
    """The command.

    Raises:
      UsageError: anything that the user can mend.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        if arguments:
            return 0
        raise UsageError("ledger needs a verb: serve, status, show, transfer or verify")
    verb, *rest = arguments
    if verb == "serve" and rest and not rest[0].startswith("-"):
        program = f"gauntlet ledger serve {rest[0]}"
        return _serve(Path(rest[0]), overrides.apply_overrides(ServeFlags(), rest[1:], program=program))
    if verb == "transfer" and rest and not rest[0].startswith("-"):
        program = f"gauntlet ledger transfer {rest[0]}"
        return transfer(rest[0], overrides.apply_overrides(TransferFlags(), rest[1:], program=program))
    if verb in _FLAGS and rest and rest[0] in ("-h", "--help"):
        overrides.apply_overrides(
            _FLAGS[verb], ["--help"], program=f"gauntlet ledger {verb} {_SUBJECTS[verb]}"
        )
    if verb == "status" and len(rest) == 1:
        return _status(rest[0])
    if verb == "show" and len(rest) in (1, 2):
        return _show(rest[0], _round(rest[1]) if len(rest) > 1 else None)
    if verb == "verify" and len(rest) == 1:
        return _verify(Path(rest[0]))
    if verb in _SUBJECTS:
        raise UsageError(f"gauntlet ledger {verb} needs one {_SUBJECTS[verb]}")
    raise UsageError(f"there is no gauntlet ledger {verb}: serve, status, show, transfer or verify")


def _serve(database: Path, flags: ServeFlags) -> int:
    with judging():
        database.parent.mkdir(parents=True, exist_ok=True)
        # The lock comes first: who has it may found the run.
        with sole_writer(database), _listen(flags.host, flags.port) as listening:
            ledger = SharedRunLedger(database, time.time)
            try:
                ledger.begin(_open(ledger, database, flags))
                if flags.config is not None:
                    _check(flags.config, ledger.terms())
                host, port = listening.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                told = f"ledger of run {ledger.terms()['run']} at http://{shown}:{port}"
                _answer(server_of(application(LedgerService(ledger))), listening, told)
            finally:
                ledger.close()
    print("stopped", flush=True)
    return 0


def _open(ledger: SharedRunLedger, database: Path, flags: ServeFlags) -> bytes | None:
    """Founds the run on a new ledger; returns the beacon's secret."""
    keep = database.with_name(database.name + ".beacon")
    if not ledger.is_founded:
        if flags.config is None:
            raise UsageError(f"{database} has no run yet: give --config with the run's config file")
        terms, anchor = _terms(flags.config), None
        if terms["beacon"] == "ledger":
            secret = os.urandom(_SECRET_BYTES)
            anchor, _ = make_chain(secret, 2 * terms["rounds"] + 2)
            # Before the run is: a secret that lies here now was of none, or of one that is gone.
            keep.unlink(missing_ok=True)
            descriptor = os.open(keep, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(secret)
                file.flush()
                os.fsync(file.fileno())
        ledger.found(terms, anchor=anchor, start_delay=flags.start_delay)
    if ledger.has_own_beacon:
        return _secret(keep)
    return None


def _secret(keep: Path) -> bytes:
    if not keep.is_file():
        raise UsageError(f"{keep} is missing: the run's beacon cannot go on without it, bring it back")
    with keep.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise UsageError(f"{keep}: others may read it; mend that with chmod 600")
        return file.read(_SECRET_BYTES + 1)


def _check(path: Path, terms: dict[str, Any]) -> None:
    """Another config would not be this ledger's: better said than passed over."""
    configs, modules = (importlib.import_module(f"gauntlet_jax.{name}") for name in ("config", "terms"))
    modules.check_terms(overrides.load_config(str(path), configs.Config), terms)


def _terms(path: Path) -> dict[str, Any]:
    configs, terms = (importlib.import_module(f"gauntlet_jax.{name}") for name in ("config", "terms"))
    return terms.terms_of(overrides.load_config(str(path), configs.Config))


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: ports are 0 to 65535")
    try:
        return listen(host, port)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror}; give another --port or --host"
        ) from error


def _answer(server: uvicorn.Server, listening: socket.socket, told: str) -> None:
    """Says where, and serves until Ctrl-C or SIGTERM."""
    # uvicorn raises the signal again when it is done: here that is an orderly end.
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, server.handle_exit) for number in numbers]
    try:
        print(told, flush=True)
        server.run(sockets=[listening])
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _status(url: str) -> int:
    with judging(), contextlib.closing(LedgerClient(url)) as client:
        status, terms = client.status(), client.terms()
        print(f"run {terms['run']}, {terms['rounds']} rounds, {terms['slots']} slots")
        if status.round is None:
            print(f"waits for {', '.join(status.waiting_for) or 'its time'}")
        else:
            told = f"round {status.round}, {status.now - (status.start or 0.0):+.1f} s since it began"
            print(told if status.round < terms["rounds"] else "the run is over")
            for line in _weights_lines(client, status):
                print(line)
        for entry in client.registrations(None):
            role = f"slot {entry.slot}" if entry.slot is not None else f"stake {entry.stake:g}"
            print(f"  {entry.name:<12} {role:<9} {entry.public_key[:16]}  {entry.bucket.split('?')[0]}")
        for line in account_lines(client.balances()):
            print(line)
    return 0


def _weights_lines(client: LedgerClient, status: RunStatus) -> Iterator[str]:
    if status.round is not None and status.commits_close is not None:
        left = status.commits_close - status.now
        told = f"are taken for {left:.1f} s more" if left > 0 else "are closed"
        yield f"commits to weights {told}: {', '.join(client.committed(status.round)) or 'none'}"
        shown = client.weights(status.round)
        yield f"weights shown: {', '.join(shown) or 'none'}"


def _show(where: str, round: int | None) -> int:
    with judging():
        epoch, balances = _read_url(where, round) if "://" in where else _read_database(Path(where), round)
    if epoch is None:
        raise UsageError(f"{where} has no epoch {'yet' if round is None else f'of round {round}'}")
    for line in (*epoch_lines(epoch), *account_lines(balances)):
        print(line)
    return 0


def _read_url(url: str, round: int | None) -> tuple[Epoch | None, dict[str, int]]:
    with contextlib.closing(LedgerClient(url)) as client:
        begun = client.status().round
        # Of the round that goes on there is one only once it is final.
        wanted = [round] if round is not None else [] if begun is None else [begun, max(0, begun - 1)]
        found = (client.epoch(number) for number in wanted)
        return next((epoch for epoch in found if epoch is not None), None), client.balances()


def _read_database(database: Path, round: int | None) -> tuple[Epoch | None, dict[str, int]]:
    if not database.is_file():
        raise UsageError(f"there is no ledger {database}")
    with SqliteLedger(database, time.time) as ledger:
        newest = ledger.chain.newest("epoch")
        wanted = newest.round if round is None and newest is not None else round
        return None if wanted is None else ledger.epoch(wanted), ledger.balances()


def _round(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,15}", text) is None:
        raise UsageError(f"{text[:80]!r} is no round: rounds are numbers from 0 on")
    return int(text)


def _verify(database: Path) -> int:
    if not database.is_file():
        raise UsageError(f"there is no ledger {database}")
    with judging():
        ledger = SqliteLedger(database, time.time)
        try:
            print(f"{database}: {ledger.verify()} entries, all sound, head {ledger.head()}")
        finally:
            ledger.close()
    return 0
