"""A client believes nothing of a ledger that could not be: each answer is checked, and a wrong one is one line."""

import http.server
import json
import threading

import pytest

from gauntlet_jax.rewards.ledger import LedgerUnreachable
from gauntlet_jax.rewards.ledger_client import LedgerClient


class Answering(http.server.BaseHTTPRequestHandler):
    """A ledger that answers whatever it likes."""

    answer = b""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def liar():
    """Asks a ledger that answers what the test says."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    client = LedgerClient(f"http://127.0.0.1:{server.server_port}")

    def ask(read, result):
        Answering.answer = json.dumps({"result": result}).encode()
        return read(client)

    yield ask
    client.close()
    server.shutdown()
    thread.join(10)
    server.server_close()


STATUS = {
    "now": 1.0, "round": 0, "start": 0.5, "pending": None, "vetoed": [], "waiting_for": [], "commits_close": 2.0,
}  # fmt: skip
POSTING = {"round": 0, "validator": "V", "digest": "d", "posted_at": 1.0, "start": 0.5, "final_at": None}
NODE = {
    "name": "ada", "bucket": "b", "registered_at": 1.0, "public_key": "k", "slot": 0, "stake": 0.0, "from_round": 0,
    "until_round": None,
}  # fmt: skip
EPOCH = {
    "round": 0, "consensus": {"a": 1.0}, "incentive": {"a": 1.0}, "trust": {"V": 1.0}, "dividends": {"V": 1.0},
    "bonds": {"V": {"a": 65535}}, "payouts": {"a": 5, "V": 5}, "reserve": 0, "remainder": 1,
}  # fmt: skip
READS = {
    "status": (lambda client: client.status(), STATUS),
    "record": (lambda client: client.record(0), POSTING),
    "registrations": (lambda client: client.registrations(0), [NODE]),
    "epoch": (lambda client: client.epoch(0), EPOCH),
    "weights": (lambda client: client.weights(0), {"V": {"a": 0.5}}),
    "balances": (lambda client: client.balances(), {"a": 5}),
    "history": (lambda client: client.history("a"), {"0": 5}),
    "committed": (lambda client: client.committed(0), ["V"]),
    "beacon": (lambda client: client.beacon(0, "opening"), "ab" * 32),
    "terms": (lambda client: client.terms(), {"ledger": "ab" * 32}),
}
NO_NUMBERS = [-1, 1.5, "1", True, 10**30, float("nan"), float("inf")]


@pytest.mark.parametrize(
    ("what", "wrong"),
    [
        *[(what, junk) for what in READS for junk in ("x", 7, [[]], {"a": []}, {"x": None}, [None])],
        *[("status", {**STATUS, "round": junk}) for junk in NO_NUMBERS],
        ("status", {**STATUS, "now": float("nan")}),
        ("status", {**STATUS, "now": None}),
        ("status", {**STATUS, "extra": 1}),
        ("status", {**STATUS, "vetoed": "V1"}),
        ("status", {**STATUS, "waiting_for": ["\x1b[2J"]}),
        ("status", {**STATUS, "pending": {**POSTING, "digest": 5}}),
        ("status", {name: value for name, value in STATUS.items() if name != "commits_close"}),
        *[("registrations", [{**NODE, "from_round": junk}]) for junk in NO_NUMBERS],
        ("registrations", [{**NODE, "stake": -1.0}]),
        ("registrations", [{**NODE, "name": "a" * 2000}]),
        ("registrations", [{**NODE, "bucket": "a\nb"}]),
        *[("epoch", {**EPOCH, "reserve": junk}) for junk in NO_NUMBERS],
        ("epoch", {**EPOCH, "payouts": {"a": -5}}),
        ("epoch", {**EPOCH, "payouts": {"reserve": 5}}),
        ("epoch", {**EPOCH, "bonds": {"V": {"a": 65536}}}),
        ("epoch", {**EPOCH, "bonds": {"V": {"a": 0.5}}}),
        ("epoch", {**EPOCH, "incentive": {"b": 1.0}}),
        ("epoch", {**EPOCH, "trust": {"W": 1.0}}),
        ("epoch", {**EPOCH, "consensus": {"a": float("inf")}}),
        ("weights", {"V": {"a": -0.5}}),
        ("balances", {"a": 2**63}),
        ("history", {"-1": 5}),
        ("history", {"0": 0.5}),
        ("beacon", "ab" * 31),
        ("terms", {}),
    ],
)
def test_what_no_ledger_answers_is_one_line(liar, what, wrong):
    read, good = READS[what]
    liar(read, good)
    with pytest.raises(LedgerUnreachable, match="is no ledger: its answer has") as caught:
        liar(read, wrong)
    assert "\n" not in str(caught.value)
