import contextlib
import sqlite3

import pytest

from gauntlet_jax.rewards.hash_chain import GENESIS, LedgerTampered
from gauntlet_jax.rewards.ledger import RESERVE, LedgerConflict, Registration
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger

DIGEST = "ab" * 32


class Clock:
    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def play(ledger, clock, rounds):
    """Posts some rounds the way a run does; the clock depends on the round alone."""
    clock.time = 0.0
    for peer in ("ada", "bob"):
        ledger.register(peer, f"memory://{peer}")
    for round in rounds:
        clock.time = 10.0 * round
        with ledger.transaction():
            ledger.post_weights(round, "val", {"ada": 0.75, "bob": 0.25})
            ledger.post_record(round, DIGEST)
            ledger.emit(round, {"ada": 60 + round, "bob": 20}, 20 - round, 100)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(clock):
    with SqliteLedger(":memory:", clock) as opened:
        yield opened


def test_what_was_posted_is_read(ledger, clock):
    play(ledger, clock, range(3))
    ledger.set_bucket(2, "bob", "memory://elsewhere")
    assert ledger.peers() == {
        "ada": Registration("ada", "memory://ada", 0.0),
        "bob": Registration("bob", "memory://elsewhere", 0.0),
    }
    assert list(ledger.peers()) == ["ada", "bob"]
    assert ledger.weights(1) == {"val": {"ada": 0.75, "bob": 0.25}}
    assert ledger.weights(7) == {}
    assert (ledger.record(2), ledger.record(3)) == (DIGEST, None)
    assert ledger.history("ada") == {0: 60, 1: 61, 2: 62}
    assert ledger.balances() == {"ada": 183, "bob": 60, RESERVE: 57}
    assert sum(ledger.balances().values()) == 300
    assert ledger.now() == 20.0
    assert ledger.verify() == 2 + 3 * 3 + 1


def test_the_same_calls_give_the_same_head_and_a_resumed_run_repeats_itself_freely(tmp_path, clock):
    with SqliteLedger(":memory:", clock) as through:
        assert through.head() == GENESIS
        play(through, clock, range(6))
        head, count = through.head(), through.verify()
    with SqliteLedger(tmp_path / "ledger.sqlite", clock) as first:
        play(first, clock, range(4))
    with SqliteLedger(tmp_path / "ledger.sqlite", clock) as resumed:
        play(resumed, clock, range(2, 6))
        resumed.flush()
        assert (resumed.head(), resumed.verify()) == (head, count)
    with SqliteLedger(":memory:", clock) as shorter:
        play(shorter, clock, range(5))
        assert shorter.head() != head


def test_the_first_word_stands(ledger, clock):
    play(ledger, clock, range(2))
    head, balances = ledger.head(), ledger.balances()
    for say_otherwise in (
        lambda: ledger.register("ada", "memory://other"),
        lambda: ledger.post_weights(1, "val", {"ada": 0.5, "bob": 0.5}),
        lambda: ledger.post_record(1, "cd" * 32),
        lambda: ledger.emit(1, {"ada": 100, "bob": 0}, 0, 100),
    ):
        with pytest.raises(LedgerConflict, match="already says something else"):
            say_otherwise()
    assert (ledger.head(), ledger.balances()) == (head, balances)


@pytest.mark.parametrize(
    ("payment", "match"),
    [
        (({"ada": 5}, 4, 10), "sum to 9, not to 10"),
        (({"ada": -1}, 11, 10), "payout of ada"),
        (({"ada": 11}, -1, 10), "reserve"),
        (({"ada": 5.0}, 5, 10), "payout of ada"),
        (({"ada": True}, 9, 10), "payout of ada"),
        (({"eve": 5}, 5, 10), "'eve' is not registered"),
        (({"ada": 2**63}, 0, 2**63), "payout of ada"),
        (({}, 2**63 - 1, 2**63 - 1), "total"),
    ],
)
def test_an_emission_must_conserve(ledger, clock, payment, match):
    play(ledger, clock, range(1))
    head = ledger.head()
    with pytest.raises(ValueError, match=match):
        ledger.emit(1, *payment)
    assert ledger.head() == head


