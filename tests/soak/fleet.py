"""A ledger, validators and peers as real processes on this machine, which a test starts, kills and restarts."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from gauntlet_jax.rewards.ledger_client import LedgerClient

ROOT = Path(__file__).parents[2]


class Home(NamedTuple):
    """Where a node's bucket is, and what it needs to write there.

    Attributes:
      bucket: the bucket's URL for its owner.
      flags: of the node, beside the usual.
      environment: its credentials.
    """

    bucket: str
    flags: Sequence[str] = ()
    environment: Mapping[str, str] = {}


class Fleet:
    """The processes of one run.

    Attributes:
      url: of the ledger.
      client: a reader of the ledger that waits out its restarts.
      processes: the live and the dead ones, by name.
    """

    def __init__(self, folder: Path, config: Path, homes: Callable[[str], Home], *, seconds: float):
        """A fleet that has not started.

        Args:
          folder: for logs, the ledger and the nodes' own state.
          config: of the run.
          homes: where a node's bucket is, by its name.
          seconds: after which every process is killed, whatever happens.
        """
        self._folder = folder
        self._config = config
        self._homes = homes
        self._deadline = time.monotonic() + seconds
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.client = LedgerClient(self.url, wait_seconds=60.0)
        self.processes: dict[str, subprocess.Popen] = {}
        self._again: dict[str, float] = {}
        self._commands: dict[str, tuple[list[str], dict[str, str]]] = {}

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            process.wait()
        self.client.close()

    def ledger(self) -> None:
        """Starts the ledger, on the same port and file as before."""
        database = self._folder / "ledger.sqlite"
        self._start(
            "ledger",
            ["ledger", "serve", str(database), "--config", str(self._config), "--port", str(self._port)],
            {},
        )

    def validator(self, name: str) -> None:
        """Starts a validator."""
        self._node("validator", name, [str(self._config)])

    def peer(
        self,
        name: str,
        *,
        config: bool = True,
        behavior: str = "honest",
        hosts: tuple[str, int] | None = None,
    ) -> None:
        """Starts a peer; without the config it is a stranger who knows the ledger's URL alone.

        Args:
          name: its own.
          config: whether it has the file.
          behavior: its own.
          hosts: where its first process listens for the others, and how many there are: NAME, NAME-1 and so on.
        """
        given = [str(self._config)] if config else []
        if hosts is None:
            self._node("peer", name, given, "--behavior", behavior)
            return
        address, count = hosts
        for number in range(count):
            process = name if number == 0 else f"{name}-{number}"
            self._node("peer", name, given, "--distributed", f"{address},{count},{number}", process=process)

    def kill(self, name: str) -> None:
        """Kills a process as a power cut would."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def restart(self, name: str) -> None:
        """Starts a killed process with the command that it had."""
        command, environment = self._commands[name]
        self._start(name, command, environment)

    def log(self, name: str) -> str:
        """All that a process has printed so far, over its restarts."""
        return (self._folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def rounds(self, until: int) -> Iterator[int]:
        """The current round whenever it has changed, up to ``until``; fails if the fleet's time is up."""
        client, seen = self.client, -1
        while seen < until:
            assert time.monotonic() < self._deadline, f"still at round {seen}: {self.tails()}"
            self._supervise()
            now = client.status().round
            if now is not None and now > seen:
                seen = now
                yield seen
            time.sleep(0.25)

    def wait_for(self, name: str, text: str) -> str:
        """Waits until a process has printed a text, and returns the rest of that line."""
        while text not in (log := self.log(name)):
            assert time.monotonic() < self._deadline, f"{name} never said {text!r}: {self.tails()}"
            assert self.processes[name].poll() in (None, 0), f"{name} has ended: {log[-2000:]}"
            time.sleep(0.25)
        return log.split(text, 1)[1].splitlines()[0].strip()

    def _supervise(self) -> None:
        """Starts again what has given up, such as a node whose bucket was away when it started."""
        for name, process in self.processes.items():
            if process.poll() not in (None, 0) and time.monotonic() > self._again.get(name, 0.0):
                self._again[name] = time.monotonic() + 3.0
                self.restart(name)

    def tails(self) -> str:
        """The end of every log, for a failure's message."""
        return "\n".join(f"--- {name}\n{self.log(name)[-1200:]}" for name in self.processes)

    def _node(
        self, command: str, name: str, config: Sequence[str], *flags: str, process: str | None = None
    ) -> None:
        home = self._homes(name)
        words = [command, *config, "--ledger", self.url, "--bucket", home.bucket, "--name", name]
        words += ["--home", str(self._folder / "nodes" / name), *home.flags, *flags]
        self._start(process or name, words, dict(home.environment))

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self._commands[name] = (command, environment)
        with (self._folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "gauntlet_jax.cli.main", *command],
                cwd=self._folder,
                env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
