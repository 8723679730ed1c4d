"""A node's bucket and signing key in at most 128 bytes on a chain, and how a stranger's are read.

    version 1:  01 | ed25519 public key, 32 bytes | the bucket's address, 1 to 95 bytes
    version 2:  02 | ed25519 public key, 32 bytes | sha256 of the address, 32 bytes | https URL of the address, 1 to 63 bytes

The address says where the bucket is and how everybody may read it (read credentials are public by design); one that does not fit
lies below a URL, and its hash binds what is found there. Whoever reads one must take any bytes at all.
"""

import hashlib
import re
from collections.abc import Callable
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

MAX_COMMITMENT = 128
"""Bytes that a chain keeps for a node."""

MAX_ADDRESS = 512
_KEY = re.compile(r"[0-9a-f]{64}")
_PLAIN, _LINKED = 1, 2
_KEY_END = 33
_HASH_END = 65

Fetch: TypeAlias = Callable[[str, int], bytes]
"""``(https URL, most bytes) -> what is found there``; raises OSError or ValueError where there is nothing, or more."""


class NoBucket(ValueError):
    """A commitment that names no bucket; the text is one clause and repeats nothing of the sender's."""


class BucketLink(NamedTuple):
    """What a commitment says.

    Attributes:
      public_key: of the artifacts' signatures, 64 hexadecimal characters.
      address: of the bucket; "" where it lies below the URL.
      url: where the address lies; "" where it is here.
      digest: sha256 of the address below the URL, hexadecimal; "" without one.
    """

    public_key: str
    address: str
    url: str = ""
    digest: str = ""


def encode(public_key: str, address: str, url: str) -> bytes:
    """The commitment to a bucket.

    Args:
      public_key: 64 hexadecimal characters.
      address: of the bucket, 1 to 512 printable ASCII characters.
      url: https, where this very address can be read, for the case that it does not fit; "" for none.

    Returns:
      1 to 128 bytes.

    Raises:
      ValueError: the key or the address is none, or the address does not fit and there is no usable URL.
    """
    if _KEY.fullmatch(public_key) is None:
        raise ValueError("a commitment needs the ed25519 key that signs, 64 hexadecimal characters")
    if not _is_address(address):
        raise ValueError(f"a bucket's address has 1 to {MAX_ADDRESS} printable ASCII characters")
    text, key = address.encode(), bytes.fromhex(public_key)
    if _KEY_END + len(text) <= MAX_COMMITMENT:
        return bytes([_PLAIN]) + key + text
    room = MAX_COMMITMENT - _HASH_END
    if not _is_https(url) or len(url) > room:
        raise ValueError(
            f"the bucket's address has {len(text)} bytes and {MAX_COMMITMENT - _KEY_END} fit on the chain: put it into a file"
            f" below an https URL of at most {room} characters and name that"
        )
    return bytes([_LINKED]) + key + hashlib.sha256(text).digest() + url.encode()


def decode(commitment: bytes) -> BucketLink:
    """What a stranger's commitment says.

    Raises:
      NoBucket: it says nothing that can be read.
    """
    if not 0 < len(commitment) <= MAX_COMMITMENT:
        raise NoBucket(f"a commitment has 1 to {MAX_COMMITMENT} bytes")
    version = commitment[0]
    if version not in (_PLAIN, _LINKED):
        raise NoBucket("a commitment of another version")
    end = _KEY_END if version == _PLAIN else _HASH_END
    try:
        text = commitment[end:].decode("ascii")
    except UnicodeDecodeError:
        raise NoBucket("an address that is not ASCII") from None
    if len(commitment) <= end or not text.isprintable():
        raise NoBucket("no printable address")
    key = commitment[1:_KEY_END].hex()
    if version == _PLAIN:
        return BucketLink(key, text)
    if not _is_https(text):
        raise NoBucket("a URL that is not https")
    return BucketLink(key, "", text, commitment[_KEY_END:_HASH_END].hex())


def address_of(link: BucketLink, fetch: Fetch) -> str:
    """The bucket's address, fetched and checked if it lies below a URL.

    Raises:
      NoBucket: there is nothing there, or something else than was committed to.
    """
    if not link.url:
        return link.address
    try:
        found = fetch(link.url, MAX_ADDRESS)
    except (OSError, ValueError):
        raise NoBucket("nothing to be read below its URL") from None
    if len(found) > MAX_ADDRESS or hashlib.sha256(found).hexdigest() != link.digest:
        raise NoBucket("below its URL lies something else than it committed to")
    text = found.decode("ascii", errors="replace")
    if not _is_address(text):
        raise NoBucket("no printable address below its URL")
    return text


def _is_address(text: str) -> bool:
    return 0 < len(text) <= MAX_ADDRESS and text.isascii() and text.isprintable()


def _is_https(url: str) -> bool:
    if not _is_address(url) or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return (
            parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
        )
    except ValueError:
        return False
