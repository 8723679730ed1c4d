"""Beacons: randomness that nobody knew before its time, and what is derived from it.

The opening beacon of a round decides which entries a sync probe shows; the closing one, unknown until the put window has
closed, decides who is evaluated and on which random data.
"""

import hashlib
from typing import Literal, Protocol

from gauntlet_jax.rewards.beacon_chain import leads_to
from gauntlet_jax.rewards.ledger import SharedLedger


class Beacon(Protocol):
    """A source of public randomness, 32 bytes a round and phase."""

    def opening(self, round: int) -> bytes:
        """Known from the round's beginning."""
        ...

    def closing(self, round: int) -> bytes:
        """Known once the put window has closed."""
        ...


class SeededBeacon:
    """A beacon for simulations and equality tests: anyone who knows the seed can foretell it."""

    def __init__(self, seed: int):
        self._seed = seed

    def opening(self, round: int) -> bytes:
        """sha256 of the seed, the round and the phase."""
        return derive(b"gauntlet seeded beacon", self._seed, round, "opening")

    def closing(self, round: int) -> bytes:
        """sha256 of the seed, the round and the phase."""
        return derive(b"gauntlet seeded beacon", self._seed, round, "closing")


class LedgerBeacon:
    """A beacon that a ledger releases link by link, each checked against the anchor in the run's terms.

    Seconds before its time nobody but the ledger's keeper knows a link; and the keeper cannot choose it any more.
    """

    def __init__(self, ledger: SharedLedger) -> None:
        """A beacon of a run.

        Args:
          ledger: of the run, whose terms have an anchor.
        """
        self._ledger = ledger
        self._known: tuple[int, bytes] | None = None

    def opening(self, round: int) -> bytes:
        """Raises ``NotYetKnown`` before its time, ValueError if the ledger gives another than it is bound to."""
        return self._link(round, "opening")

    def closing(self, round: int) -> bytes:
        """Raises as ``opening``."""
        return self._link(round, "closing")

    def _link(self, round: int, phase: Literal["opening", "closing"]) -> bytes:
        link = self._ledger.beacon(round, phase)
        index = 2 * round + (phase == "closing")
        if self._known is None:
            self._known = (-1, bytes.fromhex(self._ledger.terms()["anchor"]))
        known_index, known = self._known
        if index > known_index:
            if not leads_to(link, known, index - known_index):
                raise ValueError(
                    f"the ledger's {phase} beacon of round {round} is not the one that it is bound to"
                )
            self._known = (index, link)
        elif not leads_to(known, link, known_index - index):
            raise ValueError(
                f"the ledger's {phase} beacon of round {round} is not the one that it is bound to"
            )
        return link


def derive(beacon: bytes, *parts: str | int) -> bytes:
    """32 bytes that depend on the beacon and every part; no two lists of parts are framed alike."""
    running = hashlib.sha256(beacon)
    for part in parts:
        data = f"{type(part).__name__}:{part}".encode()
        running.update(len(data).to_bytes(8, "little") + data)
    return running.digest()


def derive_int(beacon: bytes, *parts: str | int, bits: int = 32) -> int:
    """An integer of ``bits`` bits, at most 256, from ``derive``."""
    return int.from_bytes(derive(beacon, *parts), "little") % 2**bits
