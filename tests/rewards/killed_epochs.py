"""Kills a ledger at many moments of one call that brings an epoch with it, and looks at what is left; prints counts as JSON.

A process of its own, since it forks: the child opens a copy of a prepared ledger and is killed by a handler of its SQLite
connection, between statements or within one; the parent opens what is left, repeats the call, and compares with a ledger that
nobody killed.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from shared_world import SharedWorld, identity_of

from gauntlet_jax.rewards.ledger_service import DOMAIN, LedgerService
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.storage import signed_json
from gauntlet_jax.testing.ledger_world import commit, populate, reveal

NONCE = 10**15
GIFT = {"to": "bob", "units": 4, "receipt": "0a" * 16}


def prepare(path):
    """A ledger whose first record was just posted; returns its moment, its secret's terms and the call that comes next."""
    world = SharedWorld(path)
    populate(world)
    round = world.open_round()
    world.close_round()
    rows = {"V1": {"ada": 3.0, "bob": 1.0}, "V2": {"ada": 1.0}, "V3": {"bob": 1.0, "reserve": 2.0}}
    commit(world, round, rows)
    world.close_commits()
    reveal(world, round, rows)
    world.node("V1").post_record(round, "ab" * 32)
    fields = {
        "run": world.ledger.terms()["ledger"],
        "call": "transfer",
        "name": identity_of("eve").public_key,
        "arguments": GIFT,
        "nonce": NONCE * 10,
    }
    call = signed_json.sign(identity_of("eve"), DOMAIN, fields)
    world.ledger.close()
    return world.time, call


def opened(path, moment):
    """The ledger just before the record becomes final, and a way to let it."""
    clock = [moment]
    ledger = SharedRunLedger(path, lambda: clock[0])
    ledger.begin(bytes(range(32)))
    clock[0] += 1.0
    return ledger


def act(path, moment, call, watch):
    """Takes the call, by which the epoch is due, and lets ``watch`` have the connection before."""
    ledger = opened(path, moment)
    service = LedgerService(ledger)
    watch(ledger._chain._database)
    answer = service.call(call)
    watch(None)
    return ledger, answer


def count(path, moment, call):
    """How many statements and how many steps of SQLite's machine the call takes."""
    counted = {"statements": 0, "steps": 0}
    on = [True]

    def watch(database):
        on[0] = database is not None
        if database is not None:
            database.set_trace_callback(lambda _: add("statements"))
            database.set_progress_handler(lambda: add("steps"), 1)

    def add(what):
        counted[what] += on[0]

    ledger, answer = act(path, moment, call, watch)
    assert answer[0] == 200, answer
    state = (ledger.head(), ledger.balances(), ledger.verify())
    ledger.close()
    return counted["statements"], counted["steps"], state


def killed_after(path, moment, call, *, statements=None, steps=None):
    """Whether a child was killed on its way."""
    child = os.fork()
    if child == 0:
        left = [statements if statements is not None else steps]

        def last(*_):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def watch(database):
            if database is None:
                return
            if statements is not None:
                database.set_trace_callback(last)
            else:
                database.set_progress_handler(last, 1)

        act(path, moment, call, watch)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(folder, samples):
    prepared = folder / "prepared.sqlite"
    moment, call = prepare(prepared)
    shutil.copy(prepared, folder / "whole.sqlite")
    statements, steps, state = count(folder / "whole.sqlite", moment, call)
    moments = [{"statements": number} for number in range(statements)]
    moments += [{"steps": number * steps // samples} for number in range(samples)]
    told = {"kills": 0, "undone": 0, "whole": 0, "statements": statements, "steps": steps, "wrong": []}
    for number, moment_of_death in enumerate(moments):
        path = folder / f"{number}.sqlite"
        shutil.copy(prepared, path)
        if not killed_after(path, moment, call, **moment_of_death):
            told["wrong"].append([moment_of_death, "was not killed"])
            continue
        told["kills"] += 1
        ledger = SharedRunLedger(path, lambda: moment)
        ledger.begin(bytes(range(32)))
        ledger.verify()
        epoch, nonce = ledger.epoch(0), ledger.nonce(identity_of("eve").public_key)
        total = sum(ledger.balances().values())
        if (epoch is None) != (ledger.record(0) is None) or total != 19 + (0 if epoch is None else 1_000_003):
            told["wrong"].append([moment_of_death, "half an epoch"])
        ledger.close()
        told["undone" if epoch is None else "whole"] += 1
        ledger, answer = act(path, moment, call, lambda database: None)
        taken = 400 if nonce == NONCE * 10 else 200
        if answer[0] != taken:
            told["wrong"].append([moment_of_death, answer])
        if (ledger.head(), ledger.balances(), ledger.verify()) != state:
            told["wrong"].append([moment_of_death, "is another ledger"])
        ledger.close()
        path.unlink()
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
