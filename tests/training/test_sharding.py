import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from gauntlet_jax.compression.chunking import block_side
from gauntlet_jax.training.model import DecoderConfig, init_params, make_loss_fn, stacked_axes
from gauntlet_jax.training.sharding import make_mesh, make_shardings
from gauntlet_jax.training.train_step import gradient_steps

# Wide enough that eight devices can share a matrix at multiples of 64.
CONFIG = DecoderConfig(vocabulary=512, width=128, layers=2, heads=2, kv_heads=1, intermediate=512, scan=True)
TOKENS = np.random.default_rng(0).integers(0, 512, (8, 5)).astype(np.int32)


@functools.cache
def params():
    return jax.jit(functools.partial(init_params, CONFIG))(jax.random.key(0))


@functools.cache
def gradient(mesh_shape):
    data, fsdp, tensor = mesh_shape
    mesh = make_mesh(data=data, fsdp=fsdp, tensor=tensor)
    shardings = make_shardings(mesh, params(), stacked=stacked_axes(params()))
    steps = gradient_steps(make_loss_fn(CONFIG), shardings)
    placed = jax.device_put(params(), shardings.params)
    return shardings, placed, steps.mean(placed, [TOKENS, TOKENS[::-1].copy()])


@pytest.mark.parametrize("mesh_shape", [(2, 2, 2), (1, 8, 1), (1, 1, 8), (8, 1, 1)])
def test_eight_devices_compute_the_gradient_of_one(mesh_shape):
    shardings, placed, eight = gradient(mesh_shape)
    _, _, one = gradient((1, 1, 1))
    pieces = set()
    for leaf, got, expected, sharding in zip(
        *map(jax.tree.leaves, (placed, eight, one, shardings.params)), strict=True
    ):
        assert got.sharding == sharding and len(leaf.sharding.device_set) == 8
        pieces.add(leaf.size // leaf.addressable_shards[0].data.size)
        scale = np.abs(np.asarray(expected)).max()
        assert scale > 1e-5
        np.testing.assert_allclose(got, expected, atol=1e-4 * scale)
    assert pieces == ({1, 2, 4} if mesh_shape == (2, 2, 2) else {1} if mesh_shape[0] == 8 else {1, 8})


@pytest.mark.parametrize("mesh_shape", [(2, 2, 2), (1, 8, 1), (1, 1, 8)])
def test_an_axis_is_cut_at_multiples_of_its_block(mesh_shape):
    _, placed, _ = gradient(mesh_shape)
    cut = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(placed):
        stack = int(path[0].key == "layers")
        part = leaf.addressable_shards[0].data.shape
        for axis, (whole, own) in enumerate(zip(leaf.shape, part, strict=True)):
            if own == whole:
                continue
            cut += 1
            assert axis >= stack and leaf.ndim - stack == 2, "layers and vectors stay whole"
            assert own % block_side(whole) == 0
    assert cut > 0


def specs(mesh_shape, shapes, **kwargs):
    data, fsdp, tensor = mesh_shape
    tree = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    shardings = make_shardings(make_mesh(data=data, fsdp=fsdp, tensor=tensor), tree, **kwargs)
    return {name: tuple(sharding.spec) for name, sharding in shardings.params.items()}


def test_placements_by_hand():
    shapes = {
        "up": (256, 512),  # rows over fsdp, columns over tensor
        "down": (512, 256),  # rows over tensor: they are the columns of "up"
        "short": (64, 512),  # rows are one block: fsdp takes the columns, and tensor finds nothing left
        "narrow": (256, 96),  # columns are two blocks of 48
        "deep": (3, 256, 512),  # layers stay together
    }
    assert specs((1, 2, 2), shapes) == {
        "up": ("fsdp", "tensor"),
        "down": ("tensor", "fsdp"),
        "short": (None, "fsdp"),
        "narrow": ("fsdp", "tensor"),
        "deep": (None, "fsdp", "tensor"),
    }


def test_impossible_cuts_are_left_out():
    shapes = {"prime": (131, 7), "block": (64, 64), "three": (192, 192), "rows": (128, 64), "vector": (512,)}
    assert specs((1, 2, 2), shapes) == {
        "prime": (None, None),
        "block": (None, None),
        "three": (None, None),
        "rows": ("fsdp", None),
        "vector": (),
    }


def test_an_axis_of_one_device_takes_no_place_from_another():
    assert specs((1, 1, 4), {"rows": (512, 64), "none": (128, 128)}) == {
        "rows": ("tensor", None),
        "none": (None, None),
    }
    assert specs((1, 4, 1), {"down": (64, 512)}) == {"down": (None, "fsdp")}
    assert specs((1, 1, 1), {"w": (512, 512)}) == {"w": (None, None)}


def test_a_stack_of_vectors_is_replicated():
    assert specs((1, 2, 2), {"norms": (128, 512)}, stacked={"norms": 1}) == {"norms": ()}
    assert specs((1, 2, 2), {"norms": (128, 512)}) == {"norms": ("fsdp", "tensor")}


def test_batches_lie_over_data_and_fsdp():
    shardings = make_shardings(make_mesh(data=2, fsdp=2), {"w": jnp.zeros((2, 2))})
    assert shardings.batch.spec == PartitionSpec(("data", "fsdp"))
    assert jax.device_put(TOKENS, shardings.batch).addressable_shards[0].data.shape == (2, 5)
    assert shardings.replicated.is_fully_replicated


def test_a_mesh_takes_the_devices_it_asks_for():
    assert make_mesh().devices.shape == (1, 1, 1)
    assert list(make_mesh(fsdp=2).devices.flat) == jax.devices()[:2]
    given = jax.devices()[5:7]
    assert list(make_mesh(tensor=2, devices=given).devices.flat) == given


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"data": 3, "fsdp": 3}, "3x3x1 .* needs 9 devices, 8 are there"),
        ({"data": 0}, "0x1x1"),
        ({"data": -1, "fsdp": -1}, "-1x-1x1"),
    ],
)
def test_too_few_devices_is_one_line(axes, says):
    with pytest.raises(ValueError, match=says):
        make_mesh(**axes)
