"""The shared run's ledger as a world of the battery: directly, or over HTTP; its clock is moved by hand."""

import contextlib
import hashlib
import sqlite3
import threading

import pytest
from local_ledger import LocalLedger

from gauntlet_jax.rewards import ledger_http
from gauntlet_jax.rewards.beacon_chain import make_chain
from gauntlet_jax.rewards.epoch import WEIGHTS_STAND
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.rewards.ledger_service import DOMAIN, LedgerService
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.identity import Identity

SECRET = bytes(range(32))
SECONDS, CLOSES, WEIGHTS, VETO = 10.0, 4.0, 1.5, 1.0


def identity_of(name):
    return Identity(hashlib.sha256(name.encode()).digest())


class SharedWorld:
    """A run of three validators, two peers and two strangers who may come."""

    validators = {"V1": 5.0, "V2": 3.0, "V3": 3.0}  # noqa: RUF012
    peers = ("ada", "bob")
    strangers = ("eve", "fay")
    slots = 3
    cost = 7
    immunity_rounds = 2
    weights_stand = WEIGHTS_STAND
    emission = 1_000_003
    granted = 19
    tolerance = 0.0
    has_reserve = True
    pays_silence = False
    conserves = True

    def __init__(self, path=":memory:"):
        self.time = 1000.0
        self.ledger = SharedRunLedger(path, lambda: self.time)
        self.terms = {
            "run": "battery",
            "protocol": 1,
            "rounds": 30,
            "slots": self.slots,
            "peers": list(self.peers),
            "validators": [
                {"name": name, "stake": stake, "key": None} for name, stake in self.validators.items()
            ],
            "emission": self.emission,
            "times": {
                "seconds": SECONDS,
                "commit_opens": 0.0,
                "commit_closes": 1.0,
                "opens": 1.0,
                "closes": CLOSES,
            },
            "finality": {"weights_seconds": WEIGHTS, "succession_seconds": 1.0, "veto_seconds": VETO},
            "registration": {
                "cost": self.cost,
                "immunity_rounds": self.immunity_rounds,
                "grants": {identity_of("eve").public_key: 10, identity_of("fay").public_key: 9},
            },
        }
        anchor, _ = make_chain(SECRET, 2 * 30 + 2)
        self.ledger.found(self.terms, anchor=anchor, start_delay=5.0)
        self.ledger.begin(SECRET)
        self._start = 1005.0

    def node(self, name):
        return LocalLedger(self.ledger, name, identity_of(name).public_key)

    def impostor(self, name):
        # Who calls is the service's to check; without it, what an impostor may try is to register.
        return LocalLedger(self.ledger, f"not {name}", identity_of("impostor").public_key)

    def onlooker(self):
        return self.ledger

    def funds(self, name):
        return self.balances().get(identity_of(name).public_key, 0)

    def balances(self):
        return self.ledger.balances()

    def copy_commit(self, round, thief, victim):
        digest = self.ledger._chain.find("commit", round, victim).body["digest"]
        self.post_commit(round, thief, digest)

    def post_commit(self, round, thief, digest):
        self.ledger.commit_weights(thief, round, digest)

    def open_round(self):
        begun = self.status().round
        wanted = 0 if begun is None else begun + 1
        while self.status().round != wanted:
            self.pass_time(0.5)
        return wanted

    def close_round(self):
        self.pass_time(CLOSES)

    def close_commits(self):
        self.pass_time(WEIGHTS)

    def finish_round(self):
        status = self.status()
        assert status.round is not None
        self.node("V1").post_record(status.round, f"{status.round:064x}")
        self.pass_time(VETO)

    def status(self):
        return self.ledger.status()

    def pass_time(self, seconds):
        """In steps, so that the ledger sees every tick."""
        until = self.time + seconds
        while self.time < until:
            self.time = min(until, self.time + 0.5)
            self.status()


class HttpWorld(SharedWorld):
    """The same behind a real server, each node with a client of its own."""

    def __init__(self, path, clients):
        super().__init__(path)
        self.url = ""
        self._clients = clients
        self._opened = {}

    def _client(self, who, identity, name):
        if who not in self._opened:
            client = LedgerClient(self.url, identity=identity, name=name)
            self._opened[who] = self._clients.enter_context(contextlib.closing(client))
        return self._opened[who]

    def node(self, name):
        return self._client(name, identity_of(name), name)

    def impostor(self, name):
        return self._client(f"not {name}", identity_of("impostor"), name)

    def onlooker(self):
        return self._client("", None, "")

    def balances(self):
        return self.onlooker().balances()

    def status(self):
        return self.onlooker().status()

    def post_commit(self, round, thief, digest):
        self.node(thief)._call(lambda raw: raw, "commit_weights", thief, round=round, digest=digest)


@contextlib.contextmanager
def shared_world():
    world = SharedWorld()
    try:
        yield world
        assert world.ledger.verify() > 0
    finally:
        world.ledger.close()


@contextlib.contextmanager
def serving(ledger):
    """The service in a thread of its own, on a free port of the loopback."""
    listening = ledger_http.listen("127.0.0.1", 0)
    server = ledger_http.server_of(ledger_http.application(LedgerService(ledger)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@contextlib.contextmanager
def for_all_threads():
    """SQLite keeps a connection to the thread that opened it: what is opened in here is for all of them."""
    with pytest.MonkeyPatch.context() as patched:
        connect = sqlite3.connect
        patched.setattr(
            "gauntlet_jax.rewards.hash_chain.sqlite3.connect",
            lambda path, **kwargs: connect(path, check_same_thread=False, **kwargs),
        )
        yield


@contextlib.contextmanager
def http_world():
    with contextlib.ExitStack() as clients:
        with for_all_threads():
            world = HttpWorld(":memory:", clients)
        with serving(world.ledger) as url:
            world.url = url
            yield world
            clients.close()
        assert world.ledger.verify() > 0
        world.ledger.close()


def signed(identity, run, call, name, nonce, arguments, *, domain=DOMAIN, **changes):
    """A signed call as it travels."""
    fields = {"run": run, "call": call, "name": name, "arguments": arguments, "nonce": nonce}
    return signed_json.sign(identity, domain, {**fields, **changes})
