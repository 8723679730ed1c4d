"""The ledger's contract: who takes part, what was decided in each round, and who was paid."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

from gauntlet_jax.types import PeerId

RESERVE = "reserve"
"""The account of what nobody may have; nobody can register under this name."""

REMAINDER = "remainder"
"""The account of the units that splitting whole numbers leaves over; nobody can register under this name."""


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
      until_round: the first round that it takes part in no more, where it gave up its slot; None while it holds it.
    """

    name: PeerId
    bucket: str
    registered_at: float
    public_key: str = ""
    slot: int | None = None
    stake: float = 0.0
    from_round: int = 0
    until_round: int | None = None


class Posting(NamedTuple):
    """A record that a validator posted.

    Attributes:
      round: t.
      validator: who posted it.
      digest: sha256 of the record, hexadecimal.
      posted_at: seconds of the ledger's clock.
      start: when the round began, seconds of the same clock.
      final_at: when it became final; None while it can still be vetoed.
    """

    round: int
    validator: str
    digest: str
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
      commits_close: until when commits to the weights of that round are taken, seconds of the same clock; reveals and records
        are taken from then on. None before round 0 and after the last.
    """

    now: float
    round: int | None
    start: float | None
    pending: Posting | None
    vetoed: tuple[str, ...]
    waiting_for: tuple[str, ...]
    commits_close: float | None = None


class Epoch(NamedTuple):
    """What a ledger made of the weights of one round.

    Attributes:
      round: t.
      consensus: C_j in [0, 1] by peer, and of ``RESERVE``.
      incentive: I_j by peer, and of ``RESERVE``; sums to 1, or all 0.
      trust: in [0, 1] by validator whose weights stood.
      dividends: D_i by validator; sums to 1, or all 0.
      bonds: u16 by validator, then by peer, without zeros: what the next epoch goes on from.
      payouts: units by peer and by validator, without zeros.
      reserve: units that nobody may have.
      remainder: units lost to flooring; with the payouts and the reserve they are the emission.
    """

    round: int
    consensus: Mapping[PeerId, float]
    incentive: Mapping[PeerId, float]
    trust: Mapping[str, float]
    dividends: Mapping[str, float]
    bonds: Mapping[str, Mapping[PeerId, int]]
    payouts: Mapping[str, int]
    reserve: int
    remainder: int

    @property
    def emission(self) -> int:
        """All that was given out, units."""
        return sum(self.payouts.values()) + self.reserve + self.remainder


class Ledger(Protocol):
    """A ledger that pays, as one registered node sees it: what it posts is signed with its key.

    Every call may be repeated: the same content again is no change. A call that is not taken raises ``LedgerRefused``; one
    that gets no answer, ``LedgerUnreachable``.

    Weights are committed to before they are shown: until the commits of a round are closed, nobody sees anybody's, so who copies
    is a round late. Weights stand until their validator shows newer ones, for some rounds at most.
    """

    def now(self) -> float:
        """The ledger's time, seconds."""
        ...

    def register_peer(self, name: PeerId, bucket: str) -> Registration:
        """Registers this key as a peer, or moves its bucket; it takes part from the next round on.

        Where all slots are taken, the peer that earned least in the newest epoch gives up its slot, unless it is new.
        """
        ...

    def register_validator(self, name: str, bucket: str) -> Registration:
        """Registers this key as a validator, or moves its bucket."""
        ...

    def registrations(self, round: int | None) -> list[Registration]:
        """Who takes part in a round, with the buckets of now; None: everybody who is registered."""
        ...

    def commit_weights(self, round: int, weights: Mapping[PeerId, float], salt: bytes) -> None:
        """Binds a validator to its weights of a round whose put window has closed.

        Args:
          round: t.
          weights: >= 0 by peer, and of ``RESERVE`` for what nobody may have; in any scale.
          salt: 32 bytes that nobody else knows.
        """
        ...

    def reveal_weights(self, round: int, weights: Mapping[PeerId, float], salt: bytes) -> None:
        """Shows the weights that this validator is bound to, once the commits of the round are closed."""
        ...

    def weights(self, round: int) -> dict[str, dict[PeerId, float]]:
        """The revealed weights of a round by validator, then by peer; each sums to 1, or is all 0."""
        ...

    def epoch(self, round: int) -> Epoch | None:
        """What the ledger made of a round's weights; None until then."""
        ...

    def beacon(self, round: int, phase: Literal["opening", "closing"]) -> bytes:
        """A released beacon, 32 bytes; ``NotYetKnown`` before its time."""
        ...

    def balances(self) -> dict[str, int]:
        """Units by account: registered peers and validators, ``RESERVE``, ``REMAINDER``, and keys that were given some."""
        ...

    def history(self, name: str) -> dict[int, int]:
        """Units that a peer or validator was paid by round, for the epochs that paid it."""
        ...


class SharedLedger(Ledger, Protocol):
    """A ledger that also keeps a run together between processes: its terms, its rounds, and one final record for each."""

    def terms(self) -> dict[str, Any]:
        """The run's terms, as its founder gave them, with the beacon's anchor."""
        ...

    def status(self) -> RunStatus:
        """Where the run stands."""
        ...

    def committed(self, round: int) -> tuple[str, ...]:
        """The validators that are bound to weights of a round, in the order of their commits."""
        ...

    def transfer(self, to: str, units: int) -> None:
        """Gives units of this node's account to another: a registered name's, or a public key's (64 hexadecimal digits)."""
        ...

    def post_record(self, round: int, digest: str) -> None:
        """Posts a validator's record, if it is its turn and the commits to weights are closed."""
        ...

    def reject_record(self, round: int, digest: str) -> None:
        """Rejects another validator's posted record."""
        ...

    def record(self, round: int) -> Posting | None:
        """The final record of a round; None if there is none yet."""
        ...

    def vetoes(self, round: int) -> dict[str, str]:
        """Whose records of a final round were vetoed, and why: their weights had no say in its epoch."""
        ...
