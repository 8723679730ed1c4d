"""The orthonormal DCT-II of blocks, as matrix products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gauntlet_jax.compression.chunking import Layout


@functools.cache
def dct_matrix(length: int) -> np.ndarray:
    """The orthonormal DCT-II as a matrix: ``C[k, n] = s_k cos(pi (2n + 1) k / 2N)``, with ``C @ C.T = 1``.

    Args:
      length: N, the side of a block.

    Returns:
      float32[N, N], computed in double precision.
    """
    k = np.arange(length)[:, None]
    n = np.arange(length)[None, :]
    matrix = np.sqrt(2.0 / length) * np.cos(np.pi * (2 * n + 1) * k / (2 * length))
    matrix[0] /= np.sqrt(2.0)
    return matrix.astype(np.float32)


def dct(chunks: Float[Array, "chunks size"], layout: Layout) -> Float[Array, "chunks size"]:
    """The DCT-II of every block of ``to_chunks``, along each of its sides."""
    return _transform(chunks, layout, [dct_matrix(side) for side in layout.block])


def idct(coefficients: Float[Array, "chunks size"], layout: Layout) -> Float[Array, "chunks size"]:
    """The inverse of ``dct``: the transform is orthonormal, so its transpose."""
    return _transform(coefficients, layout, [dct_matrix(side).T for side in layout.block])


def _transform(chunks: Array, layout: Layout, matrices: list[np.ndarray]) -> Array:
    # The highest precision, since an accelerator's default would round the products to 10 bits.
    highest = jax.lax.Precision.HIGHEST
    if len(layout.block) == 1:
        return jnp.matmul(chunks, matrices[0].T, precision=highest)
    blocks = chunks.reshape(layout.chunks, *layout.block)
    along_rows = jnp.matmul(blocks, matrices[1].T, precision=highest)
    return jnp.matmul(matrices[0], along_rows, precision=highest).reshape(layout.chunks, layout.size)
