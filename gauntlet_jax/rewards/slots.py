"""The slots of a run's peers: how one is had, and who gives up its own where all are taken."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from gauntlet_jax.rewards.ledger import LedgerRefused
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.types import PeerId


class Seat(NamedTuple):
    """A name's time in a slot.

    Attributes:
      slot: place in the assignment of data; None for a validator.
      taken_at: seconds of the ledger's clock.
      from_round: the first round of it.
      until_round: the first round after it; None while it lasts.
    """

    slot: int | None
    taken_at: float
    from_round: int
    until_round: int | None


class Slots:
    """The slots on a ledger, under the terms of its run.

    A slot is had for the units that the terms say, and kept for the immunity that they say. After that, where all are taken, the
    peer that earned least in the newest epoch makes room for who comes.
    """

    def __init__(self, ledger: SqliteLedger, terms: Mapping[str, Any]) -> None:
        """The slots of a run.

        Args:
          ledger: keeps them.
          terms: their number, the names of those that are reserved, and the rules of registration.
        """
        self._ledger = ledger
        self._chain = ledger.chain
        self._reserved: list[PeerId] = list(terms["peers"])
        self._count: int = terms["slots"]
        self._cost: int = terms["registration"]["cost"]
        self._immunity = max(1, terms["registration"]["immunity_rounds"])

    def seats(self, round: int | None) -> dict[PeerId, Seat]:
        """The seats of a round by name, in the order in which they were taken; None: those that are held now."""
        left = {
            (entry.account, entry.body["from_round"]): entry.round for entry in self._chain.entries("leave")
        }
        found = {}
        for entry in self._chain.entries("seat"):
            assert entry.round is not None
            until = left.get((entry.account, entry.round))
            holds = (
                until is None if round is None else entry.round <= round and (until is None or round < until)
            )
            if holds:
                found[entry.account] = Seat(entry.body["slot"], entry.at, entry.round, until)
        return found

    def has_one(self, name: PeerId) -> bool:
        """Whether a peer holds a slot, and has not given it up."""
        return name in self.seats(None)

    def take(self, name: PeerId, key: str, from_round: int) -> None:
        """Gives a peer a slot, and takes the cost of it from a key's account.

        Raises:
          LedgerRefused: no slot can be had now, or the account has less.
        """
        was_here = any(entry.account == name for entry in self._chain.entries("seat"))
        if name in self._reserved and not was_here:
            self._chain.post("seat", from_round, name, {"slot": self._reserved.index(name)})
            return
        seats = self.seats(None)
        taken = {seat.slot for seat in seats.values()} | set(range(len(self._reserved)))
        slot = next((slot for slot in range(self._count) if slot not in taken), None)
        if slot is None:
            leaving = self._least(seats, from_round)
            slot = seats[leaving].slot
            body = {"from_round": seats[leaving].from_round}
            self._chain.post("leave", from_round, leaving, body)
        try:
            self._ledger.accounts.charge(from_round, name, key, self._cost)
        except ValueError as error:
            raise LedgerRefused(f"a registration costs {self._cost} units: {error}") from error
        self._chain.post("seat", from_round, name, {"slot": slot})

    def _least(self, seats: Mapping[PeerId, Seat], from_round: int) -> PeerId:
        """Whose slot is given to who takes part from a round on."""
        if not seats:
            raise LedgerRefused(f"all {self._count} slots are kept for the peers that the run names")
        newest = self._chain.newest("emission")
        paid = {} if newest is None else newest.body["payouts"]
        judged = -1 if newest is None or newest.round is None else newest.round
        # Nobody is judged by an epoch that it took no part in.
        may_go = [
            name
            for name, seat in seats.items()
            if seat.from_round + self._immunity <= from_round and seat.from_round <= judged
        ]
        if not may_go:
            soonest = max(from_round, min(seat.from_round for seat in seats.values()) + self._immunity)
            raise LedgerRefused(
                f"all {self._count} slots of this run are taken by peers that are new: one may become free for round"
                f" {soonest} or later"
            )
        # The first of equal ones has been here longest.
        return min(may_go, key=lambda name: paid.get(name, 0))
