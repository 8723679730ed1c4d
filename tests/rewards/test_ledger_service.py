import json

import pytest

from gauntlet_jax.rewards.ledger_service import DOMAIN, MAX_CALL_BYTES, LedgerService
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.identity import Identity

ADA, EVE, V1 = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
DIGEST = "ab" * 32
COMMIT = {"round": 0, "digest": DIGEST}
REVEAL = {"round": 0, "weights": {"ada": 1.0}, "salt": "00" * 32}
GIFT = {"to": EVE.public_key[::-1], "units": 1, "receipt": "00" * 16}


def signed(identity, call, name, nonce, arguments, *, domain=DOMAIN, **changes):
    fields = {"run": "trial", "call": call, "name": name, "arguments": arguments, "nonce": nonce}
    return signed_json.sign(identity, domain, {**fields, **changes})


def service_of(ledger):
    """A service that takes calls for "trial", and not for what tells its ledger from others: the cases are made before it."""
    service = LedgerService(ledger)
    service._run = "trial"
    return service


@pytest.fixture
def service(shared):
    """A service over a run in which ada (ADA's key) is registered."""
    found = service_of(shared.ledger)
    assert found.call(signed(ADA, "register_peer", "ada", 10, {"bucket": "memory://ada"}))[0] == 200
    return found


def test_a_call_is_answered_with_what_it_did(service, shared):
    status, answer = service.call(signed(V1, "register_validator", "V1", 5, {"bucket": "memory://v"}))
    assert status == 200
    assert answer["result"] == {
        "name": "V1",
        "bucket": "memory://v",
        "registered_at": 990.0,
        "public_key": V1.public_key,
        "slot": None,
        "stake": 3.0,
        "from_round": 0,
        "until_round": None,
    }
    assert service.read("registrations", {})[1]["result"][0]["public_key"] == ADA.public_key
    assert shared.ledger.verify() > 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (signed(EVE, "register_peer", "ada", 11, {"bucket": "b"}), "another key"),
        (signed(EVE, "commit_weights", "ada", 11, COMMIT), "another key"),
        (signed(EVE, "commit_weights", "V1", 11, COMMIT), "not registered"),
        (signed(EVE, "transfer", "ada", 11, GIFT), "another key"),
        (signed(EVE, "transfer", "bob", 11, GIFT), "not registered"),
        (signed(EVE, "transfer", ADA.public_key, 11, GIFT), "not registered"),
        (signed(EVE, "commit_weights", EVE.public_key, 11, COMMIT), "not registered"),
        (signed(EVE, "transfer", EVE.public_key, 11, GIFT), "has 0 units"),
        (signed(ADA, "transfer", "ada", 11, {**GIFT, "units": 2**63}), "units is of another type"),
        (signed(ADA, "transfer", "ada", 11, {**GIFT, "units": 1.0}), "units is of another type"),
        (signed(ADA, "transfer", "ada", 11, GIFT), "has 0 units"),
        (signed(ADA, "register_peer", "ada", 11, {"bucket": "b"}, run="other"), "another run"),
        (signed(ADA, "register_peer", "ada", 11, {"bucket": "b"}, domain="manifest"), "does not hold"),
        (signed(ADA, "register_peer", "ada", 10, {"bucket": "b"}), "nonce was used"),
        (signed(ADA, "register_peer", "ada", 9, {"bucket": "b"}), "nonce was used"),
        (signed(ADA, "register_peer", "ada", -1, {"bucket": "b"}), "a nonce from"),
        (signed(ADA, "register_peer", "ada", 2**63, {"bucket": "b"}), "a nonce from"),
        (signed(ADA, "register_peer", "ada", True, {"bucket": "b"}), "a nonce from"),
        (signed(ADA, "register_peer", "ada", 11.0, {"bucket": "b"}), "a nonce from"),
        (signed(ADA, "register_peer", ["ada"], 11, {"bucket": "b"}), "names itself"),
        (signed(ADA, "drop_table", "ada", 11, {"bucket": "b"}), "no such call"),
        (signed(ADA, "found", "ada", 11, {}), "no such call"),
        (signed(ADA, "register_peer", "ada", 11, {}), "register_peer takes bucket"),
        (signed(ADA, "register_peer", "ada", 11, ["b"]), "register_peer takes bucket"),
        (signed(ADA, "register_peer", "ada", 11, {"bucket": "b", "key": "k"}), "takes bucket"),
        (signed(ADA, "register_peer", "ada", 11, {"bucket": 1}), "bucket is of another type"),
        (signed(ADA, "register_peer", "ada", 11, {"bucket": "b"}, extra=1), "other fields"),
        (signed(ADA, "register_peer", "\ud800", 11, {"bucket": "b"}), "text that is no Unicode"),
        (signed(ADA, "reveal_weights", "ada", 11, {**REVEAL, "weights": {"ada": 10**400}}), "out of range"),
        (
            signed(ADA, "reveal_weights", "ada", 11, {**REVEAL, "weights": {"\ud800": 1}}),
            "text that is no Unicode",
        ),
        (signed(ADA, "reveal_weights", "ada", 11, {**REVEAL, "weights": {"ada": -1.0}}), "out of range"),
        (signed(ADA, "reveal_weights", "ada", 11, {**REVEAL, "weights": [1.0]}), "out of range"),
        (signed(ADA, "reveal_weights", "ada", 11, {**REVEAL, "salt": "00"}), "salt is of another type"),
        (signed(ADA, "reveal_weights", "ada", 11, {**REVEAL, "salt": "zz" * 32}), "salt is of another type"),
        (signed(ADA, "commit_weights", "ada", 11, {**COMMIT, "round": -1}), "round is of another"),
        (signed(ADA, "commit_weights", "ada", 11, {**COMMIT, "round": 10**40}), "round is of another"),
        (signed(ADA, "commit_weights", "ada", 11, COMMIT), "no validator"),
        (signed(ADA, "reveal_weights", "ada", 11, REVEAL), "no validator"),
        (signed(ADA, "post_weights", "ada", 11, {"round": 0, "weights": {}}), "no such call"),
        (signed(ADA, "register_peer", "ada", 11, {"bucket": "b" * MAX_CALL_BYTES}), "longer than"),
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no JSON object"),
        (b"{}", "not signed"),
        (signed(ADA, "register_peer", "ada", 11, {"bucket": "b"}) + b" ", "canonical"),
    ],
)
def test_a_forged_or_misshapen_call_is_refused_with_its_reason(service, shared, body, reason):
    head = shared.ledger.head()
    status, answer = service.call(body)
    assert status == 400
    assert reason in answer["error"]
    assert len(answer["error"]) <= 300
    assert "\n" not in answer["error"]
    assert shared.ledger.head() == head


