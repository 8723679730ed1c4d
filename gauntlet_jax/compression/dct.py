"""The orthonormal DCT-II of blocks, as one matrix product a side."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_FEWEST_ROWS = 128


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


@functools.partial(jax.jit, static_argnames="block")
def dct(blocks: Float[Array, "*grid size"], block: tuple[int, ...]) -> Float[Array, "*grid size"]:
    """The DCT-II of every block, along each of its sides.

    A block's coefficients are the same bits whatever the number of blocks it is transformed with, in ``jax.jit`` or not.

    Args:
      blocks: float32, a row-major block in the last axis.
      block: its sides, ``(rows, columns)`` or ``(length,)``.
    """
    if len(block) == 1:
        return _along_last(blocks, dct_matrix(block[0]))
    rows, columns = block
    cut = blocks.reshape(-1, rows, columns)
    # Rows first: this swap and the one that cut the tensor into blocks become one pass over memory.
    along_rows = _along_last(jnp.swapaxes(cut, 1, 2), dct_matrix(rows))
    return _along_last(jnp.swapaxes(along_rows, 1, 2), dct_matrix(columns)).reshape(blocks.shape)


@functools.partial(jax.jit, static_argnames="block")
def idct(coefficients: Float[Array, "*grid size"], block: tuple[int, ...]) -> Float[Array, "*grid size"]:
    """The inverse of ``dct``: the transform is orthonormal, so its transpose. The same promise about bits."""
    if len(block) == 1:
        return _along_last(coefficients, dct_matrix(block[0]).T)
    rows, columns = block
    cut = coefficients.reshape(-1, rows, columns)
    along_columns = _along_last(cut, dct_matrix(columns).T)
    along_rows = _along_last(jnp.swapaxes(along_columns, 1, 2), dct_matrix(rows).T)
    return jnp.swapaxes(along_rows, 1, 2).reshape(coefficients.shape)


def _along_last(blocks: Array, matrix: np.ndarray) -> Array:
    """``matrix @ v`` for every vector v in the last axis, as one product of a tall matrix.

    Blocks are rows of the left factor, never a batch axis (which costs ten times as much on a CPU) and never columns, since a
    row's bits do not depend on the other rows, where there are enough of them: below that other kernels are chosen.
    """
    rows = blocks.reshape(-1, matrix.shape[1])
    count = rows.shape[0]
    if count < _FEWEST_ROWS:
        rows = jnp.pad(rows, ((0, _FEWEST_ROWS - count), (0, 0)))
    # The highest precision, since an accelerator's default would round the products to 10 bits.
    return jnp.matmul(rows, matrix.T, precision=jax.lax.Precision.HIGHEST)[:count].reshape(blocks.shape)
