"""The ledger service is killed, again and again: nothing that was acknowledged is lost, and nothing is done twice."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from shared_world import identity_of

from gauntlet_jax.rewards.ledger import RESERVE, LedgerRefused
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.rewards.membership import Membership
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger

VALIDATORS = ("V1", "V2", "V3")
STRANGER, ADA, BOB = identity_of("stranger"), identity_of("ada"), identity_of("bob")
GRANTED, COST = 10**6, 3
CLOSES = 0.05
KILLS, KILLS_IN_FULL = 4, 30


class Server:
    """``gauntlet ledger serve``, on one port through its restarts."""

    def __init__(self, path):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = "gauntlet_jax.cli.main", "ledger", "serve", str(path), "--port", str(port)
        self._command = [sys.executable, "-m", *command]

    def start(self):
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, env={**os.environ, "JAX_PLATFORMS": "cpu"}
        )
        assert self._process.stdout is not None
        assert b"ledger of run trial at" in self._process.stdout.readline()

    def kill(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Callers:
    """Nodes that call the ledger side by side, each with a key of its own; with what was acknowledged."""

    def __init__(self, url):
        self.registered, self.gifts, self.committed, self.revealed, self.posted = [], [], [], [], []
        self.nonces, self.failures = {}, []
        self._url = url
        self._stop = threading.Event()
        jobs = [(STRANGER, "", self._register), (ADA, "ada", self._give), (BOB, "bob", self._give)]
        jobs += [(identity_of(name), name, self._weigh) for name in VALIDATORS]
        self._threads = [threading.Thread(target=self._run, args=job) for job in jobs]
        for thread in self._threads:
            thread.start()

    def wait_for_a_record(self):
        """Until one more was posted: then the time for an epoch is near."""
        had, until = len(self.posted), time.monotonic() + 60
        while len(self.posted) == had:
            assert time.monotonic() < until
            assert self.failures == []
            time.sleep(0.01)

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, identity, name, work):
        client = LedgerClient(self._url, identity=identity, name=name, wait_seconds=30)
        with contextlib.closing(client):
            try:
                work(client, name)
            except Exception as error:
                self.failures.append(error)
                raise
            self.nonces[identity.public_key] = client._nonce

    def _register(self, client, _):
        while not self._stop.is_set():
            name = f"n{len(self.registered)}"
            client.register_peer(name, f"memory://{name}")
            self.registered.append(name)

    def _give(self, client, name):
        while not self._stop.is_set():
            client.transfer("bob" if name == "ada" else STRANGER.public_key, 1)
            self.gifts.append(name)

    def _weigh(self, client, name):
        client.register_validator(name, f"memory://{name}")
        number, done = VALIDATORS.index(name), -1
        while not self._stop.is_set():
            status = client.status()
            if status.round is None or status.round == done:
                time.sleep(0.01)
                continue
            # Every round other weights, so that an epoch that ran twice would pay otherwise.
            weights = {"ada": 1.0 + status.round % 3, "bob": 1.0 + number, RESERVE: 0.5}
            salt = f"{status.round} {name}".encode().ljust(32)
            # An outage may have taken the time for one thing or the other; a round needs its record all the same.
            with contextlib.suppress(LedgerRefused):
                self._commit(client, name, status.round, weights, salt)
            self._wait(client, lambda status: status.commits_close or 0.0)
            with contextlib.suppress(LedgerRefused):
                client.reveal_weights(status.round, weights, salt)
                self.revealed.append((status.round, name))
            if name == "V1":
                client.post_record(status.round, f"{status.round:064x}")
                self.posted.append(status.round)
            done = status.round

    def _commit(self, client, name, round, weights, salt):
        self._wait(client, lambda status: (status.start or 0.0) + CLOSES)
        client.commit_weights(round, weights, salt)
        self.committed.append((round, name))

    def _wait(self, client, until):
        while (status := client.status()).now < until(status):
            time.sleep(0.01)


def found(path, terms):
    ledger = SharedRunLedger(path, time.time)
    ledger.found(terms, anchor=None, start_delay=1.0)
    ledger.begin(None)
    for identity, name in ((ADA, "ada"), (BOB, "bob")):
        ledger.register_peer(name, identity.public_key, f"memory://{name}")
    ledger.close()


@pytest.mark.slow
def test_kill_9_in_a_stream_of_calls_loses_nothing_and_does_nothing_twice(
    shared, tmp_path, full, monkeypatch
):
    monkeypatch.setattr("gauntlet_jax.rewards.ledger_client._LONGEST_PAUSE", 0.2)
    path = tmp_path / "ledger.sqlite"
    grants = {"ada": GRANTED, "bob": GRANTED, STRANGER.public_key: GRANTED}
    terms = {
        **shared.terms,
        "rounds": 10_000,
        "slots": 5000,
        "times": {
            "seconds": 0.6,
            "commit_opens": 0.0,
            "commit_closes": 0.02,
            "opens": 0.02,
            "closes": CLOSES,
        },
        "finality": {"weights_seconds": 0.25, "succession_seconds": 99.0, "veto_seconds": 0.1},
        "registration": {"cost": COST, "immunity_rounds": 20, "grants": grants},
    }
    found(path, terms)
    server, chance = Server(path), random.Random(4)
    kills = KILLS_IN_FULL if full else KILLS
    server.start()
    callers = Callers(server.url)
    try:
        for _ in range(kills):
            callers.wait_for_a_record()
            time.sleep(chance.uniform(0.0, 0.5))
            server.kill()
            server.start()
        callers.wait_for_a_record()
    finally:
        callers.end()
        server.kill()
    assert callers.failures == []
    with SqliteLedger(path, lambda: 0.0) as ledger:
        assert ledger.verify() > 0
        chain = ledger.chain

        def words(kind):
            return [(entry.round, entry.account) for entry in chain.entries(kind)]

        # Whoever was answered finds it there, once; a call whose answer was lost was repeated until it had one.
        assert [name for _, name in words("node") if name[0] == "n"] == callers.registered
        assert len(words("fee")) == len(callers.registered)
        assert len(words("transfer")) == len(callers.gifts)
        assert {*words("commit")} >= {*callers.committed}
        assert {*words("weights")} >= {*callers.revealed}
        assert {round for round, _ in words("posting")} == {*callers.posted}
        for key, nonce in callers.nonces.items():
            assert ledger.chain.nonce(key) == nonce
        # No round was lost, and each was paid once, as its weights say.
        finals = [round for round, _ in words("final")]
        assert finals == list(range(len(finals)))
        assert finals == [round for round, _ in words("epoch")] == [round for round, _ in words("emission")]
        members, head = Membership(ledger, terms), ledger.head()
        for round in finals:
            ledger.run_epoch(round, members.peers(round), terms["emission"])
        assert ledger.head() == head, "to run them again is no change"
        balances = ledger.balances()
        assert sum(balances.values()) == 3 * GRANTED + len(finals) * terms["emission"]
        gave = {name: callers.gifts.count(name) for name in ("ada", "bob")}
        earned = {name: sum(ledger.history(name).values()) for name in gave}
        assert balances["ada"] == GRANTED - gave["ada"] + earned["ada"]
        assert balances["bob"] == GRANTED + gave["ada"] - gave["bob"] + earned["bob"]
        paid = COST * len(callers.registered)
        assert balances[STRANGER.public_key] == GRANTED + gave["bob"] - paid
        revealed = len(callers.revealed)
        print(
            f"{kills} kills, {len(finals)} epochs, {len(callers.registered)} registrations, {len(callers.gifts)} transfers,"
            f" {len(callers.committed)} commits, {revealed} reveals: 0 lost, 0 double"
        )
        assert len(finals) >= kills
        assert revealed > 0


def test_a_kill_anywhere_in_an_epoch_leaves_it_whole_or_undone(tmp_path, full):
    """Between any two statements, and within them: then it runs, and the ledger is the same to the bit."""
    script = Path(__file__).with_name("killed_epochs.py")
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "400" if full else "40"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=300,
    )
    told = json.loads(result.stdout)
    print(told)
    assert told["wrong"] == []
    assert told["undone"] > 20
    assert told["whole"] > 0
    assert told["undone"] + told["whole"] == told["kills"]
