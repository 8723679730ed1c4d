import contextlib
import sqlite3

import pytest

from gauntlet_jax.rewards.epoch import WEIGHTS_STAND
from gauntlet_jax.rewards.hash_chain import GENESIS, LedgerTampered
from gauntlet_jax.rewards.ledger import REMAINDER, RESERVE, LedgerConflict, Registration
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.rewards.weight_commit import weights_digest

DIGEST = "ab" * 32
PEERS = ["ada", "bob"]


class Clock:
    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


STAKES = {"val": 3.0, "wal": 1.0}
SALT = bytes(32)


def post(ledger, round, rows):
    """Commits of all, and then what each shows."""
    for validator, row in rows.items():
        ledger.commit_weights(round, validator, weights_digest(round, validator, row, SALT))
    for validator, row in rows.items():
        ledger.reveal_weights(round, validator, row, SALT)


def play(ledger, clock, rounds):
    """Posts some rounds the way a run does; the clock depends on the round alone."""
    clock.time = 0.0
    for validator, stake in STAKES.items():
        ledger.register_validator(validator, stake)
    for peer in PEERS:
        ledger.register(peer, f"memory://{peer}")
    for round in rounds:
        clock.time = 10.0 * round
        with ledger.transaction():
            post(ledger, round, {"val": {"ada": 3.0, "bob": 1.0}, "wal": {"ada": 1.0}})
            ledger.post_record(round, DIGEST)
            ledger.run_epoch(round, PEERS, 100)


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
    assert list(ledger.peers()) == PEERS
    assert ledger.validators() == STAKES
    assert ledger.weights(1) == {"val": {"ada": 0.75, "bob": 0.25}, "wal": {"ada": 1.0}}
    assert ledger.weights(7) == {}
    assert (ledger.record(2), ledger.record(3)) == (DIGEST, None)
    # val has 3/4 of the stake, so its word is the consensus: I = 0.75, 0.25 of what is left, 0.75 + 0.25 * 0.75 for ada.
    epoch = ledger.epoch(1)
    assert epoch.consensus == {"ada": 0.75, "bob": 0.25, RESERVE: 0.0}
    assert epoch.trust == {"val": 1.0, "wal": 0.75}
    assert epoch.incentive == {"ada": 0.8, "bob": 0.2, RESERVE: 0.0}
    assert ledger.epoch(3) is None
    # Half of 100 for the peers. Of ada val holds 3/4, of bob all: 0.8 * 0.75 + 0.2 = 0.8 of the other half.
    assert (epoch.payouts, epoch.reserve, epoch.emission) == (
        {"ada": 40, "bob": 10, "val": 40, "wal": 10},
        0,
        100,
    )
    assert ledger.history("ada") == {0: 40, 1: 40, 2: 40}
    assert ledger.history("wal") == {0: 10, 1: 10, 2: 10}
    assert ledger.balances() == {"val": 120, "wal": 30, "ada": 120, "bob": 30, RESERVE: 0, REMAINDER: 0}
    assert ledger.now() == 20.0
    assert ledger.verify() == 4 + 3 * 7 + 1


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
    other = {"ada": 1.0, "bob": 1.0}
    for say_otherwise in (
        lambda: ledger.register("ada", "memory://other"),
        lambda: ledger.register_validator("val", 4.0),
        lambda: ledger.commit_weights(1, "val", weights_digest(1, "val", other, SALT)),
        lambda: ledger.post_record(1, "cd" * 32),
        lambda: ledger.run_epoch(1, PEERS, 101),
        lambda: ledger.run_epoch(1, ["ada"], 100),
    ):
        with pytest.raises(LedgerConflict, match="already says something else"):
            say_otherwise()
    assert (ledger.head(), ledger.balances()) == (head, balances)


def test_an_epoch_once_run_is_run_again_freely(ledger, clock):
    play(ledger, clock, range(3))
    head, second = ledger.head(), ledger.epoch(1)
    assert ledger.run_epoch(1, PEERS, 100) == second
    assert ledger.head() == head
    with pytest.raises(ValueError, match="comes after the one of round 3"):
        ledger.run_epoch(4, PEERS, 100)
    with pytest.raises(ValueError, match="'eve' is not registered"):
        ledger.run_epoch(3, ["eve"], 100)
    assert ledger.head() == head


@pytest.mark.parametrize("emission", [-1, 100.0, True, 2**63])
def test_an_emission_is_whole_units(ledger, clock, emission):
    play(ledger, clock, range(1))
    head = ledger.head()
    with pytest.raises(ValueError, match="emission"):
        ledger.run_epoch(1, PEERS, emission)
    assert ledger.head() == head