def test_a_refused_call_cannot_be_repeated_when_it_would_be_taken(service, shared):
    service.call(signed(V1, "register_validator", "V1", 1, {"bucket": "v"}))
    for name in ("V2", "V3"):
        shared.ledger.register_validator(name, shared.key(name), "v")
    shared.ledger.register_peer("bob", shared.key("bob"), "b")
    shared.move_to(993.0)
    early = signed(V1, "post_record", "V1", 2, COMMIT)
    assert "would show them" in service.call(early)[1]["error"]
    shared.move_to(1002.0)
    status, answer = service.call(early)
    assert (status, answer["nonce"]) == (400, 2)
    assert service.call(signed(V1, "post_record", "V1", 3, COMMIT))[0] == 200
    assert service.read("status", {})[1]["result"]["pending"]["digest"] == DIGEST


def test_a_refused_transfer_cannot_be_repeated_once_there_are_units(service, shared):
    """Of a key that nobody knew: what it signed before it had units cost nothing, and is not taken when it would."""
    to_ada = {"to": "ada", "units": 5, "receipt": "11" * 16}
    early = signed(EVE, "transfer", EVE.public_key, 1, to_ada)
    assert "has 0 units" in service.call(early)[1]["error"]
    assert shared.ledger.nonce(EVE.public_key) == -1, "strangers fill no disk"
    shared.ledger._ledger.accounts.grant("ada", 20)
    shared.ledger.transfer("ada", EVE.public_key, 9, "22" * 16)
    status, answer = service.call(early)
    assert (status, answer["nonce"]) == (400, 990 * 10**9)
    assert shared.ledger.balances()[EVE.public_key] == 9
    assert service.call(signed(EVE, "transfer", EVE.public_key, answer["nonce"] + 1, to_ada))[0] == 200
    # The same receipt under a new nonce: as a client does whose answer was lost.
    assert service.call(signed(EVE, "transfer", EVE.public_key, answer["nonce"] + 2, to_ada))[0] == 200
    assert shared.ledger.balances()[EVE.public_key] == 4
    too_much = signed(EVE, "transfer", EVE.public_key, answer["nonce"] + 3, {**to_ada, "receipt": "33" * 16})
    assert "has 4 units" in service.call(too_much)[1]["error"]
    shared.ledger.transfer("ada", EVE.public_key, 2, "44" * 16)
    assert "nonce was used" in service.call(too_much)[1]["error"]


