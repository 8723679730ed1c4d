"""Exact top-k of every block, and its inverse."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def top_k(
    chunks: Float[Array, "chunks size"], k: int
) -> tuple[Int[Array, "chunks k"], Float[Array, "chunks k"]]:
    """The k entries of largest magnitude in each block, ties going to the smaller index.

    Args:
      chunks: float32 (on CPU other types select twenty times slower).
      k: 1 <= k <= size.

    Returns:
      ``(indices, values)``: int32 indices, strictly increasing in a block, and the entries there with their sign.
    """
    size = chunks.shape[1]
    if k == size:
        return jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), chunks.shape), chunks
    _, indices = jax.lax.top_k(jnp.abs(chunks), k)
    indices = jnp.sort(indices.astype(jnp.int32), axis=1)
    return indices, jnp.take_along_axis(chunks, indices, axis=1)


def scatter_add(
    chunks: Float[Array, "chunks size"], indices: Int[Array, "chunks k"], values: Float[Array, "chunks k"]
) -> Float[Array, "chunks size"]:
    """Adds ``values`` at ``indices`` of each block; the indices of a block must be strictly increasing."""
    rows = jnp.arange(chunks.shape[0])[:, None]
    return chunks.at[rows, indices].add(
        values, indices_are_sorted=True, unique_indices=True, mode="promise_in_bounds"
    )
