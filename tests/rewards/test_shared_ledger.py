import hashlib

import pytest

from gauntlet_jax.rewards.epoch import epoch_of
from gauntlet_jax.rewards.ledger import REMAINDER, RESERVE, LedgerRefused, NotYetKnown
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.rewards.weight_commit import weights_digest

DIGEST, OTHER, THIRD = "ab" * 32, "cd" * 32, "ef" * 32
SALT = bytes(32)


@pytest.fixture
def begun(shared):
    """Round 0 began at 993: registered at 990.0, the next whole second is 991, and 2 s more."""
    shared.register()
    shared.move_to(993.0)
    return shared


def test_the_run_waits_for_those_whom_its_terms_name(shared):
    ledger = shared.ledger
    status = ledger.status()
    assert (status.now, status.round, status.start) == (990.0, None, None)
    assert status.waiting_for == ("ada", "bob", "V1", "V2", "V3")
    shared.time = 990.25
    shared.register()
    assert ledger.status().waiting_for == ()
    shared.move_to(992.75)
    assert ledger.status().round is None
    shared.move_to(993.25)
    assert ledger.status()[1:3] == (0, 993.0)


def test_slots_are_reserved_and_then_given_out_lowest_first(begun):
    ledger, key = begun.ledger, begun.key
    assert [(entry.name, entry.slot, entry.stake, entry.from_round) for entry in ledger.registrations(0)] == [
        ("ada", 0, 0.0, 0),
        ("bob", 1, 0.0, 0),
        ("V1", None, 3.0, 0),
        ("V2", None, 2.0, 0),
        ("V3", None, 2.0, 0),
    ]
    eve = ledger.register_peer("eve", key("eve"), "memory://eve")
    assert (eve.slot, eve.from_round, eve.public_key) == (2, 1, key("eve"))
    assert ledger.register_peer("eve", key("eve"), "memory://eve") == eve
    assert ledger.register_peer("fay", key("fay"), "memory://fay").slot == 3
    with pytest.raises(LedgerRefused, match=r"all 4 slots .* for round 20 or later"):
        ledger.register_peer("gil", key("gil"), "memory://gil")
    # Whoever came during round 0 takes part from round 1 on, for everybody who asks and whenever.
    assert "eve" not in {entry.name for entry in ledger.registrations(0)}
    assert "eve" in {entry.name for entry in ledger.registrations(1)}
    assert len(ledger.registrations(None)) == 7


def test_a_reserved_slot_is_kept_for_its_name(shared):
    ledger, key = shared.ledger, shared.key
    assert ledger.register_peer("eve", key("eve"), "memory://eve").slot == 2
    assert ledger.register_peer("bob", key("bob"), "memory://bob").slot == 1
    assert ledger.register_peer("ada", key("ada"), "memory://ada").slot == 0


def test_a_validator_whose_key_is_in_the_terms_needs_that_key(shared):
    keyed = [{"name": "V1", "stake": 1, "key": shared.key("V1")}]
    shared.ledger.close()
    shared.ledger = SharedRunLedger(":memory:", lambda: shared.time)
    shared.ledger.found({**shared.terms, "validators": keyed}, anchor=None, start_delay=0.0)
    shared.ledger.begin(None)
    with pytest.raises(LedgerRefused, match="another key"):
        shared.ledger.register_validator("V1", shared.key("eve"), "memory://eve")
    with pytest.raises(LedgerRefused, match="reserved for a validator"):
        shared.ledger.register_peer("V1", shared.key("eve"), "memory://eve")
    assert shared.ledger.register_validator("V1", shared.key("V1"), "memory://V1").stake == 1.0


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda run: run.ledger.register_peer("ada", run.key("eve"), "b"), "another key"),
        (lambda run: run.ledger.register_peer("V1", run.key("V1"), "b"), "another role"),
        (lambda run: run.ledger.register_peer(RESERVE, run.key("r"), "b"), "a name has"),
        (lambda run: run.ledger.register_peer(REMAINDER, run.key("r"), "b"), "a name has"),
        (lambda run: run.ledger.register_peer("ab" * 32, run.key("r"), "b"), "looks like a public key"),
        (lambda run: run.ledger.register_peer("a/b", run.key("r"), "b"), "a name has"),
        (lambda run: run.ledger.register_peer("a" * 65, run.key("r"), "b"), "a name has"),
        (lambda run: run.ledger.register_peer("eve", run.key("r"), "b" * 513), "address"),
        (lambda run: run.ledger.register_peer("eve", run.key("r"), "b\n"), "address"),
        (lambda run: run.ledger.register_peer("eve", run.key("r"), ""), "address"),
        (lambda run: run.ledger.register_validator("V1", run.key("eve"), "b"), "another key"),
        (lambda run: run.ledger.register_validator("V9", run.key("V9"), "b"), "no validator"),
    ],
)
def test_a_name_belongs_to_its_first_key(begun, call, match):
    head = begun.ledger.head()
    with pytest.raises(LedgerRefused, match=match):
        call(begun)
    assert begun.ledger.head() == head