def test_bad_words_are_refused(ledger):
    ledger.register("ada", "memory://")
    for refused in (
        lambda: ledger.register(RESERVE, "memory://"),
        lambda: ledger.register("", "memory://"),
        lambda: ledger.register("a\nb", "memory://"),
        lambda: ledger.register("a" * 2000, "memory://"),
        lambda: ledger.register("\ud800", "memory://"),
        lambda: ledger.set_bucket(0, "eve", "memory://"),
        lambda: ledger.post_weights(0, "val", {"eve": 1.0}),
        lambda: ledger.post_weights(0, "val", {"ada": float("nan")}),
        lambda: ledger.post_weights(0, "val", {"ada": -0.5}),
        lambda: ledger.post_weights(-1, "val", {"ada": 1.0}),
        lambda: ledger.post_record(0, "AB" * 32),
        lambda: ledger.history("eve"),
    ):
        with pytest.raises(ValueError, match=r".+"):
            refused()
    assert ledger.verify() == 1


def test_a_transaction_is_kept_whole_or_not_at_all(tmp_path, clock):
    path = tmp_path / "ledger.sqlite"
    with SqliteLedger(path, clock) as ledger:
        play(ledger, clock, range(1))
        head = ledger.head()
        with pytest.raises(KeyError), ledger.transaction():
            ledger.post_record(1, DIGEST)
            ledger.emit(1, {"ada": 1}, 0, 1)
            raise KeyError
        assert (ledger.head(), ledger.record(1), ledger.balances()["ada"]) == (head, None, 60)
        ledger.post_record(1, DIGEST)
        assert ledger.verify() == 6
    with SqliteLedger(path, clock) as reopened:
        assert reopened.record(1) == DIGEST


def edit(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def unlocked(statement):
    """The statement of someone who takes the triggers away for its time."""
    body = "ON entries\nBEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    return [
        "DROP TRIGGER no_update",
        "DROP TRIGGER no_delete",
        statement,
        f"CREATE TRIGGER no_update BEFORE UPDATE {body}",
        f"CREATE TRIGGER no_delete BEFORE DELETE {body}",
    ]


@pytest.fixture
def path(tmp_path, clock):
    with SqliteLedger(tmp_path / "ledger.sqlite", clock) as ledger:
        play(ledger, clock, range(3))
        assert ledger.verify() == 11
    return tmp_path / "ledger.sqlite"


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        (
            "UPDATE entries SET body = replace(body, '60', '61') WHERE seq = 5",
            r"entry 5 \(emission, round 0\)",
        ),
        (
            "UPDATE entries SET body = replace(body, '0.75', '0.85') WHERE seq = 6",
            r"entry 6 \(weights, round 1, 'val'",
        ),
        ("UPDATE entries SET body = replace(body, 'a', 'b') WHERE seq = 7", r"entry 7 \(record, round 1\)"),
        (
            "UPDATE entries SET body = replace(body, 'ada', 'eve') WHERE seq = 1",
            r"entry 1 \(register, 'ada'\)",
        ),
        ("UPDATE entries SET body = body || ' ' WHERE seq = 11", "entry 11 .* was changed"),
        ("UPDATE entries SET at = at + 1e-9 WHERE seq = 3", "entry 3 .* was changed"),
        ("UPDATE entries SET round = 9 WHERE seq = 8", "entry 8 .* was changed"),
        ("UPDATE entries SET account = 'eve' WHERE seq = 2", "entry 2 .* was changed"),
        ("UPDATE entries SET kind = 'bonus' WHERE seq = 9", "entry 9 .* was changed"),
        ("UPDATE entries SET hash = replace(hash, '1', '2') WHERE seq = 4", "entry 4 .* was changed"),
        (
            "UPDATE entries SET previous_hash = hash WHERE seq = 4",
            "entry 4 .* does not name the entry before it",
        ),
        ("DELETE FROM entries WHERE seq = 6", "entry 6 is missing"),
        ("UPDATE entries SET seq = 12 WHERE seq = 5", "entry 5 is missing"),
        (
            "INSERT INTO entries SELECT 12, 'gift', 0, '', body, at, hash, hash FROM entries WHERE seq = 11",
            "entry 12",
        ),
        ("DROP VIEW payouts", "the definition of 'payouts' was changed"),
        ("CREATE TABLE notes (a)", "the definition of 'notes' was changed"),
    ],
)
def test_an_edit_by_hand_is_found(path, clock, statement, match):
    edit(path, *unlocked(statement))
    with SqliteLedger(path, clock) as ledger, pytest.raises(LedgerTampered, match=match):
        ledger.verify()


