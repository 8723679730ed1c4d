"""A ledger in one SQLite file: a call is an entry of a hash-chained table, and answers are read from it."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from gauntlet_jax.rewards.hash_chain import HashChain
from gauntlet_jax.rewards.ledger import RESERVE, Registration
from gauntlet_jax.types import PeerId

_MAX_INTEGER = 2**63 - 1
_MAX_TEXT = 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


class SqliteLedger:
    """A ``Ledger`` in one SQLite file, or in memory; one writer at a time.

    Equal calls under equal clocks give equal heads, whether a run went through or was resumed on the way.
    """

    def __init__(self, path: Path | str, clock: Callable[[], float], *, durable: bool = False) -> None:
        """Opens a ledger, creating it if need be.

        Args:
          path: a file, or ":memory:".
          clock: seconds since the run's genesis.
          durable: whether what was posted survives a power cut at once.

        Raises:
          OSError: the file cannot be opened.
          ValueError: the file is no ledger of this version.
        """
        self._clock = clock
        self.chain = HashChain(path, clock, durable=durable)

    def close(self) -> None:
        """Closes the file."""
        self.chain.close()

    def flush(self) -> None:
        """Brings all entries to the disk: for before a checkpoint that a run is to go on from.

        Raises:
          OSError: the disk is full.
        """
        self.chain.flush()

    def __enter__(self) -> "SqliteLedger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def now(self) -> float:
        """The clock's time, seconds since the run's genesis."""
        return self._clock()

    def transaction(self) -> AbstractContextManager[None]:
        """All that is posted inside is kept together, or none of it if the block raises; may be nested."""
        return self.chain.transaction()

    def register(self, peer: PeerId, bucket: str) -> None:
        """Registers a peer with the bucket that it uploads to.

        Raises:
          LedgerConflict: it is registered with another bucket.
          ValueError: the name is empty, too long, unprintable or the reserve's.
        """
        if _text("peer", peer) == RESERVE:
            raise ValueError(f"no peer can be called {RESERVE!r}")
        self.chain.post("register", None, peer, {"bucket": _text("bucket", bucket)})

    def peers(self) -> dict[PeerId, Registration]:
        """Registered peers by name, in the order of registration."""
        moved = {entry.account: entry.body["bucket"] for entry in self.chain.entries("bucket")}
        return {
            entry.account: Registration(
                entry.account, moved.get(entry.account, entry.body["bucket"]), entry.at
            )
            for entry in self.chain.entries("register")
        }

    def set_bucket(self, round: int, peer: PeerId, bucket: str) -> None:
        """Moves a registered peer to another bucket from a round on.

        Raises:
          LedgerConflict: in that round it moved to another one.
          ValueError: the peer is not registered.
        """
        self._check_registered([peer])
        self.chain.post("bucket", _integer("round", round), peer, {"bucket": _text("bucket", bucket)})

    def post_weights(self, round: int, validator: PeerId, weights: Mapping[PeerId, float]) -> None:
        """Posts a validator's weights of a round.

        Args:
          round: t.
          validator: whose they are.
          weights: finite and >= 0, of registered peers.

        Raises:
          LedgerConflict: it posted others for that round.
          ValueError: a weight is negative or not finite, or a peer is not registered.
        """
        self._check_registered(weights)
        numbers = {peer: float(weight) for peer, weight in weights.items()}
        if not all(math.isfinite(weight) and weight >= 0 for weight in numbers.values()):
            raise ValueError(f"weights of round {round} by {validator}: must be finite and at least 0")
        self.chain.post(
            "weights", _integer("round", round), _text("validator", validator), {"weights": numbers}
        )

    def weights(self, round: int) -> dict[PeerId, dict[PeerId, float]]:
        """The weights of a round by validator, then by peer."""
        return {entry.account: entry.body["weights"] for entry in self.chain.entries("weights", round)}

    def post_record(self, round: int, digest: str) -> None:
        """Posts the digest of a round's record: one record a round is final.

        Args:
          round: t.
          digest: sha256, 64 hexadecimal characters.

        Raises:
          LedgerConflict: the round has another record.
          ValueError: the digest is no sha256.
        """
        if _SHA256.fullmatch(digest) is None:
            raise ValueError(f"record of round {round}: {digest[:80]!r} is no sha256")
        self.chain.post("record", _integer("round", round), "", {"digest": digest})

    def record(self, round: int) -> str | None:
        """The digest of a round's record; None if there is none yet."""
        entry = self.chain.find("record", round, "")
        return None if entry is None else entry.body["digest"]

    def emit(self, round: int, payouts: Mapping[PeerId, int], reserve: int, emission: int) -> None:
        """Pays a round's emission.

        Args:
          round: t.
          payouts: units >= 0 by registered peer.
          reserve: units >= 0 that go to the reserve.
          emission: what they sum to. All emissions together stay below 2**63.

        Raises:
          LedgerConflict: the round was paid otherwise.
          ValueError: a number is negative, too large or no integer, the sum is another, or a peer is not
            registered.
        """
        units = {peer: _integer(f"payout of {peer}", amount) for peer, amount in payouts.items()}
        body = {
            "payouts": units,
            "reserve": _integer("reserve", reserve),
            "emission": _integer("emission", emission),
        }
        paid = sum(units.values()) + reserve
        if paid != emission:
            raise ValueError(
                f"emission of round {round}: payouts and reserve sum to {paid}, not to {emission}"
            )
        self._check_registered(payouts)
        with self.transaction():
            # An entry carries the total up to itself, so that the bound needs no sum over all rounds.
            standing, newest = self.chain.find("emission", round, ""), self.chain.newest("emission")
            before = 0 if newest is None else newest.body["total"]
            total = before + emission if standing is None else standing.body["total"]
            self.chain.post(
                "emission", _integer("round", round), "", {**body, "total": _integer("total", total)}
            )

    def balances(self) -> dict[str, int]:
        """Units by registered peer, and the reserve's under ``RESERVE``; they sum to all that was emitted."""
        accounts = {entry.account: 0 for entry in self.chain.entries("register")}
        accounts[RESERVE] = 0
        for entry in self.chain.entries("emission"):
            accounts[RESERVE] += entry.body["reserve"]
            for peer, units in entry.body["payouts"].items():
                accounts[peer] += units
        return accounts

    def history(self, peer: PeerId) -> dict[int, int]:
        """Units that a peer was paid by round, for the rounds whose emission named it.

        Raises:
          ValueError: the peer is not registered.
        """
        self._check_registered([peer])
        paid = ((entry.round, entry.body["payouts"]) for entry in self.chain.entries("emission"))
        return {round: payouts[peer] for round, payouts in paid if round is not None and peer in payouts}

    def head(self) -> str:
        """Hash of the newest entry: it stands for the whole ledger."""
        return self.chain.head()

    def verify(self) -> int:
        """Recomputes the chain from its beginning.

        Returns:
          How many entries there are, all sound.

        Raises:
          LedgerTampered: an entry was changed, removed or put in; the line names the first.
        """
        return self.chain.verify()

    def _check_registered(self, peers: Iterable[PeerId]) -> None:
        for peer in peers:
            if self.chain.find("register", None, peer) is None:
                raise ValueError(f"peer {peer!r} is not registered")


def _integer(what: str, number: int) -> int:
    if type(number) is not int or not 0 <= number <= _MAX_INTEGER:
        raise ValueError(f"{what}: {number!r} must be an integer between 0 and 2**63 - 1")
    return number


def _text(what: str, text: str) -> str:
    if not 0 < len(text) <= _MAX_TEXT or not text.isprintable():
        raise ValueError(f"{what} {text[:80]!r}: must be 1 to {_MAX_TEXT} printable characters")
    return text
