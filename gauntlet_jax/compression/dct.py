"""The orthonormal DCT-II of blocks, as matrix products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


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


def dct(blocks: Float[Array, "*grid size"], block: tuple[int, ...]) -> Float[Array, "*grid size"]:
    """The DCT-II of every block, along each of its sides."""
    return _transform(blocks, block, [dct_matrix(side) for side in block])


def idct(coefficients: Float[Array, "*grid size"], block: tuple[int, ...]) -> Float[Array, "*grid size"]:
    """The inverse of ``dct``: the transform is orthonormal, so its transpose."""
    return _transform(coefficients, block, [dct_matrix(side).T for side in block])


def _transform(blocks: Array, block: tuple[int, ...], matrices: list[np.ndarray]) -> Array:
    # The highest precision, since an accelerator's default would round the products to 10 bits.
    highest = jax.lax.Precision.HIGHEST
    if len(block) == 1:
        return jnp.matmul(blocks, matrices[0].T, precision=highest)
    sides = blocks.reshape(-1, *block)
    along_rows = jnp.matmul(sides, matrices[1].T, precision=highest)
    return jnp.matmul(matrices[0], along_rows, precision=highest).reshape(blocks.shape)
