import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from gauntlet_jax.compression import demo, sparseloco

SHAPES = {"vector": (10,), "matrix": (96, 130), "stack": (2, 8, 6)}
PARAMS = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
KINDS = ["demo-8", "demo-32", "sparseloco-2"]


@functools.cache
def machine(kind):
    make = {
        "demo-8": functools.partial(demo, beta=0.9, k=5),
        "demo-32": functools.partial(demo, beta=0.9, k=5, bits=32),
        "sparseloco-2": functools.partial(sparseloco, k=5),
    }[kind]
    compressor = make(PARAMS)
    return compressor, jax.jit(compressor.update), jax.jit(compressor.decode)


def gradients(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(scale * rng.normal(size=s).astype(np.float32)) for name, s in SHAPES.items()}


def close(a, b, atol=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_sent_and_left_over_are_what_was_accumulated(kind):
    compressor, update, decode = machine(kind)
    beta = 0.95 if kind.startswith("sparse") else 0.9
    state = compressor.init(PARAMS)
    expected = {name: np.zeros(shape, np.float64) for name, shape in SHAPES.items()}
    for t in range(4):
        gradient = gradients(t)
        sent, state = update(state, gradient)
        accumulated = {name: beta * expected[name] + gradient[name] for name in SHAPES}
        received = decode(sent)
        left = compressor.format.synthesize(state)
        close(jax.tree.map(jnp.add, received, left), accumulated)
        expected = {name: accumulated[name] - np.asarray(received[name], np.float64) for name in SHAPES}
        assert all(np.abs(leaf).max() > 0.1 for leaf in received.values())
    # With 32 bits what is sent is taken out of the residual entirely; with fewer, its rounding stays.
    zeros = int((np.asarray(state["matrix"]) == 0).sum())
    assert (zeros == 10 * 5) == (kind == "demo-32")


def test_demo_end_to_end_for_one_tensor_against_scipy():
    rng = np.random.default_rng(3)
    gradient = rng.normal(size=(96, 128))
    compressor = demo({"w": jax.ShapeDtypeStruct((96, 128), jnp.float32)}, beta=0.999, k=32, bits=8)
    state = compressor.init(None)
    residual = np.zeros((4, 48 * 64))  # 2 x 2 blocks of 48 x 64
    for _ in range(2):
        sent, state = compressor.update(state, {"w": jnp.asarray(gradient, jnp.float32)})
        blocks = gradient.reshape(2, 48, 2, 64).transpose(0, 2, 1, 3).reshape(4, 48, 64)
        residual = 0.999 * residual + scipy.fft.dctn(blocks, norm="ortho", axes=(1, 2)).reshape(4, -1)
        kept = np.sort(np.argsort(-np.abs(residual), axis=1)[:, :32], axis=1)
        values = np.take_along_axis(residual, kept, axis=1)
        np.testing.assert_array_equal(np.reshape(sent["w"].indices, (4, 32)), kept)
        step = (
            (np.asarray(sent["w"].scales).reshape(4, 1).astype(np.uint32) << 16)
            .view(np.float32)
            .astype(float)
        )
        np.testing.assert_allclose(step[:, 0], np.abs(values).max(axis=1) / 127.5, rtol=2**-8)
        codes = np.clip(np.round(values / step + 127.5), 0, 255)
        # A value between two levels may go either way in float32: then the rest follows the peer's choice.
        chosen = np.asarray(sent["w"].codes, np.float64).reshape(4, 32)
        assert np.abs(chosen - codes).max() <= 1
        assert (chosen == codes).mean() > 0.95
        rounded = (chosen - 127.5) * step
        coefficients = np.zeros_like(residual)
        np.put_along_axis(coefficients, kept, rounded, axis=1)
        residual -= coefficients
        back = scipy.fft.idctn(coefficients.reshape(4, 48, 64), norm="ortho", axes=(1, 2))
        expected = back.reshape(2, 2, 48, 64).transpose(0, 2, 1, 3).reshape(96, 128)
        np.testing.assert_allclose(compressor.decode(sent)["w"], expected, atol=2e-4)
        np.testing.assert_allclose(np.reshape(state["w"], (4, -1)), residual, atol=2e-4)


def test_sparseloco_sends_entries_themselves_on_four_levels():
    compressor, update, decode = machine("sparseloco-2")
    delta = gradients(0)
    sent, _ = update(compressor.init(PARAMS), delta)
    received = np.asarray(decode(sent)["stack"])
    assert ((received != 0).sum(axis=(1, 2)) == 5).all()
    for layer in range(2):
        flat = np.abs(np.asarray(delta["stack"][layer])).reshape(-1)
        assert set(np.flatnonzero(received[layer])) == set(np.argsort(-flat)[:5])
        assert len(np.unique(received[layer][received[layer] != 0])) <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_k_a_chunk_all_of_a_smaller_one(kind):
    compressor, update, _ = machine(kind)
    sent, _ = update(compressor.init(PARAMS), gradients(0))
    assert sent["vector"].indices.shape == (1, 5) and sent["matrix"].indices.shape == (2, 5, 5)
    assert sent["stack"].indices.shape == (2, 1, 1, 5)
    for leaf in (sent["vector"], sent["matrix"], sent["stack"]):
        assert (np.diff(leaf.indices, axis=-1) > 0).all()
    small = {"v": jax.ShapeDtypeStruct((3,), jnp.float32)}
    whole = demo(small, k=5, bits=32)
    sent, state = whole.update(whole.init(small), {"v": jnp.arange(3.0)})
    assert sent["v"].indices.shape == (1, 3)
    np.testing.assert_allclose(whole.decode(sent)["v"], [0.0, 1.0, 2.0], atol=1e-6)
    np.testing.assert_array_equal(state["v"], 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_gradient_sends_zeros(kind):
    compressor, update, decode = machine(kind)
    sent, state = update(compressor.init(PARAMS), gradients(0, scale=0.0))
    for leaf in jax.tree.leaves((decode(sent), state)):
        np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_eager_is_jit(kind):
    compressor, update, decode = machine(kind)
    _, state = update(compressor.init(PARAMS), gradients(0))
    eager_sent, eager_state = compressor.update(state, gradients(1))
    sent, new_state = update(state, gradients(1))
    for eager, jitted in zip(jax.tree.leaves(eager_sent), jax.tree.leaves(sent), strict=True):
        assert eager.dtype == jitted.dtype
        if eager.dtype == jnp.uint8:  # a value between two levels may go either way
            assert np.abs(np.asarray(eager, int) - np.asarray(jitted, int)).max() <= 1
        else:
            np.testing.assert_allclose(eager, jitted, atol=1e-5)
    close(
        jax.tree.map(jnp.add, compressor.decode(eager_sent), compressor.format.synthesize(eager_state)),
        jax.tree.map(jnp.add, decode(sent), compressor.format.synthesize(new_state)),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_call_gives_the_same_bits(kind):
    compressor, update, _ = machine(kind)
    _, state = update(compressor.init(PARAMS), gradients(0))
    first, again = update(state, gradients(1)), update(state, gradients(1))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_vmap_over_peers_is_a_loop_over_peers():
    compressor, update, _ = machine("demo-32")
    each = [gradients(seed) for seed in range(3)]
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), compressor.init(PARAMS))
    sent, residual = jax.jit(jax.vmap(compressor.update))(states, stack)
    for p, gradient in enumerate(each):
        alone = update(compressor.init(PARAMS), gradient)
        close(jax.tree.map(lambda leaf, p=p: leaf[p], (sent, residual)), alone)


def test_low_precision_gradients_are_accumulated_in_float32():
    compressor = demo({"w": jax.ShapeDtypeStruct((8, 8), jnp.bfloat16)}, k=4)
    sent, state = compressor.update(compressor.init(None), {"w": jnp.ones((8, 8), jnp.bfloat16)})
    assert state["w"].dtype == jnp.float32
    assert compressor.decode(sent)["w"].dtype == jnp.float32


def test_a_block_of_nothing_has_one_form():
    compressor = demo({"w": jax.ShapeDtypeStruct((64, 128), jnp.float32)}, k=4)
    gradient = jnp.zeros((64, 128)).at[0, 0].set(1.0)
    for scale in (1.0, 1e-40):  # with an entry that no step can be made of, it says nothing either
        sent, _ = compressor.update(compressor.init(None), {"w": scale * gradient})
        silent = np.asarray(sent["w"].scales) == 0
        assert silent.any()
        np.testing.assert_array_equal(np.asarray(sent["w"].indices)[silent], [np.arange(4)] * silent.sum())
        np.testing.assert_array_equal(np.asarray(sent["w"].codes)[silent], 0)


def test_nothing_to_send_is_refused():
    with pytest.raises(ValueError, match="k = 0"):
        demo(PARAMS, k=0)
