import contextlib
import socket
import threading
import time

import httpx
import pytest
from shared_world import for_all_threads, identity_of, serving, signed

from gauntlet_jax.nodes.beacon import LedgerBeacon
from gauntlet_jax.rewards import ledger_http
from gauntlet_jax.rewards.ledger import LedgerRefused, LedgerUnreachable, NotYetKnown
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.rewards.ledger_service import MAX_CALL_BYTES
from gauntlet_jax.storage.identity import Identity

ADA, V1 = Identity(b"\1" * 32), Identity(b"\2" * 32)
DIGEST = "ab" * 32
SALT = b"salt" * 8


@contextlib.contextmanager
def served_run(shared, path, grants):
    """A run of ada, bob and three validators behind HTTP; its clock is still moved by hand."""
    shared.ledger.close()
    with for_all_threads():
        shared.reopen(path)
    for account, units in grants.items():
        shared.ledger._ledger.accounts.grant(account, units)
    for name in ("bob", "V2", "V3"):
        register = shared.ledger.register_peer if name == "bob" else shared.ledger.register_validator
        register(name, shared.key(name), f"memory://{name}")
    with serving(shared.ledger) as url:
        shared.url = url
        yield shared


@pytest.fixture
def served(shared, tmp_path):
    with served_run(shared, tmp_path / "ledger.sqlite", {}) as run:
        yield run


@pytest.fixture
def rich(shared, tmp_path):
    """The same, where some have units."""
    keys = [identity_of(name).public_key for name in ("n1", "n2", "n3", "eve")]
    with served_run(shared, tmp_path / "ledger.sqlite", {**dict.fromkeys(keys, 1000), "ada": 30}) as run:
        yield run


def moved(run, time_of_run):
    """Moves the clock; the served ledger notices by itself, ten times a second."""
    while run.time < time_of_run:
        run.time = min(time_of_run, run.time + 0.75)
        time.sleep(0.13)


def test_a_round_over_http_by_clockwork_alone(served):
    ada = LedgerClient(served.url, identity=ADA, name="ada")
    lead = LedgerClient(served.url, identity=V1, name="V1")
    reader = LedgerClient(served.url)
    with contextlib.closing(ada), contextlib.closing(lead), contextlib.closing(reader):
        assert reader.status().waiting_for == ("ada", "V1")
        assert ada.register_peer("ada", "memory://ada").slot == 0
        assert ada.register_peer("ada", "memory://ada").from_round == 0
        assert lead.register_validator("V1", "memory://V1").stake == 3.0
        moved(served, 993.25)
        beacon = LedgerBeacon(reader)
        assert len(beacon.opening(0)) == 32
        with pytest.raises(NotYetKnown):
            beacon.closing(0)
        with pytest.raises(LedgerRefused, match="would show them"):
            lead.post_record(0, DIGEST)
        moved(served, 1001.0)
        assert beacon.closing(0) != beacon.opening(0)
        assert reader.status().commits_close == 1002.0
        lead.commit_weights(0, {"ada": 3, "bob": 1.0}, SALT)
        assert (reader.committed(0), reader.weights(0), reader.epoch(0)) == (("V1",), {}, None)
        moved(served, 1002.0)
        lead.reveal_weights(0, {"ada": 3, "bob": 1.0}, SALT)
        lead.post_record(0, DIGEST)
        lead.post_record(0, DIGEST)
        pending = reader.status().pending
        assert pending is not None
        assert (pending.validator, pending.digest) == ("V1", DIGEST)
        moved(served, 1005.25)
        status, final = reader.status(), reader.record(0)
        assert final is not None
        assert (status.round, status.start, status.pending) == (1, 1005.0, None)
        assert (final.digest, final.final_at) == (DIGEST, 1003.5)
        assert reader.record(1) is None
        # V1 alone has weighed.
        paid = {"ada": 37, "bob": 12, "V1": 50}
        assert reader.balances() == {**paid, "V2": 0, "V3": 0, "reserve": 0, "remainder": 1}
        assert reader.history("ada") == {0: 37}
        assert reader.weights(0) == {"V1": {"ada": 0.75, "bob": 0.25}}
        epoch = reader.epoch(0)
        assert epoch is not None
        assert (epoch.payouts, epoch.remainder, epoch.trust) == (paid, 1, {"V1": 1.0})
        assert {entry.name for entry in reader.registrations(0)} == {"ada", "bob", "V1", "V2", "V3"}
        assert abs(reader.now() - served.time) < 1.0
        assert reader.terms()["run"] == "trial"


def test_units_are_given_on_by_names_and_by_keys(rich):
    at_large = identity_of("a key without a name")
    with (
        contextlib.closing(LedgerClient(rich.url, identity=ADA, name="ada")) as ada,
        contextlib.closing(LedgerClient(rich.url, identity=at_large)) as key,
    ):
        ada.register_peer("ada", "memory://ada")
        for _ in range(2):  # each call is a gift of its own
            ada.transfer("V2", 7)
        for _ in range(2):  # but for a receipt that was there
            ada.transfer(at_large.public_key, 3, receipt="ab" * 16)
        key.transfer("bob", 1)
        balances = ada.balances()
        assert [balances[name] for name in ("ada", "bob", "V2", at_large.public_key)] == [13, 1, 14, 2]
        with pytest.raises(LedgerRefused, match="has 13 units, 14 are needed"):
            ada.transfer("V2", 14)


