"""Mutated ledger calls, straight into the handler: none crashes it, none is taken, and each is refused for a reason."""

import collections
import json
import random
import tracemalloc

import pytest

from gauntlet_jax.rewards.ledger_service import DOMAIN, MAX_CALL_BYTES, LedgerService
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.rewards.weight_commit import weights_digest
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.identity import Identity

CALLS = 6_000
FULL_CALLS = 100_000
ADA, V1, EVE = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
TERMS = {
    "run": "fuzzed",
    "rounds": 50,
    "slots": 1,
    "peers": ["ada"],
    "validators": [{"name": "V1", "stake": 1.0, "key": V1.public_key}],
    "emission": 100,
    "times": {"seconds": 12.0, "commit_opens": 0.0, "commit_closes": 4.0, "opens": 4.0, "closes": 8.0},
    "finality": {"weights_seconds": 1.0, "succession_seconds": 3.0, "veto_seconds": 1.5},
    "registration": {"cost": 5, "immunity_rounds": 20, "grants": {ADA.public_key: 7, "ada": 100}},
}
SALT = b"5alt" * 8
ROW = {"ada": 0.75, "reserve": 0.25}
POST = {"round": 0, "digest": "ab" * 32}
COMMIT = {"round": 0, "digest": weights_digest(0, "V1", ROW, SALT)}
REVEAL = {"round": 0, "weights": ROW, "salt": SALT.hex()}
GIFT = {"to": EVE.public_key, "units": 3, "receipt": "0f" * 16}
GOOD = [
    (ADA, "register_peer", "ada", {"bucket": "memory://ada"}),
    (V1, "register_validator", "V1", {"bucket": "memory://V1"}),
    (V1, "commit_weights", "V1", COMMIT),
    (V1, "reveal_weights", "V1", REVEAL),
    (V1, "post_record", "V1", POST),
    (ADA, "transfer", "ada", GIFT),
    (ADA, "transfer", ADA.public_key, GIFT),
    (V1, "reject_record", "V1", {"round": 0, "digest": "cd" * 32}),
]
# What stands for no good value of any field.
JUNK = [
    None, True, -1, -1.5, 10**40, 10**400, 1e308, -0.0, "", "\x00", "\ud800", "\u202e", "../..", "a" * 70, "x" * 5000,
    "'; DROP TABLE entries; --", [], [[]], {}, {"": ""}, {"ada": None}, {"ada": -1}, {"ada": 10**400}, {"\ud800": 1},
    [0] * 5000, {str(number): number for number in range(5000)},
]  # fmt: skip


def signed(identity, call, name, arguments, nonce, *, domain=DOMAIN, **more):
    fields = {"run": "fuzzed", "call": call, "name": name, "arguments": arguments, "nonce": nonce}
    return signed_json.sign(identity, domain, {**fields, **more})


@pytest.fixture
def service():
    """A run whose first commits to weights have just been closed, with both nodes registered and V1 bound to its weights."""
    time = [990.0]
    ledger = SharedRunLedger(":memory:", lambda: time[0])
    ledger.found(TERMS, anchor=None, start_delay=3.0)
    ledger.begin(None)
    found = LedgerService(ledger)
    found._run = "fuzzed"
    for nonce, (identity, call, name, arguments) in enumerate(GOOD[:2], start=10**12):
        assert found.call(signed(identity, call, name, arguments, nonce))[0] == 200
    for now in (993.0, 1001.0):
        time[0] = now
        ledger.settle()
    ledger.commit_weights("V1", 0, COMMIT["digest"])
    time[0] = 1002.0
    ledger.settle()
    found.ledger = ledger  # type: ignore[attr-defined]
    yield found
    ledger.close()


def bytes_changed(random, body):
    """A good call whose bytes were tampered with after it was signed."""
    data = bytearray(body)
    for _ in range(random.choice((1, 1, 2, 20))):
        at = random.randrange(len(data))
        what = random.randrange(5)
        if what == 0:
            data[at] ^= 1 << random.randrange(8)
        elif what == 1:
            data[at] = random.randrange(256)
        elif what == 2:
            del data[at:]
            if not data:
                break
        elif what == 3:
            data[at:at] = random.randbytes(random.randrange(1, 50))
        else:
            del data[at : at + random.randrange(1, 30)]
            if not data:
                break
    return bytes(data)


def document_changed(random, body):
    """A good call with another field, and the signature of the first."""
    document = json.loads(body)
    field = random.choice(sorted(document))
    if random.random() < 0.2:
        del document[field]
    elif random.random() < 0.2:
        document[f"{field}2"] = document[field]
    else:
        document[field] = random.choice(JUNK)
    return signed_json.canonical(document)


def well_signed_junk(random, good, nonce):
    """A call with a junk argument, signed by the right key: only the checks of the ledger stand in its way."""
    identity, call, name, arguments = good
    field = random.choice(sorted(arguments))
    others = [junk for junk in JUNK if not _is_good(field, junk)]
    return signed(identity, call, name, {**arguments, field: random.choice(others)}, nonce)