def test_there_are_at_most_so_many_units(ledger, clock):
    play(ledger, clock, range(1))
    head = ledger.head()
    with pytest.raises(ValueError, match="total"):
        ledger.run_epoch(1, PEERS, 2**63 - 100)
    assert ledger.head() == head
    assert ledger.run_epoch(1, PEERS, 2**63 - 101).emission == 2**63 - 101
    assert sum(ledger.balances().values()) == 2**63 - 1


def test_weights_are_shown_as_they_were_committed_to(ledger, clock):
    play(ledger, clock, range(1))
    row = {"ada": 1.0, "bob": 2.0}
    digest = weights_digest(1, "val", row, SALT)
    ledger.commit_weights(1, "val", digest)
    ledger.commit_weights(1, "val", digest)
    # To copy the commit is to be bound to what nobody can show in another's name.
    ledger.commit_weights(1, "wal", digest)
    for validator, shown, salt, match in (
        ("val", {"ada": 1.0, "bob": 2.0000000000000004}, SALT, "commit is to others"),
        ("val", row, b"x" * 32, "commit is to others"),
        ("val", row, b"x", "32 bytes"),
        ("val", {**row, "eve": 0.0}, SALT, "'eve' is not registered"),
        ("wal", row, SALT, "commit is to others"),
        ("ada", row, SALT, "no commit"),
    ):
        with pytest.raises(ValueError, match=match):
            ledger.reveal_weights(1, validator, shown, salt)
    assert ledger.weights(1) == {}
    ledger.reveal_weights(1, "val", row, SALT)
    ledger.reveal_weights(1, "val", row, SALT)
    assert ledger.weights(1) == {"val": {"ada": 1 / 3, "bob": 2 / 3}}


def test_nobody_commits_once_others_have_shown(ledger, clock):
    play(ledger, clock, range(1))
    post(ledger, 1, {"val": {"ada": 1.0}})
    with pytest.raises(ValueError, match="others have shown"):
        ledger.commit_weights(1, "wal", DIGEST)


def test_weights_of_any_size_have_a_sum(ledger, clock):
    play(ledger, clock, range(1))
    largest, least = 1.7e308, 5e-324
    for round, row, shares in (
        (1, {"ada": largest, "bob": largest}, {"ada": 0.5, "bob": 0.5}),
        (2, {"ada": least, "bob": least}, {"ada": 0.5, "bob": 0.5}),
        (3, {"ada": largest, "bob": least}, {"ada": 1.0, "bob": 0.0}),
        (4, {"ada": 0.0, "bob": 0.0}, {"ada": 0.0, "bob": 0.0}),
        (5, {}, {}),
        (6, {"ada": 0.1, "bob": 0.2}, {"ada": 0.1 / (0.1 + 0.2), "bob": 0.2 / (0.1 + 0.2)}),
    ):
        post(ledger, round, {"val": row})
        assert ledger.weights(round) == {"val": shares}
        assert ledger.run_epoch(round, PEERS, 7).emission == 7


def test_weights_stand_for_some_rounds(ledger, clock):
    play(ledger, clock, range(1))
    post(ledger, 1, {"val": {"bob": 1.0}})
    for round in range(1, WEIGHTS_STAND + 2):
        standing = ledger.standing_weights(round)
        assert standing.get("val") == ({"bob": 1.0} if round <= WEIGHTS_STAND else None)
        assert standing.get("wal") == ({"ada": 1.0} if round < WEIGHTS_STAND else None)


def test_bad_words_are_refused(ledger):
    ledger.register("ada", "memory://")
    ledger.register_validator("val", 1.0)
    for refused in (
        lambda: ledger.register(RESERVE, "memory://"),
        lambda: ledger.register("", "memory://"),
        lambda: ledger.register("a\nb", "memory://"),
        lambda: ledger.register("a" * 2000, "memory://"),
        lambda: ledger.register("\ud800", "memory://"),
        lambda: ledger.set_bucket(0, "eve", "memory://"),
        lambda: ledger.register("val", "memory://"),
        lambda: ledger.register(REMAINDER, "memory://"),
        lambda: ledger.register_validator("ada", 1.0),
        lambda: ledger.register_validator(RESERVE, 1.0),
        lambda: ledger.register_validator("wal", 0.0),
        lambda: ledger.register_validator("wal", float("inf")),
        lambda: ledger.commit_weights(0, "ada", DIGEST),
        lambda: ledger.commit_weights(0, "val", "AB" * 32),
        lambda: ledger.commit_weights(-1, "val", DIGEST),
        lambda: weights_digest(0, "val", {"ada": float("nan")}, SALT),
        lambda: weights_digest(0, "val", {"ada": -0.5}, SALT),
        lambda: weights_digest(0, "val", {"ada": 10**400}, SALT),
        lambda: ledger.post_record(0, "AB" * 32),
        lambda: ledger.history("eve"),
    ):
        with pytest.raises(ValueError, match=r".+"):
            refused()
    assert ledger.verify() == 2


