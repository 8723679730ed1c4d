import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time

from gauntlet_jax.rewards.ledger import LedgerRefused
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.storage.identity import Identity

ADA, V1 = Identity(b"\1" * 32), Identity(b"\2" * 32)

SERVER = """
import json, sys, time
from gauntlet_jax.rewards import ledger_http
from gauntlet_jax.rewards.ledger_service import LedgerService
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
path, port, terms = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
ledger = SharedRunLedger(path, time.time)
if not ledger.is_founded:
    ledger.found(terms, anchor=None, start_delay=0.0)
ledger.begin(None)
listening = ledger_http.listen("127.0.0.1", port)
print("up", flush=True)
ledger_http.server_of(ledger_http.application(LedgerService(ledger))).run(sockets=[listening])
"""


class Server:
    """The served process, on one port through its restarts."""

    def __init__(self, path, terms):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-c", SERVER, str(path), str(port), json.dumps(terms)]

    def start(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"up\n"

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Callers:
    """A stranger who registers name after name, and a validator who posts round after round; with what was acknowledged."""

    def __init__(self, url):
        self.url = url
        self.registered, self.posted = [], []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._register), threading.Thread(target=self._post)]
        for thread in self._threads:
            thread.start()

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def wait_for_more(self):
        names, rounds = len(self.registered) + 10, len(self.posted) + 1
        until = time.monotonic() + 60
        while len(self.registered) < names or len(self.posted) < rounds:
            assert time.monotonic() < until
            time.sleep(0.01)

    def _register(self):
        with contextlib.closing(LedgerClient(self.url, identity=ADA, wait_seconds=20)) as client:
            while not self._stop.is_set():
                name = f"n{len(self.registered)}"
                client.register_peer(name, f"memory://{name}")
                self.registered.append(name)

    def _post(self):
        with contextlib.closing(LedgerClient(self.url, identity=V1, name="V1", wait_seconds=20)) as client:
            client.register_validator("V1", "memory://V1")
            while not self._stop.is_set():
                status = client.status()
                if status.round is None or status.pending is not None:
                    continue
                try:
                    client.post_record(status.round, f"{status.round:064x}", {}, 100)
                except LedgerRefused as refused:
                    assert "turn" in str(refused) or "not the one" in str(refused)
                else:
                    self.posted.append(status.round)


def test_kill_9_in_a_stream_of_calls_loses_nothing_acknowledged(shared, tmp_path):
    path = tmp_path / "ledger.sqlite"
    times = {"seconds": 0.2, "commit_opens": 0.0, "commit_closes": 0.02, "opens": 0.02, "closes": 0.05}
    finality = {"succession_seconds": 5.0, "veto_seconds": 0.02}
    server = Server(
        path, {**shared.terms, "rounds": 10_000, "slots": 5000, "times": times, "finality": finality}
    )
    server.start()
    callers = Callers(server.url)
    try:
        for _ in range(3):
            callers.wait_for_more()
            server.kill()
            server.start()
        callers.wait_for_more()
    finally:
        callers.end()
        server.kill()
    with SqliteLedger(path, lambda: 0.0) as ledger:
        assert ledger.verify() > 0
        nodes = [entry.account for entry in ledger.chain.entries("node")]
        assert len(nodes) == len({*nodes})
        assert {*callers.registered, "V1"} <= {*nodes}
        assert len(nodes) <= len(callers.registered) + 2  # one may have been taken whose answer was lost
        assert {*callers.posted} <= {entry.round for entry in ledger.chain.entries("posting")}
        finals = [entry.round for entry in ledger.chain.entries("final")]
        assert finals == list(range(len(finals))), "no round was lost"
        assert len(finals) >= 3
        assert ledger.balances()["reserve"] == 100 * len(finals)