def test_calls_of_many_at_once_are_each_taken_once(rich):
    """Six threads with three keys; whatever order they come in, a key's nonces only grow."""
    names = ("n1", "n2", "n3")
    with contextlib.ExitStack() as opened:
        clients = [
            opened.enter_context(contextlib.closing(LedgerClient(rich.url, identity=identity_of(name))))
            for name in names
        ]
        failures = []

        def give(number):
            client, to = clients[number % 3], identity_of(names[(number + 1) % 3]).public_key
            try:
                for _ in range(15):
                    client.transfer(to, 1 + number % 3)
            except Exception as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=give, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        balances = clients[0].balances()
    # Each gave 2 * 15 times 1, 2 or 3, and had as many times 3, 1 or 2.
    assert [balances[identity_of(name).public_key] for name in names] == [1060, 970, 970]
    assert len(rich.ledger._chain.entries("transfer")) == 90


def test_a_call_is_taken_once_in_its_order_by_its_ledger_and_of_its_key(rich):
    run, eve = rich.ledger.terms()["ledger"], identity_of("eve")

    def post(identity, nonce, receipt, run=run):
        arguments = {"to": "bob", "units": 1, "receipt": receipt * 32}
        body = signed(identity, run, "transfer", eve.public_key, nonce, arguments)
        answer = httpx.post(f"{rich.url}/v1/call", content=body, trust_env=False)
        return answer.status_code, answer.json().get("error", "")

    assert post(eve, 5, "a") == (200, "")
    assert post(eve, 9, "b") == (200, "")
    for identity, nonce, receipt, where, told in (
        (eve, 9, "b", run, "nonce was used"),  # replayed
        (eve, 7, "c", run, "nonce was used"),  # overtaken
        (identity_of("mallory"), 10, "c", run, "not registered"),  # of another key
        (eve, 10, "c", "ab" * 32, "another run"),
    ):
        status, error = post(identity, nonce, receipt, where)
        assert status == 400
        assert told in error
    assert rich.ledger._chain.nonce(eve.public_key) == 9
    assert len(rich.ledger._chain.entries("transfer")) == 2


def test_a_clock_that_is_behind_does_not_stop_a_node(served, monkeypatch):
    with contextlib.closing(LedgerClient(served.url, identity=ADA, name="ada")) as before:
        before.register_peer("ada", "memory://ada")
    monkeypatch.setattr("gauntlet_jax.rewards.ledger_client.time.time_ns", lambda: 5)
    with contextlib.closing(LedgerClient(served.url, identity=ADA, name="ada")) as after:
        after.register_peer("ada", "memory://ada")
        after.register_peer("ada", "memory://moved")


def test_a_beacon_of_another_chain_is_refused(served):
    class Lying:
        def terms(self):
            return {"anchor": "00" * 32}

        def beacon(self, round, phase):
            return bytes(32)

    with pytest.raises(ValueError, match="bound to"):
        LedgerBeacon(Lying()).opening(0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/call", b"x" * (MAX_CALL_BYTES + 1), 413),
        ("POST", "/v1/call", b"{}", 400),
        ("GET", "/v1/call", None, 400),
        ("GET", "/v1/secrets", None, 400),
        ("GET", "/", None, 404),
        ("DELETE", "/v1/status", None, 405),
        ("GET", "/v1/beacon?round=3&phase=closing", None, 425),
    ],
)
def test_refusals_are_one_line_of_json(served, method, path, body, status):
    answer = httpx.request(method, served.url + path, content=body, trust_env=False)
    assert answer.status_code == status
    assert "\n" not in answer.json()["error"]
    assert list(answer.json()) == ["error"]


def test_an_endless_body_is_cut_off_before_it_is_read(served):
    sent = 0

    def endless():
        nonlocal sent
        while sent < 100 * MAX_CALL_BYTES:
            sent += 65536
            yield b"x" * 65536

    with contextlib.suppress(httpx.WriteError):
        answer = httpx.post(served.url + "/v1/call", content=endless(), trust_env=False)
        assert answer.status_code == 413
    assert sent < 100 * MAX_CALL_BYTES


def test_a_silent_connection_is_hung_up_on(served, monkeypatch):
    monkeypatch.setattr(ledger_http, "_PATIENCE_SECONDS", 0.3)
    host, port = served.url.removeprefix("http://").split(":")
    for said in (b"", b"GET /v1/status HTTP/1.1\r\nHost: x\r\n"):
        with socket.create_connection((host, int(port)), timeout=5) as silent:
            silent.sendall(said)
            assert silent.recv(100) == b""
    with socket.create_connection((host, int(port)), timeout=5) as slow:
        slow.sendall(b"POST /v1/call HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert b" 408 " in slow.recv(1000)


def test_an_unreachable_ledger_is_one_line_at_once_or_after_the_wait():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with contextlib.closing(LedgerClient(url)) as client, pytest.raises(LedgerUnreachable, match="serve"):
        client.status()
    began = time.monotonic()
    with (
        contextlib.closing(LedgerClient(url, wait_seconds=0.5)) as client,
        pytest.raises(LedgerUnreachable),
    ):
        client.status()
    assert 0.2 < time.monotonic() - began < 5
    for wrong in ("ftp://x", "http://", "http://user:secret@host:1", "nonsense"):
        with pytest.raises(ValueError, match="ledger"):
            LedgerClient(wrong)
