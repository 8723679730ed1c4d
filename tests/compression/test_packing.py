import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet_jax.compression import demo, pack, packed_shapes, sizes, sparseloco, unpack
from gauntlet_jax.training.model import PAPER_1B, init_params, stacked_axes

SHAPES = {"vector": (5,), "odd": (7, 9), "wide": (96, 130), "stack": (3, 8, 6), "norms": (3, 10)}
STACKED = {"vector": 0, "odd": 0, "wide": 0, "stack": 1, "norms": 1}
PARAMS = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
BITS = [2, 8, 32]


@functools.cache
def machine(bits):
    """A compressor and its jitted encoder and reader."""
    compressor = demo(PARAMS, k=4, bits=bits, stacked=STACKED)
    fmt = compressor.format

    def encode(gradient):
        sent, _ = compressor.update(compressor.init(PARAMS), gradient)
        return sent, pack(fmt, sent)

    def read(arrays):
        sent, well_formed = unpack(fmt, arrays)
        return sent, well_formed, compressor.decode(sent)

    return fmt, jax.jit(encode), jax.jit(read)


def gradients(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("bits", BITS)
def test_bytes_are_counted_exactly(bits):
    fmt, encode, _ = machine(bits)
    _, packed = encode(gradients())
    size = sizes(fmt)

    def nbytes(field):
        return sum(getattr(tensor, field).nbytes for tensor in packed.values())

    assert (nbytes("indices"), nbytes("codes"), nbytes("scales")) == (
        size.index_bytes,
        size.code_bytes,
        size.scale_bytes,
    )
    assert size.bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(packed))
    shapes = packed_shapes(fmt)
    assert jax.tree.structure(shapes) == jax.tree.structure(packed)
    for leaf, expected in zip(jax.tree.leaves(packed), jax.tree.leaves(shapes), strict=True):
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)
    assert size.parameters == sum(np.prod(shape) for shape in SHAPES.values())
    # blocks: (5,) one, (7, 9) one, (48, 26) ten, (8, 6) three, (10,) three
    assert size.values == 4 * (1 + 1 + 10 + 3 + 3)
    assert size.compression == 4 * size.parameters / size.bytes
    assert size.bits_per_value == 8 * size.bytes / size.values


def test_code_bytes_by_hand():
    blocks = np.array([1, 1, 10, 3, 3])
    assert sizes(machine(2)[0]).code_bytes == blocks.sum()  # four 2-bit codes a block
    assert sizes(machine(8)[0]).code_bytes == 4 * blocks.sum()
    assert sizes(machine(32)[0]).code_bytes == 16 * blocks.sum()
    one_of_five = sparseloco({"v": jax.ShapeDtypeStruct((5,), jnp.float32)}, k=3, bits=2).format
    assert sizes(one_of_five).code_bytes == 1  # 6 bits in whole bytes


@pytest.mark.parametrize("bits", BITS)
def test_what_is_packed_comes_back(bits):
    _, encode, read = machine(bits)
    sent, packed = encode(gradients())
    again, well_formed, _ = read(packed)
    assert well_formed
    assert jax.tree.structure(again) == jax.tree.structure(sent)
    for got, expected in zip(jax.tree.leaves(again), jax.tree.leaves(sent), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("bits", BITS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_random_bytes_are_refused_and_harmless(bits, seed):
    fmt, _, read = machine(bits)
    rng = np.random.default_rng(seed)
    packed = jax.tree.map(
        lambda a: np.frombuffer(rng.bytes(int(np.prod(a.shape)) * a.dtype.itemsize), a.dtype).reshape(
            a.shape
        ),
        packed_shapes(fmt),
    )
    _, well_formed, decoded = read(packed)
    assert not well_formed
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(decoded))


def changed(packed, tensor, **fields):
    """The same with a field of one tensor set at its first block."""
    arrays = {name: np.array(getattr(packed[tensor], name)) for name in fields}
    for name, value in fields.items():
        arrays[name][(0,) * packed[tensor].scales.ndim] = value
    return {**packed, tensor: packed[tensor]._replace(**arrays)}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e30, -0.0])
def test_a_bad_scale_is_refused_and_its_tensor_reads_as_zeros(bits, value):
    _, encode, read = machine(bits)
    _, packed = encode(gradients())
    scale = np.array(value, np.float32).view(np.uint32) >> 16
    _, well_formed, decoded = read(changed(packed, "wide", scales=scale))
    assert not well_formed
    for name, leaf in decoded.items():
        assert np.isfinite(leaf).all()
        assert np.any(leaf) == (name != "wide")


def test_a_value_that_is_not_a_number_is_refused():
    _, encode, read = machine(32)
    _, packed = encode(gradients())
    _, well_formed, decoded = read(changed(packed, "odd", codes=np.nan))
    assert not well_formed
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(decoded))


@pytest.mark.parametrize("bits", [2, 8])
def test_a_block_of_zeros_is_written_in_one_way(bits):
    """Or whoever copies it could change bytes and say the same."""
    _, encode, read = machine(bits)
    _, silent = encode(jax.tree.map(np.zeros_like, gradients()))
    assert read(silent)[1]
    _, loud = encode(gradients())
    assert not read(changed(silent, "wide", codes=1))[1]
    elsewhere = np.asarray(loud["wide"].indices)[0, 0]
    assert not read(changed(silent, "wide", indices=elsewhere))[1]


def test_spare_bits_must_be_zero():
    shape = {"v": jax.ShapeDtypeStruct((5,), jnp.float32)}
    compressor = sparseloco(shape, k=3, bits=2)
    sent, _ = compressor.update(compressor.init(shape), {"v": jnp.arange(5.0)})
    packed = pack(compressor.format, sent)
    assert unpack(compressor.format, packed)[1]
    spare = {"v": packed["v"]._replace(codes=packed["v"].codes | np.uint8(0b11_000000))}
    assert not unpack(compressor.format, spare)[1]
    assert packed["v"].codes[0, 0] < 0b01_000000


@pytest.mark.parametrize("bits", [2, 8])
@settings(max_examples=15, deadline=None)
@given(at=st.integers(0, 2**20))
def test_equal_payloads_have_equal_bytes(bits, at):
    """A flipped bit of indices or codes is refused, or says something else."""
    _, encode, read = machine(bits)
    sent, packed = encode(gradients())
    for name in ("indices", "codes"):
        array = np.array(getattr(packed["wide"], name))
        place = at % (8 * array.size)
        array.reshape(-1)[place // 8] ^= np.uint8(1 << place % 8)
        again, well_formed, _ = read({**packed, "wide": packed["wide"]._replace(**{name: array})})
        equal = all(
            np.array_equal(a, b) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(sent), strict=True)
        )
        assert not (well_formed and equal)


def test_the_papers_model():
    params = jax.eval_shape(functools.partial(init_params, PAPER_1B), jax.random.key(0))
    fmt = demo(params, stacked=stacked_axes(params)).format
    size = sizes(fmt)
    assert size.parameters == 1_204_881_408
    assert size.values == 9_446_400
    matrices = [layout for layout in fmt.leaves() if len(layout.block) == 2]
    vectors = [layout for layout in fmt.leaves() if len(layout.block) == 1]
    assert sum(layout.chunks for layout in matrices) == 294_144
    assert sum(layout.chunks for layout in vectors) == 1_056
    assert size.code_bytes == 9_446_400
    assert 8 * size.index_bytes / size.values < 9.1
    assert size.bits_per_value < 8 + 9.1 + 0.6
    assert size.compression > 230
