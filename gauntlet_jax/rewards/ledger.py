"""The ledger's contract: who takes part, what was decided in each round, and who was paid."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from gauntlet_jax.types import PeerId

RESERVE = "reserve"
"""The account of what nobody may have; no peer can register under this name."""


class LedgerConflict(ValueError):
    """Something else was already posted there: the first word of a ledger stands."""


class Registration(NamedTuple):
    """A registered peer.

    Attributes:
      name: the peer.
      bucket: where it uploads, as it says now.
      registered_at: seconds since the run's genesis.
    """

    name: PeerId
    bucket: str
    registered_at: float


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
