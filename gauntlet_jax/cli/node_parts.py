"""What a node is made of, from its flags: config, key, bucket and the way to other nodes' buckets."""

import dataclasses
import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

from gauntlet_jax.build.processes import Node, Surroundings
from gauntlet_jax.cli import overrides
from gauntlet_jax.cli.node import NodeFlags, credentials
from gauntlet_jax.cli.run_folder import UsageError
from gauntlet_jax.config import Config
from gauntlet_jax.config_check import check_name
from gauntlet_jax.nodes.hosts import AgreedStop, Hosts, ToldLedger
from gauntlet_jax.planning.doctor import window_fault
from gauntlet_jax.rewards.ledger import SharedLedger
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.storage.endpoints import EndpointPolicy
from gauntlet_jax.storage.identity import load_or_create
from gauntlet_jax.storage.journal import read_journal, write_journal
from gauntlet_jax.storage.object_store import Credentials, open_own_bucket, publish
from gauntlet_jax.storage.public_bucket import PublicReader
from gauntlet_jax.terms import check_terms, config_of

_LEDGER_WAIT_SECONDS = 60.0
_STARTED = "started"


def prepare(
    path: str | None,
    flags: NodeFlags,
    *,
    command: str,
    say: Callable[[str], None],
    stop: threading.Event,
    held: ExitStack,
    hosts: Hosts,
) -> tuple[Config, Node, Surroundings]:
    """Everything that a node's build takes.

    Args:
      path: its config file; None takes the terms on the ledger, for a run whose model is no code.
      flags: of the command.
      command: "peer" or "validator".
      say: takes a line for the operator.
      stop: ends every wait for the ledger.
      held: what the node holds while it lives: the lock of its home.
      hosts: that it consists of.

    Raises:
      ValueError: a flag, the config or the terms are wrong; one line says which.
      OSError: the ledger or the bucket cannot be reached.
    """
    check_name(flags.name)
    reader = LedgerClient(flags.ledger, wait_seconds=_LEDGER_WAIT_SECONDS, stop=stop)
    terms = reader.terms()
    reader.close()
    if path is None:
        if command == "validator":
            raise UsageError(
                "a validator needs the run's CONFIG: how it scores is code, which a ledger does not hand out"
            )
        config = config_of(terms)
    else:
        config = overrides.load_config(path, Config)
        check_terms(config, terms)
    if flags.data_path is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=flags.data_path))
    check_name(config.name)  # it names a folder, and may be the ledger's word
    home = flags.home if flags.home is not None else Path("runs") / config.name / "nodes" / flags.name
    home.mkdir(parents=True, exist_ok=True)
    if hosts.leads:
        held.enter_context(_sole_user(home))

    def found_home() -> None:
        _check_ledger(home, terms["ledger"])
        load_or_create(home / "identity.key")

    hosts.told(found_home, None)  # one makes the key, all read it
    identity = load_or_create(home / "identity.key")
    fault = window_fault(config.times, commit_reveal=config.commit_reveal)
    if fault is not None and not flags.bucket.startswith("file:"):
        raise ValueError(fault)
    pair = credentials()
    own = open_own_bucket(flags.bucket, None if pair is None else Credentials(*pair))
    # What is wrong with the bucket shows now, not in the first window.
    hosts.together(lambda: own.put(_STARTED, identity.public_key.encode()))
    address = publish(flags.bucket, read_credentials(flags))
    policy = EndpointPolicy(frozenset(flags.allow_endpoint), tuple(flags.allow_folder))
    public = PublicReader(policy)
    ledger = LedgerClient(
        flags.ledger, identity=identity, name=flags.name, wait_seconds=_LEDGER_WAIT_SECONDS, stop=stop
    )
    told = cast(SharedLedger, ToldLedger(ledger, hosts))
    return config, Node(flags.name, identity, own, address, home), Surroundings(told, public.open, say, hosts)


def agreed(stop: threading.Event, hosts: Hosts) -> threading.Event:
    """The wish to stop as the node's hosts agree on it."""
    return AgreedStop(stop, hosts)


@contextmanager
def _sole_user(home: Path) -> Iterator[None]:
    """Holds the lock of a node's home; two processes of one name would undo each other's work."""
    with (home / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another process lives in {home}: stop that one, or give this node another --name and --home"
            ) from error
        yield


def _check_ledger(home: Path, ledger: str) -> None:
    """What lies in a node's home belongs to one ledger: to go on from it on another would be to wait for ever."""
    noted = home / "ledger"
    if not noted.exists():
        write_journal(noted, {"ledger": ledger})
        return
    found = read_journal(noted)
    if found is None or found["ledger"] != ledger:
        raise UsageError(
            f"{home} belongs to a run on another ledger: give another --home, or remove all of it but identity.key"
        )


def read_credentials(flags: NodeFlags) -> Credentials | None:
    """The public read keys of a node's bucket, if it has any.

    Raises:
      UsageError: one of the two is missing.
    """
    if (flags.read_access_key is None) != (flags.read_secret_key is None):
        raise UsageError("--read-access-key and --read-secret-key go together")
    if flags.read_access_key is None or flags.read_secret_key is None:
        return None
    return Credentials(flags.read_access_key, flags.read_secret_key)
