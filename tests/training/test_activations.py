"""Where activations lie, and how many sequences go through the model at a time: neither changes what is computed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gauntlet_jax.planning.collectives import collective_of
from gauntlet_jax.planning.hlo_text import parse
from gauntlet_jax.training.model import DecoderConfig, init_params, make_loss_fn, stacked_axes
from gauntlet_jax.training.sharding import make_mesh, make_shardings
from gauntlet_jax.training.train_step import gradient_steps

CONFIG = DecoderConfig(
    vocabulary=384, width=256, layers=2, heads=4, kv_heads=2, intermediate=512, scan=True, remat=True
)
TOKENS = np.asarray(jax.random.randint(jax.random.key(1), (16, 21), 0, 384), np.int32)


@pytest.fixture(scope="module")
def params():
    return init_params(CONFIG, jax.random.key(0))


def gradient_on(mesh, params, config=CONFIG, *, told=True):
    """The gradient under a mesh, and the compiled program."""
    shardings = make_shardings(mesh, params, stacked=stacked_axes(params))
    loss_fn = make_loss_fn(config, mesh) if told else make_loss_fn(config)
    compiled = gradient_steps(loss_fn, shardings).gradient.lower(params, TOKENS).compile()
    return compiled(
        jax.device_put(params, shardings.params), jax.device_put(TOKENS, shardings.batch)
    ), compiled


def assert_close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=3e-6 * float(np.abs(b).max()) + 1e-9, rtol=1e-4),
        found,
        expected,
    )


@pytest.mark.parametrize("axes", [(2, 2, 2), (1, 8, 1)])
def test_every_mesh_computes_the_gradient_of_one_device(params, axes):
    data, fsdp, tensor = axes
    mesh = make_mesh(data=data, fsdp=fsdp, tensor=tensor)
    plain = jax.jit(jax.grad(make_loss_fn(CONFIG)))(params, TOKENS)
    assert_close(gradient_on(mesh, params)[0], plain)


def features_moved(compiled, tokens):
    """Bytes of collectives on whole activations, such as sums over the features of all sequences."""
    program = parse(compiled.as_text())
    return sum(
        instruction.bytes
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        if collective_of(computation, instruction, devices=8) is not None
        for shape in instruction.shapes
        if tokens in shape.dims and 512 in shape.dims
    )


def test_parameters_move_and_activations_stay(params):
    mesh = make_mesh(fsdp=4)
    tokens = TOKENS.shape[0] * (TOKENS.shape[1] - 1)
    assert features_moved(gradient_on(mesh, params, told=False)[1], tokens) > 0
    told = gradient_on(mesh, params)[1]
    assert features_moved(told, tokens) == 0 and "all-gather" in told.as_text()


def test_one_device_is_left_as_it_was(params):
    traced = [
        str(jax.make_jaxpr(jax.grad(loss_fn))(params, TOKENS))
        for loss_fn in (make_loss_fn(CONFIG), make_loss_fn(CONFIG, make_mesh()))
    ]
    assert traced[0] == traced[1] and "sharding_constraint" not in traced[0]


@pytest.mark.parametrize("at_a_time", [8])
def test_parts_of_a_batch_give_the_batch(params, at_a_time):
    whole = jax.jit(jax.value_and_grad(make_loss_fn(CONFIG)))(params, TOKENS)
    parted = make_loss_fn(dataclasses.replace(CONFIG, microbatch=at_a_time))
    assert_close(jax.jit(jax.value_and_grad(parted))(params, TOKENS), whole)


def test_parts_of_a_batch_under_a_mesh(params):
    whole = jax.jit(jax.grad(make_loss_fn(CONFIG)))(params, TOKENS)
    found, compiled = gradient_on(
        make_mesh(fsdp=2, tensor=2), params, dataclasses.replace(CONFIG, microbatch=4)
    )
    assert_close(found, whole)
    # Every device has its share of each part already: no token crosses over.
    assert "s32[4,4,21]" in compiled.as_text() or "s32[4,2,21]" in compiled.as_text()


@pytest.mark.parametrize("at_a_time", [16, 64])
def test_a_batch_that_fits_is_not_cut(params, at_a_time):
    config = dataclasses.replace(CONFIG, microbatch=at_a_time)
    traced = [str(jax.make_jaxpr(jax.grad(make_loss_fn(one)))(params, TOKENS)) for one in (CONFIG, config)]
    assert traced[0] == traced[1]


def test_parts_need_less_memory(params):
    def temporaries(config):
        tokens = jax.ShapeDtypeStruct((64, 129), jnp.int32)
        compiled = jax.jit(jax.grad(make_loss_fn(config))).lower(params, tokens).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(dataclasses.replace(CONFIG, microbatch=8)) < 0.4 * temporaries(CONFIG)


def test_parts_that_do_not_divide_a_batch_are_refused(params):
    loss_fn = make_loss_fn(dataclasses.replace(CONFIG, microbatch=5))
    with pytest.raises(ValueError, match=r"model\.microbatch: 5 does not divide a batch of 16 sequences"):
        jax.eval_shape(loss_fn, params, TOKENS)
    with pytest.raises(ValueError, match=r"model\.microbatch: 0"):
        DecoderConfig(microbatch=0)
