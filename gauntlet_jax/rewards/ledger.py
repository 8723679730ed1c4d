"""The ledger's contract: who takes part, what was decided in each round, and who was paid."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol

from gauntlet_jax.types import PeerId

RESERVE = "reserve"
"""The account of what nobody may have; no peer can register under this name."""


class LedgerConflict(ValueError):
    """Something else was already posted there: the first word of a ledger stands."""


class LedgerRefused(ValueError):
    """The ledger does not take a call; the text is its one line."""


class LedgerUnreachable(OSError):
    """The ledger gives no answer now; the same may be asked again later."""


class NotYetKnown(LedgerUnreachable):
    """A beacon was asked for before its time."""


class Registration(NamedTuple):
    """A registered peer or validator.

    Attributes:
      name: the node.
      bucket: where it uploads, as it says now.
      registered_at: seconds of the ledger's clock.
      public_key: that signs for it, 64 hexadecimal characters; "" in a simulation.
      slot: a peer's place in the assignment of data; None for a validator, and in a simulation.
      stake: a validator's, above 0; 0 for a peer.
      from_round: the first round that it takes part in.
    """

    name: PeerId
    bucket: str
    registered_at: float
    public_key: str = ""
    slot: int | None = None
    stake: float = 0.0
    from_round: int = 0


class Posting(NamedTuple):
    """A record that a validator posted.

    Attributes:
      round: t.
      validator: who posted it.
      digest: sha256 of the record, hexadecimal.
      payouts: units by peer.
      reserve: units that nobody gets.
      posted_at: seconds of the ledger's clock.
      start: when the round began, seconds of the same clock.
      final_at: when it became final; None while it can still be vetoed.
    """

    round: int
    validator: str
    digest: str
    payouts: Mapping[PeerId, int]
    reserve: int
    posted_at: float
    start: float
    final_at: float | None


class RunStatus(NamedTuple):
    """Where a shared run stands.

    Attributes:
      now: the ledger's time, Unix seconds.
      round: the newest round that has begun, and its number stays until the next one begins; None before round 0. One past
        the last says that the run is over.
      start: when that round began, seconds of the same clock.
      pending: the posting of that round that is not vetoed; it still can be, unless it has a ``final_at``.
      vetoed: validators whose postings of that round were vetoed.
      waiting_for: names that must register before the run begins.
    """

    now: float
    round: int | None
    start: float | None
    pending: Posting | None
    vetoed: tuple[str, ...]
    waiting_for: tuple[str, ...]


class Ledger(Protocol):
    """An append-only account of a run.

    Posting the same content again is no change, so a run that goes on from a checkpoint may repeat its
    rounds; posting other content in its place raises ``LedgerConflict``.
    """

    def now(self) -> float:
        """The ledger's time, seconds since the run's genesis."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """All that is posted inside is kept together, or none of it if the block raises."""
        ...

    def register(self, peer: PeerId, bucket: str) -> None:
        """Registers a peer with the bucket that it uploads to."""
        ...

    def peers(self) -> dict[PeerId, Registration]:
        """Registered peers by name, in the order of registration."""
        ...

    def set_bucket(self, round: int, peer: PeerId, bucket: str) -> None:
        """Moves a registered peer to another bucket from a round on."""
        ...

    def post_weights(self, round: int, validator: PeerId, weights: Mapping[PeerId, float]) -> None:
        """Posts a validator's incentives (>= 0) of registered peers for a round."""
        ...

    def weights(self, round: int) -> dict[PeerId, dict[PeerId, float]]:
        """The weights of a round by validator, then by peer."""
        ...

    def post_record(self, round: int, digest: str) -> None:
        """Posts the sha256 (hex) of a round's record: one record a round is final."""
        ...

    def record(self, round: int) -> str | None:
        """The digest of a round's record; None if there is none yet."""
        ...

    def emit(self, round: int, payouts: Mapping[PeerId, int], reserve: int, emission: int) -> None:
        """Pays a round's emission: ``sum(payouts) + reserve == emission``, integer units."""
        ...

    def balances(self) -> dict[str, int]:
        """Units by registered peer, and the reserve's under ``RESERVE``; they sum to all that was emitted."""
        ...

    def history(self, peer: PeerId) -> dict[int, int]:
        """Units that a peer was paid by round, for the rounds whose emission named it."""
        ...


class SharedLedger(Protocol):
    """A ledger between processes, as one registered node sees it: what it posts is signed with its key.

    Every call may be repeated: the same content again is no change. A call that is not taken raises ``LedgerRefused``; one
    that gets no answer, ``LedgerUnreachable``.
    """

    def now(self) -> float:
        """The ledger's time, seconds."""
        ...

    def terms(self) -> dict[str, Any]:
        """The run's terms, as its founder gave them, with the beacon's anchor."""
        ...

    def status(self) -> RunStatus:
        """Where the run stands."""
        ...

    def register_peer(self, name: PeerId, bucket: str) -> Registration:
        """Registers this key under a name; it takes part from the next round on."""
        ...

    def register_validator(self, name: str, bucket: str) -> Registration:
        """Registers this key as one of the run's validators."""
        ...

    def registrations(self, round: int | None) -> list[Registration]:
        """Who takes part in a round; None: everybody who is registered."""
        ...

    def post_weights(self, round: int, weights: Mapping[PeerId, float]) -> None:
        """Posts a validator's incentives of a round."""
        ...

    def post_record(self, round: int, digest: str, payouts: Mapping[PeerId, int], reserve: int) -> None:
        """Posts a validator's record, if it is its turn."""
        ...

    def reject_record(self, round: int, digest: str) -> None:
        """Rejects another validator's posted record."""
        ...

    def record(self, round: int) -> Posting | None:
        """The final record of a round; None if there is none yet."""
        ...

    def beacon(self, round: int, phase: Literal["opening", "closing"]) -> bytes:
        """A released beacon, 32 bytes; ``NotYetKnown`` before its time."""
        ...

    def balances(self) -> dict[str, int]:
        """Units by peer, and the reserve's."""
        ...
