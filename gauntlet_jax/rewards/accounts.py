"""Who holds how many units, on a hash chain: grants, what epochs paid, gifts and fees. No unit comes from elsewhere or is lost.

sum of balances = sum of emissions + sum of grants
"""

from collections.abc import Mapping
from typing import Any

from gauntlet_jax.rewards.hash_chain import HashChain
from gauntlet_jax.rewards.ledger import REMAINDER, RESERVE

MAX_UNITS = 2**63 - 1
_KINDS = ("register", "validator", "grant", "transfer", "fee", "emission")


class Accounts:
    """The accounts of one ledger. An account is a name, or a public key of 64 hexadecimal digits."""

    def __init__(self, chain: HashChain) -> None:
        """The accounts on a chain.

        Args:
          chain: keeps every movement.
        """
        self._chain = chain
        # What the entries up to ``_seen`` come to: to add all of them up at every call would take longer in every round.
        self._seen = 0
        self._names: dict[str, None] = {}
        self._units: dict[str, int] = {}

    def balances(self) -> dict[str, int]:
        """Units by account: whoever is registered, in that order, the ledger's own, and others that were given some."""
        names, units = self._sums()
        return {name: units.get(name, 0) for name in [*names, RESERVE, REMAINDER]} | {
            name: amount for name, amount in units.items() if name not in names
        }

    def balance(self, account: str) -> int:
        """Units of an account; 0 for one that nobody has heard of."""
        return self._sums()[1].get(account, 0)

    def is_known(self, account: str) -> bool:
        """Whether an account was ever given units, or is somebody's name."""
        names, units = self._sums()
        return account in names or account in units

    def issued(self) -> int:
        """All units there are: what was granted and emitted so far."""
        return sum(self._sums()[1].values())

    def grant(self, account: str, units: int) -> None:
        """Gives an account its units of the beginning.

        Raises:
          LedgerConflict: it was granted others.
          ValueError: the units are no whole number of at least 0, or there would be too many in all.
        """
        if self._chain.find("grant", None, account) is None and self.issued() + _whole(units) > MAX_UNITS:
            raise ValueError("grants must stay below 2**63 together")
        self._chain.post("grant", None, account, {"units": _whole(units)})

    def transfer(self, sender: str, to: str, units: int, receipt: str) -> None:
        """Moves units from an account to another.

        Args:
          sender: account that gives.
          to: account that receives; who calls makes sure that somebody has it.
          units: at least 1.
          receipt: tells this transfer of its sender from every other: the same again is no change.

        Raises:
          LedgerConflict: the receipt is of another transfer.
          ValueError: the units are no whole number above 0, or more than the sender has.
        """
        if _whole(units) == 0:
            raise ValueError("a transfer moves at least 1 unit")
        account, body = f"{sender} {receipt}", {"to": to, "units": units}
        with self._chain.transaction():
            if self._chain.find("transfer", None, account) is None:
                self._check_covered(sender, units)
            self._chain.post("transfer", None, account, body)

    def charge(self, round: int, name: str, account: str, units: int) -> None:
        """Takes the cost of a registration, for the reserve.

        Args:
          round: from which the name takes part.
          name: that is registered.
          account: that pays.
          units: >= 0.

        Raises:
          LedgerConflict: that registration was paid otherwise.
          ValueError: the account has less.
        """
        if _whole(units) == 0:
            return
        with self._chain.transaction():
            if self._chain.find("fee", round, name) is None:
                self._check_covered(account, units)
            self._chain.post("fee", round, name, {"account": account, "units": units})

    def _check_covered(self, account: str, units: int) -> None:
        held = self.balance(account)
        if held < units:
            raise ValueError(f"the account {account[:64]} has {held} units, {units} are needed")

    def _sums(self) -> tuple[Mapping[str, None], Mapping[str, int]]:
        """Registered names, and units by account."""
        # A transaction may still be undone, so what it has posted is counted and not kept.
        keep = not self._chain.in_transaction
        names, units = (self._names, self._units) if keep else (dict(self._names), dict(self._units))
        for seq, kind, entry in self._chain.since(self._seen, _KINDS):
            if kind in ("register", "validator"):
                names[entry.account] = None
            for account, amount in _movements(kind, entry.account, entry.body):
                units[account] = units.get(account, 0) + amount
            if keep:
                self._seen = seq
        return names, units


def _movements(kind: str, account: str, body: Mapping[str, Any]) -> list[tuple[str, int]]:
    """What an entry adds to accounts, and takes from them."""
    if kind == "grant":
        return [(account, body["units"])]
    if kind == "transfer":
        return [(account.rsplit(" ", 1)[0], -body["units"]), (body["to"], body["units"])]
    if kind == "fee":
        return [(body["account"], -body["units"]), (RESERVE, body["units"])]
    if kind == "emission":
        return [*body["payouts"].items(), (RESERVE, body["reserve"]), (REMAINDER, body["remainder"])]
    return []


def _whole(units: int) -> int:
    if type(units) is not int or not 0 <= units <= MAX_UNITS:
        raise ValueError("units must be whole numbers between 0 and 2**63 - 1")
    return units
