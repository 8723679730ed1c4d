"""Who takes part in a shared run: names that belong to keys, slots that must be earned, validators' stakes, buckets that move."""

import re
from collections.abc import Mapping
from typing import Any

from gauntlet_jax.rewards.ledger import REMAINDER, RESERVE, LedgerConflict, LedgerRefused, Registration
from gauntlet_jax.rewards.slots import Seat, Slots
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.storage.identity import is_public_key
from gauntlet_jax.types import PeerId

MAX_ADDRESS = 512
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class Membership:
    """The registrations on a ledger, under the terms of its run."""

    def __init__(self, ledger: SqliteLedger, terms: Mapping[str, Any]) -> None:
        """The membership of a run.

        Args:
          ledger: keeps it.
          terms: name the reserved slots, their number, the validators, and what a stranger's registration costs.
        """
        self._ledger = ledger
        self._chain = ledger.chain
        self._terms = terms
        self._slots = Slots(ledger, terms)
        self.stakes = {entry["name"]: float(entry["stake"]) for entry in terms["validators"]}

    def key_of(self, name: str) -> str | None:
        """The public key that a name belongs to; None for an unregistered one."""
        entry = self._chain.find("node", None, name)
        return None if entry is None else entry.body["key"]

    def waiting_for(self) -> list[str]:
        """Names of the terms that are not registered."""
        return [name for name in (*self._terms["peers"], *self.stakes) if self.key_of(name) is None]

    def register_peer(self, name: PeerId, key: str, bucket: str, from_round: int) -> Registration:
        """Registers a peer: in the slot that is reserved for its name, the lowest free one, or that of the one who earned least.

        Args:
          name: of the peer; its first key keeps it for ever.
          key: that has signed this, and whose account pays if the terms do not name the peer.
          bucket: its public address; another one than before moves it.
          from_round: the round that begins next.

        Raises:
          LedgerRefused: the name is another's, no slot can be had, or the account has less than the cost.
        """
        _check_name(name, key)
        _check_address(bucket)
        is_new = not self._stands(name, key, is_validator=False)
        if is_new and name in self.stakes:
            raise LedgerRefused(f"the name {name} is reserved for a validator")
        with self._chain.transaction():
            if is_new:
                self._ledger.register(name, bucket)
                self._chain.post("node", None, name, {"key": key, "bucket": bucket, "stake": 0.0})
            else:
                self._move(name, bucket, from_round)
            if not self._slots.has_one(name):
                self._slots.take(name, key, from_round)
        return self._registration(name)

    def register_validator(self, name: str, key: str, bucket: str, from_round: int) -> Registration:
        """Registers one of the validators that the terms name; arguments as for a peer.

        Raises:
          LedgerRefused: the terms do not name it, or it belongs to another key.
        """
        _check_name(name, key)
        _check_address(bucket)
        known = next((entry for entry in self._terms["validators"] if entry["name"] == name), None)
        if known is None:
            raise LedgerRefused(f"{name} is no validator of this run")
        if known["key"] is not None and known["key"] != key:
            raise LedgerRefused(f"the validator {name} has another key")
        if self._stands(name, key, is_validator=True):
            self._move(name, bucket, from_round)
            return self._registration(name)
        stake = self.stakes[name]
        with self._chain.transaction():
            self._ledger.register_validator(name, stake)
            body = {"key": key, "bucket": bucket, "stake": stake, "from_round": from_round}
            self._chain.post("node", None, name, body)
        return self._registration(name)

    def registrations(self, round: int | None) -> list[Registration]:
        """Who takes part in a round, with the buckets of now; None: everybody who holds a slot, and the validators."""
        seats = self._slots.seats(round)
        moved = {entry.account: entry.body["bucket"] for entry in self._chain.entries("bucket")}
        found = []
        for entry in self._chain.entries("node"):
            name, body = entry.account, entry.body
            seat = seats.get(name) if body["stake"] == 0.0 else Seat(None, entry.at, body["from_round"], None)
            if seat is not None and (round is None or seat.from_round <= round):
                bucket = moved.get(name, body["bucket"])
                found.append(
                    Registration(
                        name,
                        bucket,
                        seat.taken_at,
                        body["key"],
                        seat.slot,
                        body["stake"],
                        seat.from_round,
                        seat.until_round,
                    )
                )
        return found

    def peers(self, round: int) -> list[PeerId]:
        """The peers of a round, in the order of their slots."""
        found = [entry for entry in self.registrations(round) if entry.slot is not None]
        return [entry.name for entry in sorted(found, key=lambda entry: entry.slot or 0)]

    def check_account(self, account: str) -> None:
        """Refuses an account that is nobody's: neither a registered name nor a public key."""
        if not is_public_key(account) and self.key_of(account) is None:
            raise LedgerRefused("an account is a registered name, or a public key of 64 hexadecimal digits")

    def _stands(self, name: str, key: str, *, is_validator: bool) -> bool:
        """Whether a name is registered; refuses one that is another's."""
        entry = self._chain.find("node", None, name)
        if entry is None:
            return False
        if entry.body["key"] != key:
            raise LedgerRefused(f"the name {name} belongs to another key")
        if (entry.body["stake"] > 0.0) != is_validator:
            raise LedgerRefused(f"{name} is registered in another role")
        return True

    def _move(self, name: str, bucket: str, from_round: int) -> None:
        """Notes another address of a registered node; one a round."""
        moved = [entry for entry in self._chain.entries("bucket") if entry.account == name]
        node = self._chain.find("node", None, name)
        assert node is not None
        if (moved[-1] if moved else node).body["bucket"] == bucket:
            return
        try:
            self._chain.post("bucket", from_round, name, {"bucket": bucket})
        except LedgerConflict as error:
            raise LedgerRefused(
                f"{name} has moved its bucket in this round already: once more when the next one has begun"
            ) from error

    def _registration(self, name: str) -> Registration:
        return next(entry for entry in self.registrations(None) if entry.name == name)


def check_grants(terms: Mapping[str, Any]) -> None:
    """Checks what a run's founder gives to whom.

    Raises:
      ValueError: an account is neither a public key nor a name that the terms give to somebody.
    """
    named = {*terms["peers"], *(entry["name"] for entry in terms["validators"])}
    for account in terms["registration"]["grants"]:
        if account not in named and not is_public_key(account):
            raise ValueError(
                f"registration.grants: {account[:80]!r} is neither a peer or validator of the run nor a public key"
            )


def _check_name(name: str, key: str) -> None:
    if name in (RESERVE, REMAINDER) or _NAME.fullmatch(name) is None:
        raise LedgerRefused(
            f"a name has 1 to 64 letters, digits, _ . or -, and is neither {RESERVE!r} nor {REMAINDER!r}"
        )
    # Its account would be that of the key.
    if is_public_key(name) and name != key:
        raise LedgerRefused("a name that looks like a public key belongs to that key alone")


def _check_address(bucket: str) -> None:
    if not 0 < len(bucket) <= MAX_ADDRESS or not bucket.isprintable() or not bucket.isascii():
        raise LedgerRefused(f"a bucket's address has 1 to {MAX_ADDRESS} printable ASCII characters")
