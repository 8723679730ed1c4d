import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet_jax.compression.chunking import (
    Layout,
    block_side,
    from_blocks,
    is_layout,
    layout_of,
    layouts_of,
    to_blocks,
)


@pytest.mark.parametrize(
    ("length", "side"),
    [
        (2048, 64),
        (8192, 64),
        (32_000, 64),
        (262_208, 64),
        (96, 48),
        (130, 26),
        (64, 64),
        (63, 63),
        (7, 7),
        (1, 1),
        (131, 1),
        (134, 2),
    ],
)
def test_block_side(length, side):
    assert block_side(length) == side


@given(st.integers(1, 5000), st.integers(1, 80))
def test_no_larger_divisor_fits(length, largest):
    side = block_side(length, largest=largest)
    assert length % side == 0 and side <= largest
    assert not any(length % other == 0 for other in range(side + 1, min(length, largest) + 1))


@pytest.mark.parametrize(
    ("shape", "stack", "expected"),
    [
        ((96, 130), None, Layout((96, 130), 0, (48, 26))),
        ((5,), None, Layout((5,), 0, (5,))),
        ((), None, Layout((), 0, (1,))),
        ((3, 8, 6), None, Layout((3, 8, 6), 1, (8, 6))),
        ((3, 8), 1, Layout((3, 8), 1, (8,))),  # a stack of vectors, not a matrix
        ((3, 8), 0, Layout((3, 8), 0, (3, 8))),
        ((4,), 1, Layout((4,), 1, (1,))),  # a stack of scalars
        ((2, 3, 8, 6), None, Layout((2, 3, 8, 6), 2, (8, 6))),
        ((2, 3, 8, 6), 1, Layout((2, 3, 8, 6), 2, (8, 6))),  # at most two axes make a block
    ],
)
def test_layout_table(shape, stack, expected):
    layout = layout_of(shape, stack=stack)
    assert layout == expected
    assert layout.chunks * layout.size == np.prod(shape, dtype=int)
    assert layout.chunks == np.prod(layout.grid) and len(layout.grid) == layout.stack + len(layout.block)


def test_shapes_without_a_layout_are_refused():
    with pytest.raises(ValueError, match="holds nothing"):
        layout_of((3, 0))
    with pytest.raises(ValueError, match="stack 3"):
        layout_of((3, 4), stack=3)
    with pytest.raises(ValueError, match="stack -1"):
        layout_of((3, 4), stack=-1)


def test_a_pytree_is_laid_out_leaf_by_leaf():
    params = {"stack": jax.ShapeDtypeStruct((3, 8), jnp.float32), "w": jnp.zeros((4, 6))}
    assert layouts_of(params) == {"stack": layout_of((3, 8)), "w": layout_of((4, 6))}
    marked = layouts_of(params, stacked={"stack": 1, "w": 0})
    assert marked == {"stack": layout_of((3, 8), stack=1), "w": layout_of((4, 6))}
    assert all(is_layout(leaf) for leaf in jax.tree.leaves(marked, is_leaf=is_layout))


def cut_by_hand(tensor, layout):
    """Blocks in row-major order, layer after layer, by indexing alone."""
    layers = tensor.reshape(-1, *tensor.shape[layout.stack :])
    if len(layout.block) == 1:
        return np.concatenate([layer.reshape(-1, layout.block[0]) for layer in layers])
    rows, columns = layout.block
    return np.stack(
        [
            layer[i : i + rows, j : j + columns].reshape(-1)
            for layer in layers
            for i in range(0, layer.shape[0], rows)
            for j in range(0, layer.shape[1], columns)
        ]
    )


@pytest.mark.parametrize(
    ("shape", "stack", "largest"),
    [
        ((6, 8), 0, 4),
        ((12,), 0, 5),
        ((3, 6, 8), 1, 4),
        ((2, 3, 4, 6), 2, 2),
        ((3, 10), 1, 4),
        ((7, 9), 0, 64),
    ],
)
def test_the_order_of_blocks_and_the_inverse(shape, stack, largest):
    layout = layout_of(shape, stack=stack, largest=largest)
    tensor = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    blocks = to_blocks(jnp.asarray(tensor), layout)
    assert blocks.shape == (*layout.grid, layout.size)
    np.testing.assert_array_equal(blocks.reshape(-1, layout.size), cut_by_hand(tensor, layout))
    np.testing.assert_array_equal(from_blocks(blocks, layout), tensor)


def test_a_stack_is_its_layers_one_after_another():
    layers = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
    layout, alone = layout_of((3, 6, 8), largest=4), layout_of((6, 8), largest=4)
    each = np.stack([to_blocks(jnp.asarray(layer), alone) for layer in layers])
    np.testing.assert_array_equal(to_blocks(jnp.asarray(layers), layout), each)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=4), st.integers(1, 5))
def test_any_tensor_comes_back(shape, largest):
    layout = layout_of(tuple(shape), largest=largest)
    tensor = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    blocks = to_blocks(jnp.asarray(tensor), layout)
    np.testing.assert_array_equal(from_blocks(blocks, layout), tensor)


def test_a_piece_cut_between_blocks_is_cut_like_the_whole():
    layout = layout_of((3, 12, 8), largest=2)
    tensor = np.random.default_rng(0).normal(size=(3, 12, 8)).astype(np.float32)
    whole = np.asarray(to_blocks(jnp.asarray(tensor), layout))
    piece = to_blocks(jnp.asarray(tensor[:, 4:10, 2:4]), layout)
    np.testing.assert_array_equal(piece, whole[:, 2:5, 1:2])
    np.testing.assert_array_equal(from_blocks(piece, layout), tensor[:, 4:10, 2:4])


@pytest.mark.parametrize(
    ("shape", "stack", "parts", "axis"),
    [
        ((256, 512), 0, 1, None),
        ((256, 512), 0, 4, 1),  # 4 and 8 blocks: the axis with more
        ((512, 512), 0, 4, 0),  # the first of equals
        ((128, 512), 0, 8, 1),
        ((3, 128, 192), 1, 2, 1),  # three blocks cannot be halved
        ((192, 192), 0, 2, None),
        ((4, 512), 1, 4, None),  # a stack of vectors
        ((512,), 0, 2, None),
        ((262_208, 8192), 0, 64, 1),  # 4097 blocks of 64
        ((32_000, 2048), 0, 4, 1),  # 500 blocks could be dealt out to 4, but no further
    ],
)
def test_the_axis_along_which_a_tensor_is_dealt_out(shape, stack, parts, axis):
    assert layout_of(shape, stack=stack).cut_axis(parts) == axis
