from types import SimpleNamespace

import pytest

from gauntlet_jax.rewards.beacon_chain import make_chain
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger

BEACON_SECRET = b"s3cr3t-b3acon-s33d-of-32-bytes!!"
SHARED_TERMS = {
    "run": "trial",
    "protocol": 1,
    "rounds": 50,
    "slots": 4,
    "peers": ["ada", "bob"],
    "validators": [
        {"name": "V1", "stake": 3.0, "key": None},
        {"name": "V2", "stake": 2.0, "key": None},
        {"name": "V3", "stake": 2.0, "key": None},
    ],
    "emission": 100,
    "times": {"seconds": 12.0, "commit_opens": 0.0, "commit_closes": 4.0, "opens": 4.0, "closes": 8.0},
    "finality": {"weights_seconds": 1.0, "succession_seconds": 3.0, "veto_seconds": 1.5},
    "registration": {"cost": 0, "immunity_rounds": 20, "grants": {}},
    "beacon": "ledger",
    "seed": 0,
    "config": {},
}


@pytest.fixture
def shared():
    """A run whose first round has begun at 1000, with ada, bob and three validators; ``time`` is moved by hand."""

    def keys(name):
        return name.encode().hex().ljust(64, "0")

    run = SimpleNamespace(time=990.0, terms=SHARED_TERMS, key=keys, secret=BEACON_SECRET)

    def reopen(path):
        if hasattr(run, "ledger"):
            run.ledger.close()
        run.ledger = SharedRunLedger(path, lambda: run.time)
        if not run.ledger.is_founded:
            anchor, _ = make_chain(BEACON_SECRET, 2 * SHARED_TERMS["rounds"] + 2)
            run.ledger.found(SHARED_TERMS, anchor=anchor, start_delay=None)
        run.ledger.begin(BEACON_SECRET)
        return run.ledger

    def register():
        for name in ("ada", "bob"):
            run.ledger.register_peer(name, keys(name), f"memory://{name}")
        for name in ("V1", "V2", "V3"):
            run.ledger.register_validator(name, keys(name), f"memory://{name}")

    def move_to(time):
        """In steps as the service's clockwork does, so that the ledger sees every tick."""
        while run.time < time:
            run.time = min(time, run.time + 0.5)
            run.ledger.settle()

    run.reopen, run.register, run.move_to = reopen, register, move_to
    reopen(":memory:")
    yield run
    run.ledger.close()