def test_a_bucket_moves_once_a_round(begun):
    ledger, key = begun.ledger, begun.key
    assert ledger.register_peer("ada", key("ada"), "memory://new").bucket == "memory://new"
    with pytest.raises(LedgerRefused, match="once more when the next"):
        ledger.register_peer("ada", key("ada"), "memory://newer")
    assert ledger.register_validator("V1", key("V1"), "memory://v").bucket == "memory://v"


def weigh(run, round, rows):
    """Commits in their time, and what each shows after it; the clock is at the close of the put window before."""
    for validator, row in rows.items():
        run.ledger.commit_weights(validator, round, weights_digest(round, validator, row, SALT))
    run.move_to(run.ledger.status().commits_close)
    for validator, row in rows.items():
        run.ledger.reveal_weights(validator, round, row, SALT)


def test_a_record_is_final_after_the_time_for_vetoes_and_pays_then(begun):
    ledger = begun.ledger
    begun.move_to(1001.0)  # the close
    assert ledger.status().commits_close == 1002.0
    row = {"ada": 2.0, "bob": 1.0, RESERVE: 1.0}
    for validator in ("V1", "V2", "V3"):
        ledger.commit_weights(validator, 0, weights_digest(0, validator, row, SALT))
    begun.move_to(1001.5)
    with pytest.raises(LedgerRefused, match="would show them"):
        ledger.post_record("V1", 0, DIGEST)
    begun.move_to(1002.0)
    for validator in ("V1", "V2", "V3"):
        ledger.reveal_weights(validator, 0, row, SALT)
    ledger.post_record("V1", 0, DIGEST)
    head = ledger.head()
    ledger.post_record("V1", 0, DIGEST)  # again is no change
    assert ledger.head() == head
    status = ledger.status()
    assert status.pending is not None
    assert (status.pending.validator, status.pending.digest, status.pending.final_at) == ("V1", DIGEST, None)
    assert ledger.record(0) is None
    begun.time = 1003.4
    assert ledger.record(0) is None
    assert ledger.epoch(0) is None
    begun.time = 1003.5
    final = ledger.record(0)
    assert final is not None
    assert (final.posted_at, final.final_at, final.start) == (1002.0, 1003.5, 993.0)
    # 50 for the peers: 25, 12.5 and 12.5; 50 for the validators of 3, 2 and 2: 21.4, 14.3 and 14.3.
    paid = {"ada": 25, "bob": 12, "V1": 21, "V2": 14, "V3": 14}
    assert ledger.balances() == {**paid, RESERVE: 12, REMAINDER: 2}
    assert ledger.history("ada") == {0: 25}
    epoch = ledger.epoch(0)
    assert epoch is not None
    assert (epoch.payouts, epoch.reserve, epoch.remainder) == (paid, 12, 2)
    shares = {"ada": 0.5, "bob": 0.25, RESERVE: 0.25}
    stakes = {"V1": 3.0, "V2": 2.0, "V3": 2.0}
    assert epoch == epoch_of(
        0, dict.fromkeys(stakes, shares), stakes=stakes, peers=["ada", "bob"], bonds={}, emission=100
    )
    # Its number stays until the next round begins, and it is not judged anew.
    status = ledger.status()
    assert (status.round, status.pending) == (0, final)
    begun.move_to(1005.0)
    assert ledger.status()[1:4] == (1, 1005.0, None)
    assert ledger.verify() > 0


def test_the_next_validator_follows_if_the_lead_is_silent(begun):
    ledger = begun.ledger
    begun.move_to(1004.5)
    with pytest.raises(LedgerRefused, match="not the turn of V2"):
        ledger.post_record("V2", 0, DIGEST)
    begun.move_to(1005.0)  # T after the commits were closed
    ledger.post_record("V2", 0, DIGEST)
    with pytest.raises(LedgerRefused, match="has a record of V2"):
        ledger.post_record("V1", 0, OTHER)
    begun.move_to(1006.5)
    # Final at 1006.5, after the tick of 1005: the next round begins at 1017, and no round is lost.
    assert ledger.status().round == 0
    begun.move_to(1017.0)
    assert ledger.status()[1:3] == (1, 1017.0)


