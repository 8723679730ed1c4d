"""Who takes part in a shared run: names that belong to keys, peers' slots, validators' stakes, and buckets that may move."""

import re
from collections.abc import Mapping
from typing import Any

from gauntlet_jax.rewards.ledger import RESERVE, LedgerConflict, LedgerRefused, Registration
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.types import PeerId

MAX_ADDRESS = 512
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class Membership:
    """The registrations on a ledger, under the terms of its run."""

    def __init__(self, ledger: SqliteLedger, terms: Mapping[str, Any]) -> None:
        """The membership of a run.

        Args:
          ledger: keeps it.
          terms: name the reserved slots, their number, and the validators.
        """
        self._ledger = ledger
        self._chain = ledger.chain
        self._terms = terms
        self.stakes = {entry["name"]: float(entry["stake"]) for entry in terms["validators"]}

    def key_of(self, name: str) -> str | None:
        """The public key that a name belongs to; None for an unregistered one."""
        entry = self._chain.find("node", None, name)
        return None if entry is None else entry.body["key"]

    def waiting_for(self) -> list[str]:
        """Names of the terms that are not registered."""
        return [name for name in (*self._terms["peers"], *self.stakes) if self.key_of(name) is None]

    def register_peer(self, name: PeerId, key: str, bucket: str, from_round: int) -> Registration:
        """Registers a peer in the slot that is reserved for its name, or the lowest free one.

        Args:
          name: of the peer; its first key keeps it for ever.
          key: that has signed this.
          bucket: its public address; another one than before moves it.
          from_round: the round that begins next.

        Raises:
          LedgerRefused: the name is another's, or no slot is free.
        """
        _check_name(name)
        _check_address(bucket)
        if not self._stands(name, key, peer=True):
            slot = self._free_slot(name)
            with self._chain.transaction():
                self._ledger.register(name, bucket)
                self._chain.post("node", None, name, _node(key, bucket, slot, 0.0, from_round))
        else:
            self._move(name, bucket, from_round)
        return self._registration(name)

    def register_validator(self, name: str, key: str, bucket: str, from_round: int) -> Registration:
        """Registers one of the validators that the terms name; arguments as for a peer.

        Raises:
          LedgerRefused: the terms do not name it, or it belongs to another key.
        """
        _check_name(name)
        _check_address(bucket)
        known = next((entry for entry in self._terms["validators"] if entry["name"] == name), None)
        if known is None:
            raise LedgerRefused(f"{name} is no validator of this run")
        if known["key"] is not None and known["key"] != key:
            raise LedgerRefused(f"the validator {name} has another key")
        if not self._stands(name, key, peer=False):
            self._chain.post("node", None, name, _node(key, bucket, None, self.stakes[name], from_round))
        else:
            self._move(name, bucket, from_round)
        return self._registration(name)

    def registrations(self, round: int | None) -> list[Registration]:
        """Who takes part in a round, with the buckets of now; None: everybody who is registered."""
        found = [self._registration(entry.account) for entry in self._chain.entries("node")]
        return [entry for entry in found if round is None or entry.from_round <= round]

    def _stands(self, name: str, key: str, *, peer: bool) -> bool:
        """Whether a name is registered; refuses one that is another's."""
        entry = self._chain.find("node", None, name)
        if entry is None:
            return False
        if entry.body["key"] != key:
            raise LedgerRefused(f"the name {name} belongs to another key")
        if (entry.body["slot"] is not None) != peer:
            raise LedgerRefused(f"{name} is registered in another role")
        return True

    def _free_slot(self, name: PeerId) -> int:
        reserved = list(self._terms["peers"])
        if name in reserved:
            return reserved.index(name)
        if name in self.stakes:
            raise LedgerRefused(f"the name {name} is reserved for a validator")
        taken = {entry.body["slot"] for entry in self._chain.entries("node")} | set(range(len(reserved)))
        free = next((slot for slot in range(self._terms["slots"]) if slot not in taken), None)
        if free is None:
            raise LedgerRefused(f"all {self._terms['slots']} slots of this run are taken")
        return free

    def _move(self, name: str, bucket: str, from_round: int) -> None:
        """Notes another address of a registered node; one a round."""
        if self._registration(name).bucket == bucket:
            return
        try:
            self._chain.post("bucket", from_round, name, {"bucket": bucket})
        except LedgerConflict as error:
            raise LedgerRefused(
                f"{name} has moved its bucket in this round already: once more when the next one has begun"
            ) from error

    def _registration(self, name: str) -> Registration:
        entry = self._chain.find("node", None, name)
        assert entry is not None
        moved = [other.body["bucket"] for other in self._chain.entries("bucket") if other.account == name]
        body = entry.body
        bucket = moved[-1] if moved else body["bucket"]
        return Registration(
            name, bucket, entry.at, body["key"], body["slot"], body["stake"], body["from_round"]
        )


def _node(key: str, bucket: str, slot: int | None, stake: float, from_round: int) -> dict[str, Any]:
    return {"key": key, "bucket": bucket, "slot": slot, "stake": stake, "from_round": from_round}


def _check_name(name: str) -> None:
    if name == RESERVE or _NAME.fullmatch(name) is None:
        raise LedgerRefused(f"a name has 1 to 64 letters, digits, _ . or -, and is not {RESERVE!r}")


def _check_address(bucket: str) -> None:
    if not 0 < len(bucket) <= MAX_ADDRESS or not bucket.isprintable() or not bucket.isascii():
        raise LedgerRefused(f"a bucket's address has 1 to {MAX_ADDRESS} printable ASCII characters")
