"""What a row of the table of formats is, and the attacks that formats have in common."""

import dataclasses
import gzip
import json
from collections.abc import Callable, Mapping
from typing import Any

from fuzz.hostile_bucket import HostileBucket, Objects
from fuzz.mutations import GIANT

from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.identity import Identity

ADA, EVE = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)
Case = tuple[Objects, str]


@dataclasses.dataclass(frozen=True)
class Target:
    """One format.

    Attributes:
      name: for the report.
      sample: what an honest node publishes.
      read: what a node makes of a bucket: a value to compare, or one of ``refusals``.
      refusals: the exceptions by which it refuses.
      most_bytes: no reading may be handed more.
      cases: attacks by name, each with a pattern of the reason for which it must be refused.
      mutable: keys that mutations touch; () = all of the sample's.
      signed: key and domain of a document that ADA signs, for contents that are signed and yet wrong.
      free: whether signed contents may be other good ones, because a validator may write there what it likes.
      chunk_bytes: largest chunk of its arrays.
    """

    name: str
    sample: Callable[[], Objects]
    read: Callable[[HostileBucket], Any]
    refusals: tuple[type[Exception], ...]
    most_bytes: int
    cases: Callable[[], Mapping[str, Case]]
    mutable: tuple[str, ...] = ()
    signed: tuple[str, str] | None = None
    free: bool = False
    chunk_bytes: int = 16 * 1024 * 1024


def with_object(objects: Objects, key: str, data: bytes | int) -> Objects:
    return {**objects, key: data}


def metadata_cases(objects: Objects, prefix: str, what: str = "payload/") -> dict[str, Case]:
    """Attacks on a ``zarr.json`` and its chunks, whatever they hold."""
    zarr, chunk = f"{prefix}/payload/zarr.json", f"{prefix}/payload/c/0"
    good, data = objects[zarr], objects[chunk]
    assert isinstance(good, bytes) and isinstance(data, bytes)
    other = f"{what}zarr.json (has more than|has .* bytes|describes another)"

    def saying(**fields: Any) -> Objects:
        return with_object(objects, zarr, signed_json.canonical({**json.loads(good), **fields}))

    bomb = [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 9}}]
    return {
        "a million million elements": (saying(shape=[10**12]), other),
        "in chunks of that size": (
            saying(chunk_grid={"name": "regular", "configuration": {"chunk_shape": [10**12]}}),
            other,
        ),
        "gzip in the metadata": (
            {**saying(codecs=bomb), chunk: gzip.compress(bytes(10**6))},
            other,
        ),
        "as long, but no metadata": (
            with_object(objects, zarr, b" " * len(good)),
            f"{what}zarr.json describes",
        ),
        "100 MB of metadata": (
            with_object(objects, zarr, GIANT),
            rf"{what}zarr.json has more than \d+ bytes",
        ),
        "100 MB of data": (with_object(objects, chunk, GIANT), rf"{what}c/0 has more than \d+ bytes"),
        "deep metadata": (with_object(objects, zarr, b"[" * 100_000), rf"{what}zarr.json has more than"),
        "gzip as data": (with_object(objects, chunk, gzip.compress(bytes(data))), rf"{what}c/0 has"),
        "zeros as data": (
            with_object(objects, chunk, bytes(len(data) - 4) + b"\1\2\3\4"),
            "fails its checksum",
        ),
        "no data": (
            {key: found for key, found in objects.items() if key != chunk},
            f"{what}c/0 is missing",
        ),
        "empty data": (with_object(objects, chunk, b""), rf"{what}c/0 has 0 bytes, \d+ expected"),
    }


def document_cases(objects: Objects, key: str, domain: str, most: int) -> dict[str, Case]:
    """Attacks on a signed document, whatever it says."""
    good = objects[key]
    assert isinstance(good, bytes)
    fields = json.loads(good)
    del fields["key"], fields["signature"]
    return {
        "by another key": (
            with_object(objects, key, signed_json.sign(EVE, domain, fields)),
            "signed by another key",
        ),
        "for another purpose": (
            with_object(objects, key, signed_json.sign(ADA, domain + "2", fields)),
            "its signature does not hold",
        ),
        "for no purpose": (
            with_object(objects, key, signed_json.sign(ADA, "", fields)),
            "its signature does not hold",
        ),
        "not signed": (
            with_object(objects, key, signed_json.canonical({**fields, "key": ADA.public_key})),
            "not signed",
        ),
        "of 100 MB": (with_object(objects, key, GIANT), rf"(more|longer) than {most} bytes"),
        "a byte too long": (
            with_object(objects, key, b" " * (most + 1)),
            rf"(more|longer) than {most} bytes",
        ),
        "deep": (with_object(objects, key, b'{"a":' * (most // 6)), "not JSON"),
        "an endless number": (
            with_object(objects, key, b'{"a":' + b"9" * (most - 9) + b"}"),
            "(not JSON|not signed)",
        ),
        "not a number": (with_object(objects, key, good.replace(b":7", b":NaN", 1)), "not JSON"),
        "in another form": (with_object(objects, key, good + b"\n"), "canonical"),
        "a field twice": (
            with_object(objects, key, good[:-1] + b',"run":"demo"}'),
            "canonical",
        ),
        "a field more": (
            with_object(objects, key, signed_json.sign(ADA, domain, {**fields, "x": 1})),
            "other fields",
        ),
    }