def _is_good(field, value):
    """An address is any short printable text: who reads it judges it."""
    if field == "bucket":
        return isinstance(value, str) and value.isascii() and value.isprintable() and 0 < len(value) <= 512
    return False


def forged(random, good, nonce):
    """A whole and good call of the wrong key, run, purpose, nonce, sender or name."""
    identity, call, name, arguments = good
    return random.choice(
        [
            lambda: signed(EVE, call, name, arguments, nonce),
            lambda: signed(identity, call, name, arguments, nonce, run="another"),
            lambda: signed(identity, call, name, arguments, nonce, domain=random.choice(("manifest", "commit", ""))),
            lambda: signed(identity, call, name, arguments, 0),
            lambda: signed(identity, call, name, arguments, random.choice(JUNK)),
            lambda: signed(identity, call, random.choice(JUNK), arguments, nonce),
            lambda: signed(identity, random.choice(JUNK), name, arguments, nonce),
            lambda: signed(EVE, "register_peer", f"eve{random.randrange(9)}", {"bucket": "b"}, nonce),  # no slot is free
            lambda: signed(EVE, "register_validator", "V2", {"bucket": "b"}, nonce),
            lambda: signed(ADA, "post_record", "ada", POST, nonce),
            lambda: signed(ADA, "commit_weights", "ada", COMMIT, nonce),
            lambda: signed(V1, "commit_weights", "V1", {**COMMIT, "digest": random.randbytes(32).hex()}, nonce),
            lambda: signed(V1, "reveal_weights", "V1", {**REVEAL, "weights": {"ada": random.random()}}, nonce),
            lambda: signed(V1, "reveal_weights", "V1", {**REVEAL, "salt": random.randbytes(32).hex()}, nonce),
            lambda: signed(ADA, "transfer", "ada", {**GIFT, "units": random.randrange(101, 2**70)}, nonce),
            lambda: signed(ADA, "transfer", ADA.public_key, {**GIFT, "units": random.randrange(8, 2**63)}, nonce),
            lambda: signed(ADA, "transfer", "ada", {**GIFT, "to": random.choice(("reserve", "eve", "ada"))}, nonce),
            lambda: signed(EVE, "transfer", EVE.public_key, {**GIFT, "to": "ada"}, nonce),
            lambda: signed(ADA, "transfer", EVE.public_key, {**GIFT, "to": "ada"}, nonce),
            lambda: signed(V1, "post_record", "V1", {**POST, "round": random.randrange(1, 2**60)}, nonce),
        ]
    )()  # fmt: skip


def garbage(random):
    """Bytes that never were a call."""
    return random.choice(
        [
            lambda: random.randbytes(random.randrange(200)),
            lambda: b"[" * random.randrange(1, 100_000),
            lambda: b'{"a":' * random.randrange(1, 30_000),
            lambda: b"9" * random.randrange(1, 10_000),
            lambda: b"{}" + b" " * MAX_CALL_BYTES,
            lambda: signed_json.canonical(random.choice(JUNK)),
        ]
    )()


def test_no_mutated_call_is_taken(service, full):
    chance = random.Random(3)
    ledger, reasons = service.ledger, collections.Counter()
    head = ledger.head()
    peak, count = 0, FULL_CALLS if full else CALLS
    for number in range(count):
        # The good calls that a mutation starts from are of now: but for it they would be taken.
        good = chance.choice(GOOD)
        identity, call, name, arguments = good
        nonce = 10**13 + number  # above all before: else nothing but that would be checked
        body = signed(identity, call, name, arguments, nonce)
        mutated = (
            bytes_changed(chance, body),
            document_changed(chance, body),
            well_signed_junk(chance, good, nonce),
            forged(chance, good, nonce),
            garbage(chance),
        )[number % 5]
        if mutated == body:
            continue
        traced = number % 23 == 0  # to trace each would take most of the time
        if traced:
            tracemalloc.start()
        status, answer = service.call(mutated)
        if traced:
            peak = max(peak, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert status == 400, (status, mutated[:300])
        assert set(answer) <= {"error", "nonce"}
        assert 0 < len(answer["error"]) <= 300
        assert "\n" not in answer["error"]
        reasons[answer["error"]] += 1
        if number % 500 == 0:
            assert ledger.head() == head
    assert ledger.head() == head
    assert ledger.verify() > 0
    assert sum(ledger.balances().values()) == 107
    print(f"{count} calls, {len(reasons)} reasons, peak {peak / 2**20:.1f} MiB")
    for reason, times in reasons.most_common(12):
        print(f"{times:6d}  {reason}")
    assert len(reasons) > 20, "the mutations reach the ledger's own checks"
    assert peak < 32 * 2**20
    # And what was not mutated is taken.
    for nonce, (identity, call, name, arguments) in enumerate(GOOD):
        if call in ("reveal_weights", "post_record", "transfer"):
            assert service.call(signed(identity, call, name, arguments, 2**63 - 9 + nonce))[0] == 200
            assert ledger.head() != head
            head = ledger.head()