def test_nonces_outlive_the_process(shared, tmp_path):
    path = tmp_path / "ledger.sqlite"
    call = signed(ADA, "register_peer", "ada", 7, {"bucket": "b"})
    assert service_of(shared.reopen(path)).call(call)[0] == 200
    service = service_of(shared.reopen(path))
    assert "nonce was used" in service.call(call)[1]["error"]
    assert shared.ledger.verify() == 4  # terms, the peer, its key, its seat: nonces are no entries


def test_a_full_disk_is_a_503_of_one_line_and_keeps_nothing(shared, tmp_path):
    ledger = shared.reopen(tmp_path / "ledger.sqlite")
    service = service_of(ledger)
    service.call(signed(EVE, "register_peer", "eve", 1, {"bucket": "b"}))
    # The limit on pages stands in for the disk's end: SQLite reports both alike.
    database = ledger._chain._database
    database.execute(f"PRAGMA max_page_count = {database.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(OSError, match="full"):
        for number in range(1000):
            ledger._chain.post("filler", number, "", {"text": "x" * 500})
    head = ledger.head()
    call = signed(ADA, "register_peer", "ada", 1, {"bucket": "b" * 500})
    status, answer = service.call(call)
    assert status == 503
    assert "full" in answer["error"]
    assert (ledger.head(), ledger.nonce(ADA.public_key)) == (head, -1)
    database.execute("PRAGMA max_page_count = 100000")
    assert service.call(call)[0] == 200
    assert ledger.verify() > 0


@pytest.mark.parametrize(
    ("what", "query", "reason"),
    [
        ("record", {}, "names it"),
        ("record", {"round": "-1"}, "names it"),
        ("record", {"round": "9" * 16}, "names it"),
        ("record", {"round": "1e3"}, "names it"),
        ("registrations", {"round": "x"}, "names it"),
        ("beacon", {"round": "0", "phase": "middle"}, "no such read"),
        ("nonce", {"round": "0"}, "no such read"),
        ("history", {"name": "eve"}, "not registered"),
        ("history", {"name": "\ud800"}, "not registered"),
        ("epoch", {"round": "all"}, "names it"),
        ("committed", {}, "names it"),
    ],
)
def test_a_misshapen_read_is_refused(service, what, query, reason):
    status, answer = service.read(what, query)
    assert status == 400
    assert reason in answer["error"]


def test_a_beacon_before_its_time_is_told_apart(service):
    assert service.read("beacon", {"round": "0", "phase": "opening"})[0] == 425


def test_no_answer_has_the_secret(service, shared):
    answers = [
        service.read(what, {"round": "0", "phase": "opening", "name": "ada"})[1]
        for what in (
            [
                "status",
                "terms",
                "balances",
                "head",
                "registrations",
                "history",
                "record",
                "weights",
                "committed",
                "epoch",
                "beacon",
            ]
        )
    ]
    told = json.dumps(answers) + repr(shared.ledger) + repr(service)
    assert shared.secret.decode() not in told
    assert shared.secret.hex() not in told


def test_a_call_for_one_ledger_is_none_for_another_of_the_same_run(shared, tmp_path):
    ours = shared.ledger.terms()["ledger"]
    call = signed(ADA, "register_peer", "ada", 10, {"bucket": "memory://ada"}, run=ours)
    other = SharedRunLedger(":memory:", lambda: 991.0)
    other.found(shared.terms, anchor=None, start_delay=None)
    other.begin(None)
    assert other.terms()["run"] == shared.ledger.terms()["run"]
    assert LedgerService(other).call(call) == (400, {"error": "the call is for another run"})
    other.close()
    assert LedgerService(shared.ledger).call(call)[0] == 200
