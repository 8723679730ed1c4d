import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet_jax.compression.index_coding import index_code, pack_indices, unpack_indices

# Few, since each compiles: one of many, all, sizes that are no power of two, no low bits, a paper's block.
SHAPES = [(8, 1), (8, 8), (1, 1), (7, 3), (63, 32), (64, 32), (100, 7), (1248, 32), (4096, 32), (4096, 64)]


@functools.cache
def unpack(size, k):
    return jax.jit(functools.partial(unpack_indices, size=size, k=k))


@functools.cache
def pack(size):
    return jax.jit(functools.partial(pack_indices, size=size))


def draw(size, k, chunks, seed):
    rng = np.random.default_rng(seed)
    return np.stack([np.sort(rng.choice(size, k, replace=False)) for _ in range(chunks)]).astype(np.int32)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32))
def test_every_set_of_indices_comes_back(shape, seed):
    size, k = shape
    indices = draw(size, k, 3, seed)
    packed = pack(size)(indices)
    assert packed.shape == (3, index_code(size, k).bytes)
    decoded, well_formed = unpack(size, k)(packed)
    assert well_formed and decoded.dtype == jnp.int32
    np.testing.assert_array_equal(decoded, indices)


@pytest.mark.parametrize(("size", "k"), SHAPES)
def test_the_ends_of_a_block_come_back(size, k):
    ends = np.stack([np.arange(k), np.arange(size - k, size)]).astype(np.int32)
    decoded, well_formed = unpack(size, k)(pack(size)(ends))
    assert well_formed
    np.testing.assert_array_equal(decoded, ends)


def test_a_code_by_hand():
    # 8 entries, indices 1, 2, 7: l = 1, high parts 0, 1, 3 set bits 0, 2, 5 of 6; low bits 1, 0, 1 follow.
    assert index_code(8, 3) == (1, 6, 2)
    packed = pack_indices(jnp.array([[1, 2, 7]], jnp.int32), 8)
    np.testing.assert_array_equal(packed, [[0b01_100101, 0b1]])


@pytest.mark.parametrize(("size", "k"), SHAPES)
def test_the_width_is_the_shortest(size, k):
    code = index_code(size, k)
    if k == size:
        assert code.bytes == 0
        return
    lengths = [k * low + k - 1 + -(-size // 2**low) for low in range(size.bit_length())]
    assert k * code.low_bits + code.bitmap_bits == min(lengths)
    assert code.bytes == -(-min(lengths) // 8)
    assert 8 * code.bytes >= math.log2(math.comb(size, k))


@pytest.mark.parametrize(("k", "at_most", "entropy"), [(32, 9.1, 8.318), (64, 8.0, 7.364)])
def test_bits_an_index_are_near_the_entropy(k, at_most, entropy):
    packed = pack(4096)(draw(4096, k, 5, 0))
    bits = 8 * packed.nbytes / (5 * k)
    assert math.log2(math.comb(4096, k)) / k == pytest.approx(entropy, abs=1e-3)
    assert entropy < bits <= at_most


@pytest.mark.parametrize(("size", "k"), [(8, 3), (63, 32), (100, 7), (4096, 32)])
def test_no_other_bytes_are_a_code_of_the_same_indices(size, k):
    indices = draw(size, k, 1, 1)
    code = np.unpackbits(np.asarray(pack(size)(indices)), axis=1)
    every = np.repeat(code, code.shape[1], axis=0)
    every[np.arange(len(every)), np.arange(len(every))] ^= 1
    flipped = np.packbits(every, axis=1)
    decoded, well_formed = jax.vmap(lambda one: unpack_indices(one, size, k))(jnp.asarray(flipped)[:, None])
    assert not well_formed.all(), "a flip in the bitmap leaves k +- 1 bits"
    same = (np.asarray(decoded)[:, 0] == indices).all(axis=1)
    assert not (same & np.asarray(well_formed)).any()


def test_exactly_the_sets_of_indices_are_codes():
    # Of all 2**16 strings for 3 of 8 (9 bits are used), C(8, 3) = 56 are accepted, each a set of its own.
    strings = np.arange(2**16, dtype="<u2").view(np.uint8).reshape(-1, 1, 2)
    decoded, well_formed = jax.vmap(lambda one: unpack_indices(one, 8, 3))(jnp.asarray(strings))
    accepted = np.asarray(decoded)[np.asarray(well_formed), 0]
    assert len(accepted) == len({tuple(row) for row in accepted}) == math.comb(8, 3)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**32), st.floats(0, 1))
def test_any_bytes_decode_in_range(shape, seed, density):
    size, k = shape
    bits = np.random.default_rng(seed).random((3, index_code(size, k).bytes * 8)) < density
    packed = np.packbits(bits, axis=1)
    decoded, well_formed = unpack(size, k)(packed)
    decoded = np.asarray(decoded)
    assert decoded.shape == (3, k) and decoded.min() >= 0 and decoded.max() < size
    if well_formed:
        assert (np.diff(decoded, axis=1) > 0).all()
        np.testing.assert_array_equal(pack(size)(decoded), packed)


@pytest.mark.parametrize("fault", ["descending", "duplicate", "out of range", "one bad block of many"])
def test_faults_of_a_stranger(fault):
    size, k = 100, 7
    indices = draw(size, k, 4, 2)
    low = 2 ** index_code(size, k).low_bits
    match fault:
        case "descending":  # within one high part, where the bitmap cannot tell
            indices[0, :2] = [1, 0]
            indices[0, 2:] = np.arange(low, low + k - 2)
        case "duplicate":
            indices[0] = np.arange(k)
            indices[0, 1] = 0
        case "out of range":
            indices[0, -1] = size + 1
        case _:
            indices[3] = np.sort(indices[3])[::-1] % low  # all in one high part, not rising
    decoded, well_formed = unpack(size, k)(pack(size)(indices))
    assert not well_formed
    assert np.asarray(decoded).max() < size


def by_hand(indices, size):
    """Elias-Fano code of one block, bit by bit, as a row of bytes."""
    low_bits, bitmap_bits, length = index_code(size, len(indices))
    bits = [0] * (8 * length)
    for number, index in enumerate(indices):
        bits[(index >> low_bits) + number] = 1
        for bit in range(low_bits):
            bits[bitmap_bits + number * low_bits + bit] = index >> bit & 1
    return [sum(bits[8 * at + bit] << bit for bit in range(8)) for at in range(length)]


@pytest.mark.parametrize(("size", "k"), [(7, 3), (64, 32), (1248, 32), (4096, 32), (4096, 64)])
def test_plain_python_codes_the_same(size, k):
    indices = draw(size, k, 4, seed=size + k)
    np.testing.assert_array_equal(pack(size)(indices), [by_hand(row.tolist(), size) for row in indices])
    grid = pack_indices(jnp.asarray(indices).reshape(2, 2, k), size)
    np.testing.assert_array_equal(grid.reshape(4, -1), pack(size)(indices))
    np.testing.assert_array_equal(unpack_indices(grid, size, k)[0].reshape(4, k), indices)
