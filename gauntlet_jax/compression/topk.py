"""Exact top-k of every block, and its inverse."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def top_k(
    blocks: Float[Array, "*grid size"], k: int
) -> tuple[Int[Array, "*grid k"], Float[Array, "*grid k"]]:
    """The k entries of largest magnitude in each block, ties going to the smaller index.

    Args:
      blocks: float32 (on CPU other types select twenty times slower).
      k: 1 <= k <= size.

    Returns:
      ``(indices, values)``: int32 indices, strictly increasing in a block, and the entries there with their sign.
    """
    size = blocks.shape[-1]
    if k == size:
        return jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), blocks.shape), blocks
    _, indices = jax.lax.top_k(jnp.abs(blocks), k)
    indices = jnp.sort(indices.astype(jnp.int32), axis=-1)
    return indices, jnp.take_along_axis(blocks, indices, axis=-1)


def scatter_add(
    blocks: Float[Array, "*grid size"], indices: Int[Array, "*grid k"], values: Float[Array, "*grid k"]
) -> Float[Array, "*grid size"]:
    """Adds ``values`` at ``indices`` of each block; the indices of a block must be strictly increasing."""
    flat = blocks.reshape(-1, blocks.shape[-1])
    rows = jnp.arange(flat.shape[0])[:, None]
    added = flat.at[rows, indices.reshape(-1, indices.shape[-1])].add(
        values.reshape(-1, values.shape[-1]),
        indices_are_sorted=True,
        unique_indices=True,
        mode="promise_in_bounds",
    )
    return added.reshape(blocks.shape)
