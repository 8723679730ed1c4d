"""Ways to spoil objects: byte by byte, field by field, and one in another's place."""

import gzip
import json
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from fuzz.hostile_bucket import Objects

GIANT = 100_000_000
"""Bytes of objects that must be refused for their size alone."""

JUNK: list[Any] = [
    None, True, False, -1, 0.5, -1e308, 10**12, 2**63, 2**64, -(2**63) - 1, 10**40, 10**400, "\x00", "\ud800", "\u202e",
    "../..", "x" * 5000, "0" * 63, "F" * 64, [], [[]], [10**12], {}, {"": ""}, {"codes": None}, {"\ud800": 1}, [0] * 2000,
    {str(number): number for number in range(300)}, [{"name": "gzip"}], [{"name": "zstd", "configuration": {"level": 22}}],
    [{"name": "sharding_indexed", "configuration": {"chunk_shape": [1]}}], {"name": "blosc"},
]  # fmt: skip
"""Values of which no field takes any for a good one, apart from what only its sender can know."""


def flipped(chance: random.Random, data: bytes) -> bytes:
    """Some bits turned over."""
    altered = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 30)) if data else 0):
        altered[chance.randrange(len(altered))] ^= 1 << chance.randrange(8)
    return bytes(altered)


def overwritten(chance: random.Random, data: bytes) -> bytes:
    """A run of bytes replaced: random ones, zeros or text."""
    at, length = chance.randrange(len(data) + 1), chance.randrange(1, 20)
    run = chance.choice((chance.randbytes(length), bytes(length), b'"' * length, b"9" * length))
    return data[:at] + run[: len(data) - at] + data[at + length :]


def truncated(chance: random.Random, data: bytes) -> bytes:
    """Without its end."""
    return data[: chance.randrange(len(data) + 1)]


def extended(chance: random.Random, data: bytes) -> bytes:
    """With something behind it, or before."""
    more = chance.choice(
        (b"\x00", b" ", b"\n", b"{}", data[:1000], chance.randbytes(chance.randrange(1, 200)))
    )
    return data + more if chance.random() < 0.7 else more + data


def cut(chance: random.Random, data: bytes) -> bytes:
    """Without a part from its middle."""
    at = chance.randrange(len(data) + 1)
    return data[:at] + data[at + chance.randrange(1, 30) :]


def stuffed(chance: random.Random, data: bytes) -> bytes:
    """With something in its middle, its own parts again for example."""
    at, other = chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)
    more = chance.choice((chance.randbytes(chance.randrange(1, 40)), data[other : other + 40]))
    return data[:at] + more + data[at:]


def reordered(chance: random.Random, data: bytes) -> bytes:
    """Two parts of it in each other's place."""
    at = chance.randrange(len(data) + 1)
    return data[at:] + data[:at]


def compressed(chance: random.Random, data: bytes) -> bytes:
    """What a decompressor would make it, or something enormous, from."""
    bomb = bytes(200_000)
    return chance.choice((gzip.compress(data), zlib.compress(data), gzip.compress(bomb), zlib.compress(bomb)))


def nested(chance: random.Random, data: bytes) -> bytes:
    """JSON so deep that a parser which recurses would fall."""
    depth = chance.choice((10, 500, 990, 1500, 10_000))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return opening * depth + (data if chance.random() < 0.3 else b"1") + closing * depth


def edited(chance: random.Random, data: bytes) -> bytes:
    """As JSON: one value, at any depth, is another; if it is no JSON, or empty, some bits are turned over."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return flipped(chance, data)
    if not isinstance(document, dict) or not document:
        return flipped(chance, data)
    changed = with_junk(chance, document)
    return json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()


def with_junk(chance: random.Random, document: dict[str, Any]) -> dict[str, Any]:
    """A document in which one value, at any depth, became junk, or was left out, or doubled."""
    document = json.loads(json.dumps(document))
    inside: Any = document
    while True:
        places = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        place = chance.choice(places)
        deeper = inside[place]
        if not (isinstance(deeper, dict | list) and deeper and chance.random() < 0.7):
            break
        inside = deeper
    kind = chance.random()
    if kind < 0.15:
        del inside[place]
    elif kind < 0.25 and isinstance(inside, dict):
        inside[f"{place}2"] = inside[place]
    else:
        inside[place] = chance.choice(JUNK)
    return document


BYTES: list[Callable[[random.Random, bytes], bytes]] = [
    flipped, flipped, overwritten, truncated, extended, cut, stuffed, reordered, compressed, nested, edited, edited, edited,
]  # fmt: skip


def mutated(
    chance: random.Random, objects: Objects, mutable: Sequence[str], spare: Sequence[bytes]
) -> Objects:
    """A few spoiled objects among good ones.

    Args:
      chance: of what is done.
      objects: good ones.
      mutable: keys of those to be touched.
      spare: other good or hostile objects, to be put in a place where they do not belong.
    """
    changed: dict[str, bytes | int] = dict(objects)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        key = chance.choice(mutable)
        data, what = changed.get(key), chance.random()
        if what < 0.04:
            changed.pop(key, None)
        elif what < 0.07:
            changed[key] = GIANT
        elif what < 0.14:
            changed[key] = chance.choice(spare)
        elif what < 0.18:
            other = chance.choice(sorted(objects))
            changed[key], changed[other] = changed.get(other, b""), changed.get(key, b"")
        elif isinstance(data, bytes):
            changed[key] = chance.choice(BYTES)(chance, data)
    return changed
