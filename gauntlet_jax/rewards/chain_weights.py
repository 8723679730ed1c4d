"""A validator's weights as a subtensor chain takes them: u16 by uid, within the subnet's limits, and the hash that commits to them."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gauntlet_jax.rewards.chain_client import Call
from gauntlet_jax.rewards.yuma import U16, max_upscaled

SALT_BYTES = 32
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ACCOUNT_BYTES = 32


class WeightRules(NamedTuple):
    """What a subnet asks of a row of weights.

    Attributes:
      size: uids of the subnet.
      min_allowed: entries that a row must have, zeros included; the subnet's size if that is less.
      max_limit: the largest part of a row that one uid may have, of 65535.
      version_key: the oldest version of validators whose rows count; 0 for any.
    """

    size: int
    min_allowed: int
    max_limit: int
    version_key: int


class WeightRow(NamedTuple):
    """A row as it is sent: equally long, uids ascending, the largest value 65535."""

    uids: tuple[int, ...]
    values: tuple[int, ...]

    @property
    def entries(self) -> dict[int, int]:
        """Values above 0 by uid."""
        return {uid: value for uid, value in zip(self.uids, self.values, strict=True) if value}


def weight_row(shares: Mapping[int, float], rules: WeightRules) -> WeightRow:
    """Shares by uid as a row that the chain takes.

    What one uid has above the subnet's limit is spread over the others in proportion. Entries of 0 fill a row that is too short:
    they change nothing, and the chain counts them.

    Args:
      shares: finite and >= 0 by uid, in any scale, not all 0.
      rules: of the subnet.

    Raises:
      ValueError: all are 0, or there are too few for the limit.
    """
    given = {uid: float(share) for uid, share in sorted(shares.items()) if share > 0}
    if not given:
        raise ValueError("all weights are 0")
    numbers = np.array(list(given.values()))
    # Nothing in u16 is nothing, and must not come into what the limit takes from the others.
    kept = max_upscaled(numbers) > 0
    given = {uid: share for (uid, share), is_kept in zip(given.items(), kept, strict=True) if is_kept}
    numbers = numbers[kept]
    if rules.max_limit < U16:
        numbers = _clipped(numbers / math.fsum(numbers.tolist()), (rules.max_limit - 1) / U16)
    values = max_upscaled(numbers)
    row = {uid: int(value) for uid, value in zip(given, values, strict=True) if value}
    if rules.max_limit < U16 and max(row.values()) * U16 > rules.max_limit * sum(row.values()):
        raise ValueError(
            f"weights on {len(row)} uids: one may have {rules.max_limit} of 65535 at most, that takes more of them"
        )
    missing = rules.min_allowed - len(row)
    padding = [uid for uid in range(rules.size) if uid not in row][: max(0, missing)]
    row = dict(sorted((row | dict.fromkeys(padding, 0)).items()))
    return WeightRow(tuple(row), tuple(row.values()))


def set_weights(netuid: int, row: WeightRow, version_key: int) -> Call:
    """The call that sets weights openly."""
    arguments = {
        "netuid": netuid,
        "dests": list(row.uids),
        "weights": list(row.values),
        "version_key": version_key,
    }
    return Call("SubtensorModule", "set_weights", arguments)


def commit_weights(netuid: int, digest: bytes) -> Call:
    """The call that commits to weights."""
    return Call("SubtensorModule", "commit_weights", {"netuid": netuid, "commit_hash": digest})


def reveal_weights(netuid: int, row: WeightRow, salt: bytes, version_key: int) -> Call:
    """The call that shows what was committed to."""
    arguments = {
        "netuid": netuid,
        "uids": list(row.uids),
        "values": list(row.values),
        "salt": salt_words(salt),
        "version_key": version_key,
    }
    return Call("SubtensorModule", "reveal_weights", arguments)


def commit_hash(hotkey: str, netuid: int, row: WeightRow, salt: bytes, version_key: int) -> bytes:
    """What the chain compares a reveal with: ``blake2b-256(account | netuid | uids | values | salt | version key)``, SCALE encoded.

    Args:
      hotkey: whose weights they are, ss58: the hash is bound to it, so a copied commit shows nothing.
      netuid: of the subnet.
      row: the weights.
      salt: 32 bytes.
      version_key: of the reveal.
    """
    encoded = account_of(hotkey) + netuid.to_bytes(2, "little")
    for words in (row.uids, row.values, salt_words(salt)):
        encoded += _compact(len(words)) + b"".join(word.to_bytes(2, "little") for word in words)
    return hashlib.blake2b(encoded + version_key.to_bytes(8, "little"), digest_size=32).digest()


def salt_words(salt: bytes) -> list[int]:
    """A salt as the chain takes it: 16 little-endian u16.

    Raises:
      ValueError: it has not 32 bytes.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    return [int.from_bytes(salt[i : i + 2], "little") for i in range(0, SALT_BYTES, 2)]


def account_of(address: str) -> bytes:
    """The 32 bytes of an ss58 address.

    Raises:
      ValueError: it is none.
    """
    if not 0 < len(address) <= 64 or not set(address) <= set(_ALPHABET):
        raise ValueError("no ss58 address")
    number = 0
    for character in address:
        number = number * 58 + _ALPHABET.index(character)
    zeros = len(address) - len(address.lstrip("1"))
    data = b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
    prefix = 1 if data and data[0] < 64 else 2
    body, checksum = data[:-2], data[-2:]
    if len(body) != prefix + _ACCOUNT_BYTES or hashlib.blake2b(b"SS58PRE" + body).digest()[:2] != checksum:
        raise ValueError("no ss58 address")
    return body[prefix:]


def _clipped(shares: np.ndarray, limit: float) -> np.ndarray:
    """Shares that sum to 1 with none above a limit, the rest in proportion; all equal where that cannot be."""
    if limit * len(shares) <= 1:
        return np.full(shares.shape, 1 / len(shares))
    capped = np.zeros(shares.shape, bool)
    while True:
        free = 1 - limit * capped.sum()
        scaled = np.where(capped, limit, shares * free / math.fsum(shares[~capped].tolist()))
        over = ~capped & (scaled > limit)
        if not over.any():
            return scaled
        capped |= over


def _compact(length: int) -> bytes:
    """SCALE's compact form of a length below 2**14."""
    return bytes([length << 2]) if length < 64 else (length << 2 | 1).to_bytes(2, "little")


def words_of(row: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Values above 0 by uid, of a row as the chain keeps it."""
    return {uid: value for uid, value in row if value}
