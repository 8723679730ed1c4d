"""Bitmaps of a block in 32-bit words, and the places of their set bits.

Selection and index coding both come down to "where is the i-th set bit". Words make that a few integer operations an answer,
without a sort or a scatter, on every backend and with the same result.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

WORD = 32
"""Bits a word; bit b of word w is place ``32 w + b``."""


def to_words(bits: Bool[Array, "rows places"]) -> UInt32[Array, "rows words"]:
    """Packs a row of booleans into words; what the last word has too many is zero."""
    rows, places = bits.shape
    words = math.ceil(places / WORD)
    padded = jnp.pad(bits, ((0, 0), (0, words * WORD - places))).reshape(rows, words, WORD)
    weights = np.uint32(1) << np.arange(WORD, dtype=np.uint32)
    return jnp.sum(jnp.where(padded, weights, np.uint32(0)), axis=2, dtype=jnp.uint32)


def places_of(words: UInt32[Array, "rows words"], k: int) -> Int[Array, "rows k"]:
    """The places of the first k set bits of each row, rising.

    Returns:
      int32. Where a row has fewer than k set bits, the rest are ``32 words - 1``.
    """
    rows, count = words.shape
    wanted = jnp.arange(k, dtype=jnp.int32)
    place = jnp.full((rows, k), WORD * (count - 1), jnp.int32)
    word = jnp.zeros((rows, k), jnp.uint32)
    left = jnp.full((rows, k), WORD, jnp.int32)
    before = jnp.zeros((rows, 1), jnp.int32)
    for number in range(count):
        own = words[:, number : number + 1]
        end = before + jax.lax.population_count(own).astype(jnp.int32)
        here = (wanted >= before) & (wanted < end)
        place = jnp.where(here, WORD * number, place)
        word = jnp.where(here, own, word)
        left = jnp.where(here, wanted - before, left)
        before = end
    return place + _nth_set_bit(word, left)


def keep_lowest(words: UInt32[Array, "rows words"], count: Int[Array, "rows"]) -> UInt32[Array, "rows words"]:
    """Clears all but the ``count`` lowest set bits of each row."""
    bits = jax.lax.population_count(words).astype(jnp.int32)
    spare = count[:, None] - (jnp.cumsum(bits, axis=1) - bits)  # how many this word may keep
    cut = _nth_set_bit(words, jnp.clip(spare, 0, WORD - 1))
    lower = words & ((np.uint32(1) << cut.astype(jnp.uint32)) - np.uint32(1))
    return jnp.where(spare >= bits, words, jnp.where(spare <= 0, np.uint32(0), lower))


def _nth_set_bit(word: Array, n: Array) -> Array:
    """The place of the n-th set bit (from 0) of each word by halving; 31 where there is none."""
    place = jnp.zeros_like(n)
    for width in (16, 8, 4, 2, 1):
        low = jax.lax.population_count(word & np.uint32((1 << width) - 1)).astype(jnp.int32)
        upper = n >= low
        n = jnp.where(upper, n - low, n)
        word = jnp.where(upper, word >> np.uint32(width), word)
        place = jnp.where(upper, place + width, place)
    return place