def test_more_than_half_of_the_stake_vetoes_and_the_next_may_post_at_once(begun):
    ledger = begun.ledger
    begun.move_to(1002.0)
    ledger.post_record("V1", 0, DIGEST)
    with pytest.raises(LedgerRefused, match="its own"):
        ledger.reject_record("V1", 0, DIGEST)
    with pytest.raises(LedgerRefused, match="no such record"):
        ledger.reject_record("V2", 0, OTHER)
    ledger.reject_record("V2", 0, DIGEST)
    assert ledger.status().vetoed == ()  # 2 of 7
    head = ledger.head()
    ledger.reject_record("V2", 0, DIGEST)
    assert ledger.head() == head
    ledger.reject_record("V3", 0, DIGEST)
    status = ledger.status()
    assert (status.vetoed, status.pending) == (("V1",), None)  # 4 of 7
    ledger.reject_record("V2", 0, DIGEST)  # a repeated call, its answer lost on the way
    with pytest.raises(LedgerRefused, match="not the turn of V1"):
        ledger.post_record("V1", 0, OTHER)
    with pytest.raises(LedgerRefused, match="was vetoed"):
        ledger.post_record("V2", 0, DIGEST)
    with pytest.raises(LedgerRefused, match="not the turn of V3"):
        ledger.post_record("V3", 0, THIRD)
    ledger.post_record("V2", 0, OTHER)
    begun.move_to(1003.5)
    with pytest.raises(LedgerRefused, match="final"):
        ledger.reject_record("V1", 0, OTHER)
    final = ledger.record(0)
    assert final is not None
    assert (final.validator, final.digest) == ("V2", OTHER)
    assert sum(ledger.balances().values()) == 100


def test_a_record_that_does_not_fit_is_refused(begun):
    begun.move_to(1002.0)
    for arguments, match in (((0, "xy" * 32), "no sha256"), ((1, DIGEST), "not the one")):
        with pytest.raises(LedgerRefused, match=match):
            begun.ledger.post_record("V1", *arguments)
    with pytest.raises(LedgerRefused, match="no validator"):
        begun.ledger.post_record("ada", 0, DIGEST)


def test_beacons_come_when_they_are_due_and_lead_to_the_anchor(begun):
    ledger = begun.ledger
    known = bytes.fromhex(ledger.terms()["anchor"])
    opening = ledger.beacon(0, "opening")
    assert hashlib.sha256(opening).digest() == known
    begun.move_to(1000.5)
    for round, phase in ((0, "closing"), (1, "opening"), (49, "closing")):
        with pytest.raises(NotYetKnown, match="not due"):
            ledger.beacon(round, phase)
    begun.move_to(1001.0)
    closing = ledger.beacon(0, "closing")
    assert hashlib.sha256(closing).digest() == opening
    begun.move_to(1002.0)
    ledger.post_record("V1", 0, DIGEST)
    begun.move_to(1004.5)
    with pytest.raises(NotYetKnown):
        ledger.beacon(1, "opening")
    begun.move_to(1005.0)
    assert hashlib.sha256(ledger.beacon(1, "opening")).digest() == closing
    with pytest.raises(LedgerRefused, match="none of this run"):
        ledger.beacon(50, "opening")


def commits(run, validator="V1", round=0, row=None):
    run.ledger.commit_weights(validator, round, weights_digest(round, validator, row or {"ada": 1.0}, SALT))


def shows(run, validator="V1", round=0, row=None):
    run.ledger.reveal_weights(validator, round, row or {"ada": 1.0}, SALT)


def test_weights_have_their_time(begun):
    """Half open: a commit is taken from the close of the put window until W later, a reveal from then until the epoch."""
    begun.move_to(1000.5)
    with pytest.raises(LedgerRefused, match="put window is open"):
        commits(begun)
    begun.move_to(1001.0)
    commits(begun)
    begun.move_to(1001.5)
    commits(begun, "V2")
    with pytest.raises(LedgerRefused, match="none are shown"):
        shows(begun)
    with pytest.raises(LedgerRefused, match="not the one"):
        commits(begun, round=1)
    with pytest.raises(LedgerRefused, match="no validator"):
        commits(begun, "ada")
    assert begun.ledger.committed(0) == ("V1", "V2")
    begun.move_to(1002.0)
    with pytest.raises(LedgerRefused, match="too late"):
        commits(begun, "V3")
    shows(begun)
    with pytest.raises(LedgerRefused, match="commit is to others"):
        shows(begun, "V2", row={"bob": 1.0})
    with pytest.raises(LedgerRefused, match="no commit"):
        shows(begun, "V3")
    begun.ledger.post_record("V1", 0, DIGEST)
    begun.move_to(1003.0)
    shows(begun, "V2")  # until the epoch
    begun.move_to(1003.5)
    # What was taken before may be repeated, and is no change.
    head = begun.ledger.head()
    shows(begun)
    commits(begun)
    assert begun.ledger.head() == head
    with pytest.raises(LedgerRefused, match="already says something else"):
        commits(begun, row={"bob": 1.0})
    with pytest.raises(LedgerRefused, match="too late"):
        begun.ledger.reveal_weights("V3", 0, {"ada": 1.0}, SALT)


