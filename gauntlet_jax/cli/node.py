"""What ``gauntlet peer`` and ``gauntlet validator`` have in common: flags, credentials, Ctrl-C, and one line an error."""

import dataclasses
import importlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import tyro

from gauntlet_jax.cli import distribution, libraries, overrides
from gauntlet_jax.cli.run_folder import UsageError, one_line

FlagsT = TypeVar("FlagsT", bound="NodeFlags")


@dataclasses.dataclass(frozen=True)
class NodeFlags:
    """A node of a shared run.

    Attributes:
      ledger: URL of the run's ledger, such as http://127.0.0.1:7400.
      bucket: its own bucket: file:///absolute/folder, s3://bucket/prefix?endpoint=https://HOST&region=REGION, or
        gs://bucket/prefix. The credentials to write come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
      name: its public name, which belongs to the first key that registers it.
      home: folder for its key and its state (default: runs/<run>/nodes/<name>).
      data_path: where this node has the run's text; None takes the config's.
      read_access_key: access key with which everybody may read the bucket, posted on the ledger; None: reads are anonymous.
      read_secret_key: the public half of that pair's secret: it is posted too.
      allow_endpoint: HOST:PORT of a storage endpoint to read from although its address is not public.
      allow_folder: folder below which other nodes' buckets may be read.
    """

    ledger: str = ""
    bucket: str = ""
    name: str = ""
    home: Path | None = None
    data_path: str | None = None
    read_access_key: str | None = None
    read_secret_key: str | None = None
    allow_endpoint: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    allow_folder: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()


class Living(Protocol):
    """A node that has been built."""

    def live(self, stop: threading.Event) -> None:
        """Takes part until the run is over or ``stop`` is set."""

    def close(self) -> None:
        """Lets go of files."""


def run_node(
    arguments: Sequence[str],
    *,
    command: str,
    flags: FlagsT,
    build: Callable[[Any, Any, Any, FlagsT], Living],
    distributed: Callable[[FlagsT], str | None] = lambda flags: None,
) -> int:
    """A node's whole command.

    Args:
      arguments: what follows the command's name: an optional CONFIG, then flags.
      command: "peer" or "validator".
      flags: the defaults.
      build: ``(config, node, surroundings, flags) -> node``.
      distributed: how the processes of a node on several hosts find each other (see ``distribution``).

    Returns:
      0 when the run is over or the node was told to stop.

    Raises:
      UsageError: anything that the user can mend.
    """
    words = list(arguments)
    path = words.pop(0) if words and not words[0].startswith("-") else None
    program = f"gauntlet {command} [CONFIG]"
    given = overrides.apply_overrides(flags, words, program=program)
    for name in ("ledger", "bucket", "name"):
        if not getattr(given, name):
            raise UsageError(f"gauntlet {command} needs --{name}; gauntlet {command} --help explains it")
    libraries.quiet()
    say = speaker(given.name)
    stop = threading.Event()
    with stopping(stop, say), judging(), _unless_stopped(stop), ExitStack() as held:
        hosts = distribution.hosts_of(distributed(given))
        say = say if hosts.leads else speaker(f"{given.name} (another host)")
        prepare = importlib.import_module("gauntlet_jax.cli.node_parts")
        config, node, found = prepare.prepare(
            path, given, command=command, say=say, stop=stop, held=held, hosts=hosts
        )
        say(f"{command} {node.name} of run {config.name}, key {node.identity.public_key[:16]}…")
        living = build(config, node, found, given)
        with closing(living):
            say("ready")
            with distribution.ending_together(hosts, say):
                living.live(prepare.agreed(stop, hosts))
    if stop.is_set():
        say("stopped")
    return 0


def speaker(name: str) -> Callable[[str], None]:
    """``line -> None``: a line on standard output with the time and the node's name, at once."""

    def say(line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {name}  {line}", flush=True)

    return say


@contextmanager
def stopping(stop: threading.Event, say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C or SIGTERM as a wish: the first sets ``stop``, the second ends the process where it is."""

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say("stopping (Ctrl-C again: at once)")

    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread alone
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)


@contextmanager
def _unless_stopped(stop: threading.Event) -> Iterator[None]:
    """A wait that was broken off by Ctrl-C is no failure."""
    try:
        yield
    except OSError:
        if not stop.is_set():
            raise


@contextmanager
def judging() -> Iterator[None]:
    """Errors of what the user gave, or of what the node depends on, as one line."""
    try:
        yield
    except UsageError:
        raise
    except (ValueError, OSError) as error:
        if os.environ.get("GAUNTLET_TRACEBACK"):
            raise
        raise UsageError(one_line(error)) from error


def credentials() -> tuple[str, str] | None:
    """The pair that writes to this node's own bucket, from the environment; None if it is not there."""
    if os.environ.get("AWS_SESSION_TOKEN"):
        raise UsageError(
            "temporary credentials (AWS_SESSION_TOKEN) are not supported: unset it and give a key pair"
        )
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if bool(access) != bool(secret):
        missing = "AWS_SECRET_ACCESS_KEY" if access else "AWS_ACCESS_KEY_ID"
        raise UsageError(f"{missing} is not set: both halves of the bucket's write credentials are needed")
    return (access, secret) if access and secret else None
