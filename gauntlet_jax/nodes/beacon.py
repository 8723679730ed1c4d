"""Beacons: randomness that nobody knew before its time, and what is derived from it.

The opening beacon of a round decides which entries a sync probe shows; the closing one, unknown until the put window has
closed, decides who is evaluated and on which random data.
"""

import hashlib
from typing import Protocol


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