def test_who_does_not_show_its_weights_is_held_to_its_older_ones(begun):
    ledger = begun.ledger
    begun.move_to(1001.0)
    weigh(begun, 0, {"V1": {"ada": 1.0}, "V2": {"bob": 1.0}})
    ledger.post_record("V1", 0, DIGEST)
    begun.move_to(1013.0)
    commits(begun, "V2", round=1)
    begun.move_to(1014.0)
    ledger.post_record("V1", 1, OTHER)
    begun.move_to(1016.0)
    epoch = ledger.epoch(1)
    assert epoch is not None
    assert ledger.weights(1) == {}
    assert epoch.trust == {"V1": 1.0, "V2": 0.0}  # V1 has 3 of the 5
    assert epoch.consensus == {"ada": 1.0, "bob": 0.0, RESERVE: 0.0}


def test_an_outage_extends_the_time_for_commits_until_they_were_closed(shared, tmp_path):
    path = tmp_path / "ledger.sqlite"
    shared.reopen(path)
    shared.register()
    shared.move_to(1001.5)
    commits(shared, "V1")
    shared.time = 1100.0
    shared.reopen(path)
    assert shared.ledger.status().commits_close == 1101.0
    commits(shared, "V2")
    with pytest.raises(LedgerRefused, match="would show them"):
        shared.ledger.post_record("V1", 0, DIGEST)
    shared.move_to(1101.0)
    shows(shared, "V2")
    # Closed is closed: somebody's weights have been seen.
    shared.time = 1200.0
    shared.reopen(path)
    assert shared.ledger.status().commits_close == 1101.0
    with pytest.raises(LedgerRefused, match="too late"):
        commits(shared, "V3")
    shows(shared, "V1")
    assert {*shared.ledger.weights(0)} == {"V1", "V2"}


def test_an_outage_of_the_ledger_takes_neither_a_veto_nor_a_round(shared, tmp_path):
    path = tmp_path / "ledger.sqlite"
    ledger = shared.reopen(path)
    shared.register()
    shared.move_to(1002.0)
    ledger.post_record("V1", 0, DIGEST)
    shared.time = 1100.0
    ledger = shared.reopen(path)
    # V2 and V3 could not reach it: they still can.
    ledger.reject_record("V2", 0, DIGEST)
    shared.move_to(1101.0)
    assert ledger.record(0) is None
    shared.move_to(1101.5)
    final = ledger.record(0)
    assert final is not None
    assert final.final_at == 1101.5
    # 993 + 10 * 12 = 1113 is the first tick after that, and the ledger is away again.
    assert ledger.status().round == 0
    shared.time = 1151.0
    ledger = shared.reopen(path)
    assert ledger.status().round == 0, "nobody could know that round 1 would have begun"
    shared.move_to(1161.0)
    assert ledger.status()[1:3] == (1, 1161.0)
    assert ledger.verify() > 0


def test_the_clock_never_goes_back(begun):
    begun.time = 994.0
    assert begun.ledger.status().now == 994.0
    begun.time = 900.0
    assert begun.ledger.status().now == 994.0


def test_the_wrong_secret_and_another_ledger_are_refused(shared, tmp_path):
    path = tmp_path / "ledger.sqlite"
    shared.reopen(path)
    shared.ledger.close()
    with pytest.raises(ValueError, match="not the one") as error:
        SharedRunLedger(path, lambda: 0.0).begin(b"x" * 32)
    assert "xxx" not in str(error.value)
    other = SharedRunLedger(":memory:", lambda: 0.0)
    other._ledger.register("ada", "store/ada")
    with pytest.raises(ValueError, match="something else"):
        other.found(shared.terms, anchor=None, start_delay=0.0)
    with pytest.raises(ValueError, match="no run yet"):
        other.begin(None)
    other.close()


def test_the_run_ends_with_its_last_round(shared):
    shared.ledger.close()
    shared.ledger = SharedRunLedger(":memory:", lambda: shared.time)
    shared.ledger.found({**shared.terms, "rounds": 1}, anchor=None, start_delay=2.5)
    shared.ledger.begin(None)
    shared.register()
    shared.move_to(1002.0)
    assert shared.ledger.status()[1:3] == (0, 993.0)
    shared.ledger.post_record("V1", 0, DIGEST)
    shared.move_to(1020.0)
    assert (shared.ledger.status().round, shared.ledger.status().commits_close) == (1, None)
    with pytest.raises(LedgerRefused, match="not the one"):
        shared.ledger.post_record("V1", 1, DIGEST)
    with pytest.raises(LedgerRefused, match="seeded"):
        shared.ledger.beacon(0, "opening")
