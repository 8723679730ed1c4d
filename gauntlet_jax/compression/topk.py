"""Exact top-k of every block, and its inverse.

Selection is by bisection of the magnitudes' bit patterns, which are ordered as the magnitudes are: integers alone, so every
backend selects the same entries, ties and all. A large block is first cut into short runs: the top k entries lie in the k runs
with the largest maxima, so that most of a block is read once.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gauntlet_jax.compression.bitmaps import keep_lowest, places_of, to_words

_LANES = 32
"""Counts are added in this many columns at once, which a compiler turns into vector instructions."""


def top_k(
    blocks: Float[Array, "*grid size"], k: int
) -> tuple[Int[Array, "*grid k"], Float[Array, "*grid k"]]:
    """The k entries of largest magnitude in each block, ties going to the smaller index.

    Args:
      blocks: float32. NaN counts as larger than every number.
      k: 1 <= k <= size.

    Returns:
      ``(indices, values)``: int32 indices, strictly increasing in a block, and the entries there with their sign.
    """
    *grid, size = blocks.shape
    if k == size:
        return jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), blocks.shape), blocks
    rows = blocks.reshape(-1, size)
    run = _run_length(size, k)
    if run == 1:
        indices = _largest(_pattern(rows), k)
    else:
        runs = rows.reshape(rows.shape[0], size // run, run)
        chosen = _largest(jnp.max(_pattern(runs), axis=2), k)
        candidates = jnp.take_along_axis(runs, chosen[:, :, None], axis=1, mode="promise_in_bounds")
        places = _largest(_pattern(candidates).reshape(rows.shape[0], k * run), k)
        starts = jnp.take_along_axis(chosen, places // run, axis=1, mode="promise_in_bounds")
        indices = starts * run + places % run
    values = jnp.take_along_axis(rows, indices, axis=1, mode="promise_in_bounds")
    return indices.reshape(*grid, k), values.reshape(*grid, k)


def scatter_add(
    blocks: Float[Array, "*grid size"], indices: Int[Array, "*grid k"], values: Float[Array, "*grid k"]
) -> Float[Array, "*grid size"]:
    """Adds ``values`` at ``indices`` of each block; the indices of a block must be strictly increasing."""
    *_, size = blocks.shape
    rows = indices.reshape(-1, indices.shape[-1])
    starts = jnp.arange(rows.shape[0], dtype=jnp.int32)[:, None]
    return (
        blocks.reshape(-1, size)
        .at[starts, rows]
        .add(
            values.reshape(rows.shape),
            indices_are_sorted=True,
            unique_indices=True,
            mode="promise_in_bounds",
        )
        .reshape(blocks.shape)
    )


def _run_length(size: int, k: int) -> int:
    """Entries a run, so that the maxima and the k runs' entries are fewest in all; 1 where runs do not pay."""
    read = {run: size // run + k * run for run in (2, 4, 8, 16, 32) if size % run == 0 and size // run > k}
    best = min(read, key=read.__getitem__, default=1)
    return best if best > 1 and 2 * read[best] < size else 1


def _pattern(values: Array) -> Array:
    """The bit pattern of ``|v|`` as an int32: ordered as the magnitudes are."""
    return jax.lax.bitcast_convert_type(values, jnp.int32) & np.int32(0x7FFFFFFF)


def _largest(keys: Int[Array, "rows size"], k: int) -> Int[Array, "rows k"]:
    """The places of the k largest of each row of keys >= 0, rising; of equal ones the first."""
    rows, size = keys.shape
    padded = jnp.pad(keys, ((0, 0), (0, -size % _LANES)), constant_values=-1)
    lanes = padded.reshape(rows, -1, _LANES)

    def count(at_least: Array) -> Array:
        return jnp.sum(
            sum((lanes[:, i] >= at_least).astype(jnp.int32) for i in range(lanes.shape[1])), axis=1
        )

    def bisect(step: Array, threshold: Array) -> Array:
        trial = threshold | (jnp.int32(1) << (30 - step))
        return jnp.where((count(trial[:, None]) >= k)[:, None], trial[:, None], threshold[:, None])[:, 0]

    # Zeros made of the keys, so that inside shard_map they are known to differ from device to device.
    threshold = jax.lax.fori_loop(0, 31, bisect, keys[:, 0] & 0)[:, None]
    above, equal = to_words(padded > threshold), to_words(padded == threshold)
    room = k - jnp.sum(jax.lax.population_count(above).astype(jnp.int32), axis=1)
    return places_of(above | keep_lowest(equal, room), k)
