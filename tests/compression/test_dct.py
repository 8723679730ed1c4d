import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from gauntlet_jax.compression.chunking import from_blocks, layout_of, to_blocks
from gauntlet_jax.compression.dct import dct, dct_matrix, idct


def blocks_of(shape, seed=0):
    layout = layout_of(shape)
    tensor = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return layout, to_blocks(jnp.asarray(tensor), layout)


def test_two_points_by_hand():
    half = np.sqrt(0.5)
    np.testing.assert_allclose(dct_matrix(2), [[half, half], [half, -half]], atol=1e-7)
    np.testing.assert_array_equal(dct_matrix(1), [[1.0]])


@pytest.mark.parametrize("length", [1, 2, 7, 48, 64])
def test_the_matrix_is_scipys_and_orthonormal(length):
    matrix = dct_matrix(length)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(length), atol=1e-6)
    np.testing.assert_allclose(matrix, scipy.fft.dct(np.eye(length), norm="ortho", axis=0), atol=1e-7)


@pytest.mark.parametrize("shape", [(5,), (192,), (7, 9), (96, 130), (3, 64, 10)])
def test_blocks_are_scipys(shape):
    layout, chunks = blocks_of(shape)
    blocks = np.asarray(chunks, np.float64).reshape(-1, *layout.block)
    axes = tuple(range(1, blocks.ndim))
    expected = scipy.fft.dctn(blocks, norm="ortho", axes=axes).reshape(chunks.shape)
    coefficients = dct(chunks, layout.block)
    np.testing.assert_allclose(coefficients, expected, atol=5e-6)
    np.testing.assert_allclose(idct(coefficients, layout.block), chunks, atol=5e-6)
    np.testing.assert_allclose(dct(idct(chunks, layout.block), layout.block), chunks, atol=5e-6)


def test_length_is_kept_and_a_constant_is_one_coefficient():
    layout, chunks = blocks_of((64, 128))
    norms = np.linalg.norm(np.asarray(chunks, np.float64), axis=-1)
    np.testing.assert_allclose(np.linalg.norm(dct(chunks, layout.block), axis=-1), norms, rtol=1e-6)
    flat = np.asarray(dct(jnp.full_like(chunks, 3.0), layout.block))
    np.testing.assert_allclose(flat[..., 0], 3.0 * 64, rtol=1e-6)
    np.testing.assert_allclose(flat[..., 1:], 0.0, atol=1e-4)


def test_one_coefficient_is_a_wave_in_its_own_block():
    layout = layout_of((6, 8), largest=4)
    coefficients = np.zeros((*layout.grid, layout.size), np.float32)
    coefficients[0, 1, 1 * layout.block[1] + 2] = 1.0  # the second block: rows 0-2, columns 4-7
    rows, columns = layout.block
    assert (rows, columns) == (3, 4)
    wave = np.outer(dct_matrix(3)[1], dct_matrix(4)[2])
    expected = np.zeros((6, 8), np.float32)
    expected[:3, 4:] = wave
    np.testing.assert_allclose(
        from_blocks(idct(jnp.asarray(coefficients), layout.block), layout), expected, atol=1e-6
    )


@pytest.mark.parametrize("block", [(64, 64), (45, 7), (64,)])
@pytest.mark.parametrize("transform", [dct, idct])
def test_a_block_has_the_same_bits_whatever_lies_beside_it(block, transform):
    """Shards hold a few blocks each, one device all of them: a product of matrices may round a row by the number of rows."""
    size = int(np.prod(block))
    blocks = np.random.default_rng(0).normal(size=(65, size)).astype(np.float32)
    whole = np.asarray(transform(jnp.asarray(blocks), block))
    for count in (1, 3, 8, 33):
        piece = blocks[65 - count :]
        alone = jax.jit(lambda b: transform(b * 1.0, block) + 0.0)(piece)
        np.testing.assert_array_equal(alone, whole[65 - count :])
    np.testing.assert_array_equal(
        transform(jnp.asarray(blocks).reshape(5, 13, size), block).reshape(65, size), whole
    )