def test_append_only(path):
    for statement in ("UPDATE entries SET at = 0", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            edit(path, statement)
    edit(path, "DROP TRIGGER no_update")
    with SqliteLedger(path, Clock()) as ledger, pytest.raises(LedgerTampered, match="no_update"):
        ledger.verify()


def test_cutting_the_end_off_changes_the_head(path, clock):
    with SqliteLedger(path, clock) as ledger:
        head = ledger.head()
    edit(path, *unlocked("DELETE FROM entries WHERE seq = 11"))
    with SqliteLedger(path, clock) as ledger:
        assert ledger.verify() == 10
        assert ledger.head() != head


def test_damage_to_the_file_is_found(path, clock):
    data = bytearray(path.read_bytes())
    where = data.index(b'"ada":61')
    data[where + 7] ^= 1
    path.write_bytes(data)
    with (
        SqliteLedger(path, clock) as ledger,
        pytest.raises(LedgerTampered, match=r"entry 8 \(emission, round 1\)"),
    ):
        ledger.verify()


def test_views_for_a_reader_with_the_sqlite_shell(path):
    database = sqlite3.connect(path)
    assert database.execute("SELECT peer, sum(units) FROM payouts GROUP BY peer").fetchall() == [
        ("ada", 183),
        ("bob", 60),
    ]
    assert database.execute("SELECT sum(units) FROM reserve").fetchone() == (57,)
    assert database.execute("SELECT * FROM weights WHERE round = 1").fetchall() == [
        (1, "val", "ada", 0.75),
        (1, "val", "bob", 0.25),
    ]
    assert database.execute("SELECT * FROM peers").fetchall() == [
        ("ada", "memory://ada", 0.0),
        ("bob", "memory://bob", 0.0),
    ]
    assert database.execute("SELECT count(*) FROM records").fetchone() == (3,)
    database.close()


def test_what_is_no_ledger_gets_one_clear_line(tmp_path, clock):
    (tmp_path / "text").write_text("no database at all, but long enough to have a header" * 20)
    with pytest.raises(ValueError, match="file is not a database"):
        SqliteLedger(tmp_path / "text", clock)
    edit(tmp_path / "other", "CREATE TABLE entries (a)")
    with pytest.raises(ValueError, match="is no ledger of version 1"):
        SqliteLedger(tmp_path / "other", clock)
    with pytest.raises(OSError, match="cannot be opened"):
        SqliteLedger(tmp_path / "missing" / "ledger.sqlite", clock)


def test_a_full_disk_gets_one_clear_line(path, clock):
    with SqliteLedger(path, clock) as ledger:
        head = ledger.head()
        # The limit on pages stands in for the disk's end: SQLite reports both alike.
        pages = ledger.chain._database.execute("PRAGMA page_count").fetchone()[0]
        ledger.chain._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OSError, match="disk is full"), ledger.transaction():
            for round in range(3, 300):
                ledger.post_record(round, DIGEST)
        assert ledger.head() == head
        assert ledger.verify() == 11
