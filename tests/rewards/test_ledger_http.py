import contextlib
import socket
import sqlite3
import threading
import time

import httpx
import pytest

from gauntlet_jax.nodes.beacon import LedgerBeacon
from gauntlet_jax.rewards import ledger_http
from gauntlet_jax.rewards.ledger import LedgerRefused, LedgerUnreachable, NotYetKnown
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.rewards.ledger_service import MAX_CALL_BYTES, LedgerService
from gauntlet_jax.storage.identity import Identity

ADA, V1 = Identity(b"\1" * 32), Identity(b"\2" * 32)
DIGEST = "ab" * 32


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


@pytest.fixture
def served(shared, tmp_path):
    """A run of ada, bob and three validators behind HTTP; its clock is still moved by hand."""
    # SQLite keeps a connection to the thread that opened it, so the ledger is opened for all of them.
    shared.ledger.close()
    with pytest.MonkeyPatch.context() as patched:
        connect = sqlite3.connect
        patched.setattr(
            "gauntlet_jax.rewards.hash_chain.sqlite3.connect",
            lambda path, **kwargs: connect(path, check_same_thread=False, **kwargs),
        )
        shared.reopen(tmp_path / "ledger.sqlite")
    for name in ("bob", "V2", "V3"):
        register = shared.ledger.register_peer if name == "bob" else shared.ledger.register_validator
        register(name, shared.key(name), f"memory://{name}")
    with serving(shared.ledger) as url:
        shared.url = url
        yield shared


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
        with pytest.raises(LedgerRefused, match="not the turn of V1"):
            lead.post_record(0, DIGEST, {"ada": 70}, 30)
        moved(served, 1001.0)
        assert beacon.closing(0) != beacon.opening(0)
        lead.post_weights(0, {"ada": 1.0})
        lead.post_record(0, DIGEST, {"ada": 70}, 30)
        lead.post_record(0, DIGEST, {"ada": 70}, 30)
        pending = reader.status().pending
        assert pending is not None
        assert (pending.validator, pending.payouts) == ("V1", {"ada": 70})
        moved(served, 1005.25)
        status, final = reader.status(), reader.record(0)
        assert final is not None
        assert (status.round, status.start, status.pending) == (1, 1005.0, None)
        assert (final.digest, final.final_at) == (DIGEST, 1002.5)
        assert reader.record(1) is None
        assert reader.balances() == {"ada": 70, "bob": 0, "reserve": 30}
        assert reader.history("ada") == {0: 70}
        assert reader.weights(0) == {"V1": {"ada": 1.0}}
        assert {entry.name for entry in reader.registrations(0)} == {"ada", "bob", "V1", "V2", "V3"}
        assert abs(reader.now() - served.time) < 1.0
        assert reader.terms()["run"] == "trial"


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
