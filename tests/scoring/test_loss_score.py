"""LossScore: hand numbers on a linear loss, identities, and what a hostile update may provoke."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gauntlet_jax.scoring import assigned_loss_score, loss_score, random_loss_score, score_all
from gauntlet_jax.types import ScoreInputs


def linear_loss(params, batch):
    return jnp.sum(params["w"] * batch) + params["b"]


def quadratic_loss(params, batch):
    return jnp.mean((batch @ params["w"] + params["b"]) ** 2)


PARAMS = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
BATCH = jnp.array([[1.0, 2.0], [3.0, -1.0]])
SCORE = functools.partial(loss_score, loss_fn=quadratic_loss, step_size=0.1)


def test_hand_numbers():
    update = {"w": jnp.array([1.0, -1.0]), "b": jnp.array(1.0)}
    # loss = 4 w0 + 3 w1 + b falls by 0.1 * (4 - 3 + 1) when the update is subtracted
    score = loss_score(PARAMS, update, jnp.array([4.0, 3.0]), loss_fn=linear_loss, step_size=0.1)
    assert float(score) == pytest.approx(0.2, abs=1e-6)


def test_positive_means_that_the_loss_went_down():
    gradient = jax.grad(quadratic_loss)(PARAMS, BATCH)
    signs = jax.tree.map(jnp.sign, gradient)
    assert float(SCORE(PARAMS, signs, BATCH)) > 0
    assert float(SCORE(PARAMS, jax.tree.map(jnp.negative, signs), BATCH)) < 0


def test_a_zero_update_scores_exactly_zero():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    assert float(SCORE(PARAMS, zero, BATCH)) == 0.0
    assert float(jax.jit(SCORE)(PARAMS, zero, BATCH)) == 0.0
    # nor does one that is lost in rounding gain by a loss that another program rounded otherwise
    tiny = jax.tree.map(lambda x: jnp.full_like(x, 1e-30), PARAMS)
    assert float(SCORE(PARAMS, tiny, BATCH, loss_before=jnp.array(1e6))) == 0.0


def test_signs_may_be_int8():
    signs = jax.tree.map(lambda x: jnp.sign(x + 0.1), PARAMS)
    small = jax.tree.map(lambda x: x.astype(jnp.int8), signs)
    assert float(SCORE(PARAMS, small, BATCH)) == float(SCORE(PARAMS, signs, BATCH))


def test_half_precision_parameters_are_rounded_once():
    # 1 - 0.3 * 0.0101 in bfloat16: the product rounded first would give another last bit for some of these
    params = jnp.linspace(0.5, 1.0, 64).astype(jnp.bfloat16)
    update = jnp.linspace(0.5, 1.5, 64, dtype=jnp.float32)

    def loss(weights, batch):
        return jnp.sum(weights.astype(jnp.float32) * batch)

    positions = 2.0 ** jnp.arange(8, dtype=jnp.float32)
    expected = np.asarray(params, np.float32) - np.float32(0.01) * np.asarray(update)
    expected = np.asarray(jnp.asarray(expected).astype(jnp.bfloat16), np.float32)
    for start in range(0, 64, 8):
        batch = jnp.zeros(64).at[start : start + 8].set(positions)
        score = loss_score(params, update, batch, loss_fn=loss, step_size=0.01)
        before = np.asarray(params, np.float32)
        assert float(score) == pytest.approx(float(np.sum((before - expected) * np.asarray(batch))), rel=1e-4)


def test_eager_jit_vmap_and_permuted_peers_agree():
    updates = {"w": jnp.array([[1.0, 1.0], [-1.0, 1.0], [0.0, -1.0]]), "b": jnp.array([1.0, -1.0, 1.0])}
    eager = jnp.stack([SCORE(PARAMS, jax.tree.map(lambda x, p=p: x[p], updates), BATCH) for p in range(3)])
    jitted = jax.jit(jax.vmap(SCORE, in_axes=(None, 0, None)))
    np.testing.assert_allclose(jitted(PARAMS, updates, BATCH), eager, rtol=1e-5)
    order = jnp.array([2, 0, 1])
    permuted = jitted(PARAMS, jax.tree.map(lambda x: x[order], updates), BATCH)
    np.testing.assert_allclose(permuted, eager[order], rtol=1e-5)


def test_a_broken_update_is_not_a_number():
    nan = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), PARAMS)
    assert np.isnan(float(SCORE(PARAMS, nan, BATCH)))


@pytest.mark.parametrize("update", [{"w": jnp.ones(1), "b": jnp.ones(())}, {"w": jnp.ones(2)}])
def test_an_update_of_another_form_is_refused(update):
    with pytest.raises(ValueError):
        SCORE(PARAMS, update, BATCH)


def inputs():
    return ScoreInputs(
        params=PARAMS,
        update={"w": jnp.array([1.0, -1.0]), "b": jnp.array(1.0)},
        aggregate=None,
        assigned_batch=jnp.array([4.0, 3.0]),
        random_batch=jnp.array([1.0, 3.0]),
        random_loss=jnp.array(-4.5),  # 1 - 6 + 0.5
        loss_fn=linear_loss,
        step_size=jnp.array(0.1),
    )


def test_score_all_names_the_built_in_and_the_users_own():
    def norm(score_inputs):
        return jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(score_inputs.update)))

    scores = score_all(inputs(), {"random": random_loss_score, "assigned": assigned_loss_score, "norm": norm})
    assert list(scores) == ["random", "assigned", "norm"]
    # 0.1 * (4 - 3 + 1), 0.1 * (1 - 3 + 1), sqrt(3)
    np.testing.assert_allclose(
        [float(scores[name]) for name in ("assigned", "random", "norm")], [0.2, -0.1, 3**0.5], atol=1e-6
    )


def test_a_score_that_is_not_a_number_a_peer_is_refused():
    with pytest.raises(ValueError, match="'many' returned shape"):
        score_all(inputs(), {"many": lambda score_inputs: score_inputs.update["w"]})
