"""An append-only table in one SQLite file whose entries are chained by their hashes.

``hash_n = sha256(hash_{n-1} | canonical JSON of [n, kind, round, account, body, at])``

Whoever edits, removes or reorders an entry breaks the chain from there on, and ``verify`` names the entry. To
cut off the newest entries, or to write the whole chain anew, leaves a sound chain with another ``head``:
compare that with a copy kept elsewhere. Everything else in the file is a view of that table.
"""

import contextlib
import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gauntlet_jax.rewards.ledger import LedgerConflict

GENESIS = "0" * 64
"""What the first entry is chained to."""

_APPLICATION_ID = 0x47415554  # "GAUT"
_VERSION = 2

_SCHEMA = {
    "entries": """CREATE TABLE entries (
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, round INTEGER, account TEXT NOT NULL, body TEXT NOT NULL,
  at REAL NOT NULL, previous_hash TEXT NOT NULL, hash TEXT NOT NULL)""",
    "one_word": "CREATE UNIQUE INDEX one_word ON entries (kind, ifnull(round, -1), account)",
    "no_update": """CREATE TRIGGER no_update BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    "no_delete": """CREATE TRIGGER no_delete BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END""",
    "peers": """CREATE VIEW peers AS
SELECT account AS peer, coalesce((SELECT json_extract(moved.body, '$.bucket') FROM entries AS moved
  WHERE moved.kind = 'bucket' AND moved.account = entries.account ORDER BY moved.round DESC LIMIT 1),
  json_extract(body, '$.bucket')) AS bucket, at AS registered_at
FROM entries WHERE kind = 'register' ORDER BY seq""",
    "validators": """CREATE VIEW validators AS
SELECT account AS validator, json_extract(body, '$.stake') AS stake FROM entries WHERE kind = 'validator' ORDER BY seq""",
    "weights": """CREATE VIEW weights AS
SELECT round, account AS validator, item.key AS peer, item.value AS weight
FROM entries, json_each(body, '$.weights') AS item WHERE kind = 'weights'""",
    "records": """CREATE VIEW records AS
SELECT round, json_extract(body, '$.digest') AS digest FROM entries WHERE kind = 'record'""",
    "payouts": """CREATE VIEW payouts AS
SELECT round, item.key AS account, item.value AS units
FROM entries, json_each(body, '$.payouts') AS item WHERE kind = 'emission'""",
    "unpaid": """CREATE VIEW unpaid AS
SELECT round, json_extract(body, '$.reserve') AS reserve, json_extract(body, '$.remainder') AS remainder
FROM entries WHERE kind = 'emission'""",
    "consensus": """CREATE VIEW consensus AS
SELECT round, item.key AS peer, item.value AS consensus, json_extract(body, '$.incentive."' || item.key || '"') AS incentive
FROM entries, json_each(body, '$.consensus') AS item WHERE kind = 'epoch'""",
    "agreement": """CREATE VIEW agreement AS
SELECT round, item.key AS validator, item.value AS trust, json_extract(body, '$.dividends."' || item.key || '"') AS dividends
FROM entries, json_each(body, '$.trust') AS item WHERE kind = 'epoch'""",
}

# Only where signed calls are taken: no entries, for they say nothing about the run.
_NONCES = {"nonces": "CREATE TABLE nonces (key TEXT PRIMARY KEY, nonce INTEGER NOT NULL)"}


class LedgerTampered(ValueError):
    """Something other than this class changed the ledger's file; the text names the first such entry."""


class Entry(NamedTuple):
    """One entry.

    Attributes:
      round: t, or None for what belongs to no round.
      account: whose word it is; "" where there is one for all.
      body: its content.
      at: when it was posted, seconds since the run's genesis.
    """

    round: int | None
    account: str
    body: dict[str, Any]
    at: float


class HashChain:
    """The table; one writer at a time.

    An entry is known by (kind, round, account): its first content stands.
    """

    def __init__(self, path: Path | str, clock: Callable[[], float], *, durable: bool = False) -> None:
        """Opens the file, creating it if need be.

        Args:
          path: a file, or ":memory:".
          clock: seconds since the run's genesis; it goes into the chain.
          durable: whether an entry is on the disk when posting it returns.

        Raises:
          OSError: the file cannot be opened.
          ValueError: the file is no ledger of this version.
        """
        self._path = str(path)
        self._durable = durable
        self._clock = clock
        self._depth = 0
        with self._failures("cannot be opened"):
            # Transactions are begun and committed here alone, never behind our back.
            self._database = sqlite3.connect(self._path, isolation_level=None)
        try:
            with self._failures("cannot be opened"):
                self._prepare()
        except (OSError, ValueError):
            self._database.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def flush(self) -> None:
        """Brings all entries to the disk, so that a power cut takes none of them.

        Raises:
          OSError: the disk is full.
        """
        with self._failures("cannot be written"):
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is posted inside is kept together, or none of it if the block raises; may be nested.

        Raises:
          OSError: the disk is full or the file is locked by another writer.
        """
        if self._depth == 0:
            with self._failures("cannot be written"):
                self._database.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
            if self._depth == 1:
                with self._failures("cannot be written"):
                    self._database.execute("COMMIT")
        finally:
            self._depth -= 1
            if self._depth == 0 and self._database.in_transaction:
                self._database.execute("ROLLBACK")

    @property
    def in_transaction(self) -> bool:
        """Whether what was posted last may still be undone."""
        return self._depth > 0

    def post(self, kind: str, round: int | None, account: str, body: Mapping[str, Any]) -> bool:
        """Appends an entry; to post the same content again is no change.

        Returns:
          Whether it is new.

        Raises:
          LedgerConflict: another content stands there.
          OSError: the disk is full or the file is locked by another writer.
        """
        text = _canonical(body)
        with self.transaction(), self._failures("cannot be written"):
            standing = self.find(kind, round, account)
            if standing is not None:
                if _canonical(standing.body) != text:
                    raise LedgerConflict(
                        f"{self._path}: {_told(kind, round, account)} already says something else"
                    )
                return False
            at = self._clock()
            if not math.isfinite(at):
                raise ValueError(f"{self._path}: the clock says {at}")
            # SQLite does not keep the sign of zero.
            at = float(at) + 0.0
            seq, previous = self._newest()
            row = [seq + 1, kind, round, account, text, at]
            self._database.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [*row, previous, _hash(previous, row)]
            )
        return True

    def find(self, kind: str, round: int | None, account: str) -> Entry | None:
        """The entry of that kind, round and account; None if there is none."""
        row = self._database.execute(
            "SELECT round, account, body, at FROM entries"
            " WHERE kind = ? AND ifnull(round, -1) = ifnull(?, -1) AND account = ?",
            [kind, round, account],
        ).fetchone()
        return None if row is None else _entry(row)

    def entries(self, kind: str, round: int | None = None) -> list[Entry]:
        """The entries of a kind (and round, if given), by round and then in the order of posting."""
        # The index is of this expression, and only an equation uses it.
        where, values = (
            ("kind = ?", [kind]) if round is None else ("kind = ? AND ifnull(round, -1) = ?", [kind, round])
        )
        rows = self._database.execute(
            f"SELECT round, account, body, at FROM entries WHERE {where} ORDER BY round, seq", values
        )
        return [_entry(row) for row in rows]

    def kinds(self) -> list[str]:
        """The kinds of entries that there are."""
        rows = self._database.execute("SELECT DISTINCT kind FROM entries ORDER BY kind")
        return [row[0] for row in rows]

    def newest_round(self) -> int | None:
        """The largest round that any entry names; None without one."""
        return self._database.execute("SELECT max(round) FROM entries").fetchone()[0]

    def since(self, seq: int, kinds: Sequence[str]) -> list[tuple[int, str, Entry]]:
        """The entries of some kinds after entry number ``seq``, in the order of posting, each with its number and kind."""
        marks = ", ".join("?" * len(kinds))
        rows = self._database.execute(
            f"SELECT seq, kind, round, account, body, at FROM entries WHERE seq > ? AND kind IN ({marks}) ORDER BY seq",
            [seq, *kinds],
        )
        return [(number, kind, _entry(tuple(row))) for number, kind, *row in rows]

    def first_hash(self) -> str:
        """Hash of the first entry, which tells this table from every other; ``GENESIS`` for an empty one."""
        row = self._database.execute("SELECT hash FROM entries WHERE seq = 1").fetchone()
        return GENESIS if row is None else row[0]

    def newest(self, kind: str) -> Entry | None:
        """The entry of a kind that was posted last; None if there is none."""
        row = self._database.execute(
            "SELECT round, account, body, at FROM entries WHERE kind = ? ORDER BY seq DESC LIMIT 1", [kind]
        ).fetchone()
        return None if row is None else _entry(row)

    def nonce(self, key: str) -> int:
        """The newest nonce that a key has used; -1 before its first."""
        if not self._has_nonces():
            return -1
        row = self._database.execute("SELECT nonce FROM nonces WHERE key = ?", [key]).fetchone()
        return -1 if row is None else row[0]

    def keep_nonce(self, key: str, nonce: int) -> None:
        """Notes the newest nonce of a key, which belongs into the transaction of what it came with.

        Raises:
          OSError: the disk is full or the file is locked by another writer.
        """
        with self.transaction(), self._failures("cannot be written"):
            if not self._has_nonces():
                self._database.execute(_NONCES["nonces"])
            self._database.execute("INSERT OR REPLACE INTO nonces VALUES (?, ?)", [key, nonce])

    def head(self) -> str:
        """Hash of the newest entry: it stands for the whole table (``GENESIS`` for an empty one)."""
        return self._newest()[1]

    def verify(self) -> int:
        """Recomputes the chain from its beginning.

        Returns:
          How many entries there are, all sound.

        Raises:
          LedgerTampered: an entry was changed, removed or put in; the line names the first.
        """
        count, previous = 0, GENESIS
        try:
            # First, or what is read as a table of entries may be anything.
            self._check_schema()
            for *row, claimed, stored in self._database.execute("SELECT * FROM entries ORDER BY seq"):
                seq, kind, round, account = row[:4]
                if any(isinstance(value, bytes) for value in (*row, claimed, stored)):
                    raise LedgerTampered(f"{self._path}: entry {count + 1} is not made of text and numbers")
                where = f"{self._path}: entry {seq} ({_told(kind, round, account)})"
                if seq != count + 1:
                    raise LedgerTampered(f"{self._path}: entry {count + 1} is missing")
                if stored != _hash(previous, row):
                    raise LedgerTampered(f"{where} was changed")
                if claimed != previous:
                    raise LedgerTampered(f"{where} does not name the entry before it")
                count, previous = seq, stored
        except sqlite3.DatabaseError as error:
            raise LedgerTampered(f"{self._path}: after entry {count} the file is damaged: {error}") from error
        return count

    def _newest(self) -> tuple[int, str]:
        row = self._database.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        return (0, GENESIS) if row is None else row

    def _prepare(self) -> None:
        stamp = [
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        ]
        empty = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not empty and stamp != [_APPLICATION_ID, _VERSION]:
            raise ValueError(f"{self._path} is no ledger of version {_VERSION}")
        self._database.execute("PRAGMA journal_mode = WAL")
        # Unless it is durable, a power cut may take the newest entries, never the soundness; ``flush`` is for those that must
        # stay. What was said to others must always stay.
        self._database.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        if empty:
            with self.transaction():
                for statement in _SCHEMA.values():
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._database.execute(f"PRAGMA user_version = {_VERSION}")

    def _has_nonces(self) -> bool:
        return (
            self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'nonces'").fetchone() is not None
        )

    def _check_schema(self) -> None:
        found = dict(
            self._database.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        )
        schema = _SCHEMA | (_NONCES if "nonces" in found else {})
        for name in sorted(found.keys() | schema.keys()):
            if found.get(name) != schema.get(name):
                raise LedgerTampered(f"{self._path}: the definition of {name!r} was changed")
        problem = self._database.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if problem != "ok":
            raise LedgerTampered(f"{self._path}: the file is damaged: {problem.splitlines()[-1]}")

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OSError(f"ledger {self._path} {what}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(f"ledger {self._path} {what}: {error}") from error


def _canonical(body: Mapping[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _hash(previous: str, row: list[Any]) -> str:
    return hashlib.sha256(f"{previous}|{json.dumps(row, separators=(',', ':'))}".encode()).hexdigest()


def _entry(row: tuple[int | None, str, str, float]) -> Entry:
    round, account, body, at = row
    return Entry(round, account, json.loads(body), at)


def _told(kind: str, round: int | None, account: str) -> str:
    told = [kind, *([] if round is None else [f"round {round}"]), *([repr(account)] if account else [])]
    return ", ".join(told)