def test_a_transaction_is_kept_whole_or_not_at_all(tmp_path, clock):
    path = tmp_path / "ledger.sqlite"
    with SqliteLedger(path, clock) as ledger:
        play(ledger, clock, range(1))
        head = ledger.head()
        with pytest.raises(KeyError), ledger.transaction():
            ledger.post_record(1, DIGEST)
            ledger.run_epoch(1, PEERS, 100)
            assert ledger.balances()["ada"] == 80
            raise KeyError
        assert (ledger.head(), ledger.record(1), ledger.balances()["ada"]) == (head, None, 40)
        ledger.post_record(1, DIGEST)
        assert ledger.verify() == 12
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
        assert ledger.verify() == 25
    return tmp_path / "ledger.sqlite"


@pytest.mark.parametrize(
    ("statement", "match"),
    [
        (
            "UPDATE entries SET body = replace(body, '40', '41') WHERE seq = 11",
            r"entry 11 \(emission, round 0\)",
        ),
        (
            "UPDATE entries SET body = replace(body, '0.75', '0.85') WHERE seq = 10",
            r"entry 10 \(epoch, round 0\)",
        ),
        (
            "UPDATE entries SET body = replace(body, '3.0', '3.1') WHERE seq = 14",
            r"entry 14 \(weights, round 1, 'val'",
        ),
        ("UPDATE entries SET body = replace(body, 'a', 'b') WHERE seq = 12", "entry 12 .commit, round 1"),
        ("UPDATE entries SET body = replace(body, 'a', 'b') WHERE seq = 16", r"entry 16 \(record, round 1\)"),
        (
            "UPDATE entries SET body = replace(body, '3.0', '9.0') WHERE seq = 1",
            r"entry 1 \(validator, 'val'\)",
        ),
        ("UPDATE entries SET body = body || ' ' WHERE seq = 25", "entry 25 .* was changed"),
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
        ("UPDATE entries SET seq = 26 WHERE seq = 5", "entry 5 is missing"),
        (
            "INSERT INTO entries SELECT 26, 'gift', 0, '', body, at, hash, hash FROM entries WHERE seq = 25",
            "entry 26",
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
    edit(path, *unlocked("DELETE FROM entries WHERE seq = 25"))
    with SqliteLedger(path, clock) as ledger:
        assert ledger.verify() == 24
        assert ledger.head() != head


def test_damage_to_the_file_is_found(path, clock):
    data = bytearray(path.read_bytes())
    where = data.index(b'"ada":40')
    data[where + 7] ^= 1
    path.write_bytes(data)
    with (
        SqliteLedger(path, clock) as ledger,
        pytest.raises(LedgerTampered, match=r"entry \d+ \(emission, round \d\)"),
    ):
        ledger.verify()


def test_views_for_a_reader_with_the_sqlite_shell(path):
    database = sqlite3.connect(path)

    def read(text):
        return database.execute(text).fetchall()

    assert read("SELECT account, sum(units) FROM payouts GROUP BY account") == [
        ("ada", 120),
        ("bob", 30),
        ("val", 120),
        ("wal", 30),
    ]
    assert read("SELECT sum(reserve), sum(remainder) FROM unpaid") == [(0, 0)]
    assert read("SELECT * FROM weights WHERE round = 1") == [
        (1, "val", "ada", 3.0),
        (1, "val", "bob", 1.0),
        (1, "wal", "ada", 1.0),
    ]
    assert read("SELECT * FROM peers") == [("ada", "memory://ada", 0.0), ("bob", "memory://bob", 0.0)]
    assert read("SELECT * FROM validators") == [("val", 3.0), ("wal", 1.0)]
    assert read("SELECT * FROM consensus WHERE round = 2") == [
        (2, "ada", 0.75, 0.8),
        (2, "bob", 0.25, 0.2),
        (2, RESERVE, 0.0, 0.0),
    ]
    assert read("SELECT * FROM agreement WHERE round = 2") == [
        (2, "val", 1.0, 0.8),
        (2, "wal", 0.75, pytest.approx(0.2)),
    ]
    assert read("SELECT count(*) FROM records") == [(3,)]
    database.close()


def test_what_is_no_ledger_gets_one_clear_line(tmp_path, clock):
    (tmp_path / "text").write_text("no database at all, but long enough to have a header" * 20)
    with pytest.raises(ValueError, match="file is not a database"):
        SqliteLedger(tmp_path / "text", clock)
    edit(tmp_path / "other", "CREATE TABLE entries (a)")
    with pytest.raises(ValueError, match="is no ledger of version 2"):
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
        assert ledger.verify() == 25
