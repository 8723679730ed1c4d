"""Elias-Fano coding of a block's sorted indices: fixed size, near the entropy, and canonical.

k strictly increasing indices below n are split into high and low parts. The low parts (l bits each) are written as
they are; the i-th high part h_i sets bit ``h_i + i`` of a bitmap. For n = 4096 that is 9.0 bits an index at k = 32 (the
bound log2 C(n, k)/k is 8.3) and 8.0 at k = 64 (7.4), where plain packing takes 12. Every set of indices has exactly
one code, so equal payloads have equal bytes.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8

from gauntlet_jax.compression.bitmaps import WORD, places_of


class IndexCode(NamedTuple):
    """The widths of one block's code (static).

    Attributes:
      low_bits: l, bits of an index that are written as they are.
      bitmap_bits: length of the bitmap of high parts.
      bytes: whole bytes a block; 0 where k = n, since then there is nothing to tell.
    """

    low_bits: int
    bitmap_bits: int
    bytes: int


def index_code(size: int, k: int) -> IndexCode:
    """The shortest Elias-Fano code of k of ``size`` indices."""
    if k == size:
        return IndexCode(0, 0, 0)
    bitmaps = {low: k - 1 + math.ceil(size / 2**low) for low in range(size.bit_length())}
    low = min(bitmaps, key=lambda low: k * low + bitmaps[low])
    return IndexCode(low, bitmaps[low], math.ceil((k * low + bitmaps[low]) / 8))


def pack_indices(indices: Int[Array, "*grid k"], size: int) -> UInt8[Array, "*grid bytes"]:
    """Codes strictly increasing int32 indices below ``size``."""
    *grid, k = indices.shape
    low_bits, bitmap_bits, length = index_code(size, k)
    if length == 0:
        return jnp.zeros((*grid, 0), jnp.uint8)
    rows = indices.reshape(-1, k)
    positions = (rows >> low_bits) + jnp.arange(k)
    bitmap = jnp.zeros((rows.shape[0], bitmap_bits), jnp.uint8)
    bitmap = bitmap.at[jnp.arange(rows.shape[0])[:, None], positions].set(1, unique_indices=True)
    low = (rows[:, :, None] >> jnp.arange(low_bits)) & 1
    bits = jnp.concatenate([bitmap, low.reshape(rows.shape[0], -1).astype(jnp.uint8)], axis=1)
    padded = jnp.pad(bits, ((0, 0), (0, 8 * length - bits.shape[1])))
    return jnp.packbits(padded, axis=1, bitorder="little").reshape(*grid, length)


def unpack_indices(
    packed: UInt8[Array, "*grid bytes"], size: int, k: int
) -> tuple[Int[Array, "*grid k"], Bool[Array, ""]]:
    """Reads a stranger's code.

    Returns:
      ``(indices, well_formed)``: int32 indices, clipped to the block so that a bad code can be decoded without harm, and
      whether every block holds exactly one canonical code of k strictly increasing indices below ``size``.
    """
    *grid, _ = packed.shape
    low_bits, bitmap_bits, length = index_code(size, k)
    if length == 0:
        return jnp.broadcast_to(jnp.arange(k, dtype=jnp.int32), (*grid, k)), jnp.array(True)
    words = _to_words(packed.reshape(-1, length))
    bitmap = _first_bits(words, bitmap_bits)
    high = places_of(bitmap, k) - jnp.arange(k, dtype=jnp.int32)
    starts = bitmap_bits + low_bits * np.arange(k)
    indices = (high << low_bits) | _fields(words, starts, low_bits)
    used_of_last = bitmap_bits + low_bits * k - WORD * (words.shape[1] - 1)
    spare = words[:, -1] & np.uint32((2**WORD - 1) - (2**used_of_last - 1))
    count = jnp.sum(jax.lax.population_count(bitmap).astype(jnp.int32), axis=1)
    well_formed = jnp.all((count == k) & (spare == 0)) & jnp.all(_gaps(indices, size) > 0)
    return jnp.clip(indices, 0, size - 1).reshape(*grid, k), well_formed


def _to_words(packed: Array) -> Array:
    """uint32 words of rows of bytes, the first byte lowest; bytes that the last word lacks are zero."""
    rows, length = packed.shape
    padded = jnp.pad(packed, ((0, 0), (0, -length % 4))).reshape(rows, -1, 4).astype(jnp.uint32)
    return (
        padded[:, :, 0]
        | padded[:, :, 1] << np.uint32(8)
        | padded[:, :, 2] << np.uint32(16)
        | padded[:, :, 3] << np.uint32(24)
    )


def _first_bits(words: Array, bits: int) -> Array:
    """The words that hold the first ``bits`` bits, the rest of the last one zero."""
    full = math.ceil(bits / WORD)
    widths = np.clip(bits - WORD * np.arange(full), 0, WORD)
    return words[:, :full] & ((1 << widths) - 1).astype(np.uint32)


def _fields(words: Array, starts: np.ndarray, width: int) -> Array:
    """The fields of ``width`` bits that begin at these bits, as int32.

    Which word holds a field is known beforehand: selecting among all of them is faster than a gather, which is not vectorised.
    """
    first, shift = starts // WORD, (starts % WORD).astype(np.uint32)
    split = shift + width > WORD
    rest = np.uint32(WORD) - np.maximum(shift, 1)  # a shift by a whole word is undefined, and never needed
    fields = jnp.zeros((words.shape[0], len(starts)), jnp.uint32)
    for number in range(words.shape[1]):
        word = words[:, number : number + 1]
        fields |= jnp.where(first == number, word >> shift, np.uint32(0))
        fields |= jnp.where(split & (first + 1 == number), word << rest, np.uint32(0))
    return (fields & np.uint32((1 << width) - 1)).astype(jnp.int32)


def _gaps(indices: Array, size: int) -> Array:
    """What lies between neighbours, -1 and ``size`` included: all positive where indices rise strictly and are in range.

    As a product with a constant matrix, exact for integers of this size: comparing neighbours directly makes a CPU decode
    everything twice.
    """
    k = indices.shape[1]
    differences = np.eye(k, k + 1, dtype=np.float32) - np.eye(k, k + 1, 1, dtype=np.float32)
    ends = np.zeros(k + 1, np.float32)
    ends[0] += 1
    ends[k] += size
    exact = jax.lax.Precision.HIGHEST
    return jnp.matmul(indices.astype(jnp.float32), differences, precision=exact) + ends
