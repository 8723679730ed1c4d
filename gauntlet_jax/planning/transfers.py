"""Rates of a line, such as ``110Mbps``, and how long artifacts take over it."""

import re

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(bps|b/s|bit/s|B/s)")
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def bytes_per_second(rate: str) -> float:
    """A rate in bytes a second.

    Args:
      rate: ``110Mbps`` (or Mb/s, Mbit/s: bits) or ``14MB/s`` (bytes); the prefix is k, M, G or T, in powers of 1000.

    Raises:
      ValueError: it is none, or 0.
    """
    found = _RATE.fullmatch(rate.strip())
    if found is None:
        raise ValueError(f"{rate!r} is no rate: write it as 110Mbps (bits) or 14MB/s (bytes)")
    number = float(found[1]) * _FACTORS[found[2].lower()]
    if number <= 0:
        raise ValueError(f"{rate!r} is no rate: nothing would ever arrive")
    return number if found[3].endswith("B/s") else number / 8
