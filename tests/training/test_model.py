import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

from gauntlet_jax.training.model import (
    PAPER_1B,
    Decoder,
    DecoderConfig,
    init_params,
    make_loss_fn,
    parameter_count,
    rotate,
    stacked_axes,
)

CONFIG = DecoderConfig(vocabulary=11, width=16, layers=2, heads=4, kv_heads=2, intermediate=24)
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocabulary, (2, 7)).astype(np.int32)


@functools.cache
def params_of(config):
    """Random weights with norms away from their initial ones, so that every parameter matters."""
    params = jax.jit(functools.partial(init_params, config))(jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf * 1.5 if leaf.ndim < 2 else leaf, params)


def logits_of(config, params, tokens=TOKENS):
    return jax.jit(Decoder(config).apply)({"params": params}, tokens)


def gradient_of(config, params):
    return jax.jit(jax.grad(make_loss_fn(config)))(params, TOKENS)


REMAT = jax.make_jaxpr(jax.checkpoint(jnp.sin))(1.0).eqns[0].primitive.name


def equations(jaxpr):
    """Every equation of a jaxpr, those of its loops and calls too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def variant(**changes):
    return dataclasses.replace(CONFIG, **changes)


def assert_close(a, b, rtol=1e-4, atol=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def test_the_papers_model_counts_its_parameters():
    shapes = jax.eval_shape(functools.partial(init_params, PAPER_1B), jax.random.key(0))
    assert parameter_count(shapes) == 1_204_881_408
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    # 16 layers of four 2048 x 2048 and three 2048 x 8192 matrices and two norms; two embeddings; a norm
    assert 16 * (4 * 2048**2 + 3 * 2048 * 8192 + 2 * 2048) + 2 * 32_000 * 2048 + 2048 == 1_204_881_408


def numpy_decoder(config, params, tokens):
    """The decoder in double precision, head by head and position by position."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    size = config.width // config.heads

    def norm(x, weight):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + config.norm_epsilon) * weight["scale"]

    def turn(vector, position):
        out = np.empty(size)
        for i in range(size // 2):
            angle = position * config.rope_base ** (-2 * i / size)
            pair = complex(vector[i], vector[i + size // 2]) * np.exp(1j * angle)
            out[i], out[i + size // 2] = pair.real, pair.imag
        return out

    x = p["embedding"]["embedding"][tokens]
    for layer in range(config.layers):
        w = {name: leaf.get("kernel", leaf) for name, leaf in p[f"layer_{layer}"].items()}
        h = norm(x, w["attention_norm"])
        attended = np.zeros((*tokens.shape, config.width))
        for sequence in range(len(tokens)):
            for head in range(config.heads):
                shared = head // (config.heads // config.kv_heads)
                q, k, v = (
                    (h[sequence] @ w[name])[:, at * size : (at + 1) * size]
                    for name, at in (("query", head), ("key", shared), ("value", shared))
                )
                q, k = (np.stack([turn(row, m) for m, row in enumerate(rows)]) for rows in (q, k))
                for m in range(tokens.shape[1]):
                    weights = scipy.special.softmax(k[: m + 1] @ q[m] / np.sqrt(size))
                    attended[sequence, m, head * size : (head + 1) * size] = weights @ v[: m + 1]
        x = x + attended @ w["output"]
        h = norm(x, w["mlp_norm"])
        gate = h @ w["gate"]
        x = x + (gate * scipy.special.expit(gate) * (h @ w["up"])) @ w["down"]
    head = p["embedding"]["embedding"].T if config.tied_head else p["head"]["kernel"]
    return norm(x, p["final_norm"]) @ head


@pytest.mark.parametrize("tied", [False, True])
def test_numpy_computes_the_same_logits(tied):
    config = variant(tied_head=tied)
    params = params_of(config)
    assert ("head" in params) == (not tied)
    expected = numpy_decoder(config, params, TOKENS)
    np.testing.assert_allclose(logits_of(config, params), expected, rtol=1e-4, atol=2e-5)


def test_a_later_token_changes_no_earlier_logits():
    params = params_of(CONFIG)
    changed = TOKENS.copy()
    changed[:, 4] = (changed[:, 4] + 1) % CONFIG.vocabulary
    before, after = logits_of(CONFIG, params), logits_of(CONFIG, params, changed)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (np.abs(np.asarray(before - after)).max(axis=(0, 2))[4:] > 1e-3).all()


def test_rotation_depends_on_the_distance_alone():
    rng = np.random.default_rng(1)
    query, key = (
        jnp.broadcast_to(jnp.asarray(rng.normal(size=8), jnp.float32), (1, 12, 1, 8)) for _ in range(2)
    )
    turned = [np.asarray(rotate(x, base=100.0))[0, :, 0] for x in (query, key)]
    products = turned[0] @ turned[1].T
    for distance in range(-5, 6):
        np.testing.assert_allclose(
            np.diag(products, distance), np.diag(products, distance)[0], rtol=1e-4, atol=1e-5
        )
    assert len(np.unique(np.round(products[0], 3))) > 8
    np.testing.assert_allclose(turned[0][0], query[0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(turned[0], axis=1), np.linalg.norm(query[0, 0, 0]), rtol=1e-5)


def test_rotation_by_hand():
    x = jnp.ones((1, 2, 1, 4))
    expected = [
        np.cos(1) - np.sin(1),
        np.cos(0.1) - np.sin(0.1),
        np.cos(1) + np.sin(1),
        np.cos(0.1) + np.sin(0.1),
    ]
    np.testing.assert_allclose(rotate(x, base=100.0)[0, 1, 0], expected, rtol=1e-6)
    assert rotate(x.astype(jnp.bfloat16), base=100.0).dtype == jnp.bfloat16


def test_grouped_queries_are_repeated_keys_and_values():
    grouped = params_of(CONFIG)
    size = CONFIG.width // CONFIG.heads

    def repeat(path, leaf):
        if {"key", "value"} & {entry.key for entry in path}:
            heads = leaf.reshape(CONFIG.width, CONFIG.kv_heads, size)
            return jnp.repeat(heads, CONFIG.heads // CONFIG.kv_heads, axis=1).reshape(CONFIG.width, -1)
        return leaf

    every = jax.tree_util.tree_map_with_path(repeat, grouped)
    np.testing.assert_allclose(
        logits_of(variant(kv_heads=CONFIG.heads), every), logits_of(CONFIG, grouped), rtol=1e-5, atol=1e-5
    )


def test_a_tied_head_is_the_embedding_transposed():
    tied = params_of(variant(tied_head=True))
    untied = {**tied, "head": {"kernel": tied["embedding"]["embedding"].T}}
    np.testing.assert_allclose(logits_of(CONFIG, untied), logits_of(variant(tied_head=True), tied), atol=1e-5)


def stacked(params):
    """The unrolled model's parameters as a scanned one's."""
    layers = [params[f"layer_{i}"] for i in range(CONFIG.layers)]
    rest = {name: leaf for name, leaf in params.items() if not name.startswith("layer_")}
    return {**rest, "layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}


def test_a_scanned_stack_is_the_unrolled_one():
    unrolled = params_of(CONFIG)
    scanned = stacked(unrolled)
    fresh = jax.eval_shape(functools.partial(init_params, variant(scan=True)), jax.random.key(0))
    assert jax.tree.map(jnp.shape, scanned) == jax.tree.map(jnp.shape, fresh)
    np.testing.assert_allclose(logits_of(variant(scan=True), scanned), logits_of(CONFIG, unrolled), atol=1e-5)
    assert_close(gradient_of(variant(scan=True), scanned), stacked(gradient_of(CONFIG, unrolled)))


def test_layers_of_a_scanned_stack_start_differently():
    layers = params_of(variant(scan=True))["layers"]["query"]["kernel"]
    assert np.abs(np.asarray(layers[0] - layers[1])).max() > 0.1


@pytest.mark.parametrize("scan", [False, True])
def test_remat_recomputes_and_changes_no_gradient(scan):
    plain, remat = variant(scan=scan), variant(scan=scan, remat=True)
    params = params_of(plain)
    assert_close(gradient_of(remat, params), gradient_of(plain, params), rtol=1e-5)

    def recomputed(config):
        jaxpr = jax.make_jaxpr(jax.grad(make_loss_fn(config)))(params, TOKENS)
        return [e.primitive.name for e in equations(jaxpr.jaxpr)].count(REMAT)

    assert recomputed(plain) == 0
    assert recomputed(remat) == (1 if scan else CONFIG.layers)


def test_half_precision_computes_in_it_and_keeps_float32_outside():
    half = variant(compute_dtype="bfloat16")
    params = params_of(half)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    logits, exact = logits_of(half, params), logits_of(CONFIG, params)
    assert logits.dtype == jnp.float32
    error = np.abs(np.asarray(logits - exact))
    assert 1e-4 < error.max() < 0.1
    gradient = gradient_of(half, params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))
    jaxpr = jax.make_jaxpr(make_loss_fn(half))(params, TOKENS).jaxpr
    products = [e for e in equations(jaxpr) if e.primitive.name == "dot_general"]
    assert len(products) == 1 + CONFIG.layers * (7 + 2)  # the head; seven matrices and the attention's two
    assert all(operand.aval.dtype == jnp.bfloat16 for e in products for operand in e.invars)


def test_the_loss_is_the_cross_entropy_of_the_next_token():
    params = params_of(CONFIG)
    logits = np.asarray(numpy_decoder(CONFIG, params, TOKENS[:, :-1]))
    chosen = np.take_along_axis(scipy.special.log_softmax(logits, axis=-1), TOKENS[:, 1:, None], axis=-1)
    loss = make_loss_fn(CONFIG)(params, TOKENS)
    assert loss.shape == () and loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, -chosen.mean(), rtol=1e-5)
    # The same tokens as a memmap holds them.
    np.testing.assert_array_equal(make_loss_fn(CONFIG)(params, TOKENS.astype(np.uint8)), loss)


def test_an_untrained_model_is_near_uniform_and_training_lowers_the_loss():
    params, loss_fn = init_params(CONFIG, jax.random.key(1)), make_loss_fn(CONFIG)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        loss, gradient = jax.value_and_grad(loss_fn)(params, TOKENS)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state, loss

    state, losses = optimizer.init(params), []
    for _ in range(25):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert np.log(CONFIG.vocabulary) - 0.2 < losses[0] < np.log(CONFIG.vocabulary) + 1.5
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("scan", [False, True])
def test_stacked_axes_mark_the_scanned_layers(scan):
    params = params_of(variant(scan=scan))
    axes = stacked_axes(params)
    for path, axis in jax.tree_util.tree_leaves_with_path(axes):
        assert axis == int(path[0].key == "layers")
    assert any(jax.tree.leaves(axes)) == scan


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"width": 18}, "width 18"), ({"width": 12}, "width 12"), ({"kv_heads": 3}, "3 kv_heads")],
)
def test_heads_must_fit(changes, says):
    with pytest.raises(ValueError, match=says):
        variant(**changes)
