import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gauntlet_jax.compression import demo, signed_mean
from gauntlet_jax.scoring import assigned_loss_score, random_loss_score
from gauntlet_jax.training.eval_step import make_evaluation, make_loss, mean_loss
from gauntlet_jax.training.sharding import make_mesh, make_shardings
from gauntlet_jax.training.train_step import (
    apply_step,
    gradient_steps,
    gradient_training,
    inner_training,
    learning_rate,
)


def loss_fn(params, batch):
    """Squares of a linear map: its gradient is known by hand."""
    return jnp.mean(jnp.square(batch["x"] @ params["w"] + params["b"] - batch["y"]))


def hand_gradient(params, batch):
    error = np.asarray(batch["x"] @ params["w"] + params["b"] - batch["y"], np.float64)
    return {"w": 2 * np.asarray(batch["x"]).T @ error / error.size, "b": 2 * error.sum(axis=0) / error.size}


def fresh():
    rng = np.random.default_rng(0)
    return {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "b": jnp.zeros(3)}


def batch(seed, sequences=8):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(sequences, 4)).astype(np.float32)
    return {"x": x, "y": (x @ rng.normal(size=(4, 3))).astype(np.float32)}


@functools.cache
def shardings():
    return make_shardings(make_mesh(), jax.eval_shape(fresh))


@functools.cache
def steps():
    return gradient_steps(loss_fn, shardings())


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=atol)


def join(*batches):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)


def test_the_mean_over_batches_is_the_gradient_of_all_of_them():
    params, batches = fresh(), [batch(1), batch(2), batch(3)]
    assert_close(steps().mean(params, batches), hand_gradient(params, join(*batches)))
    assert_close(steps().mean(params, batches[:1]), hand_gradient(params, batches[0]))
    assert not params["w"].is_deleted()


def test_gradient_training_keeps_no_state():
    training, params = gradient_training(steps()), fresh()
    state = training.init(params)
    assert jax.tree.leaves(state) == []
    gradient, state = training.run(params, state, [batch(1), batch(2)])
    assert_close(gradient, hand_gradient(params, join(batch(1), batch(2))))
    assert state == ()


def test_one_inner_step_of_sgd_is_the_gradient_times_its_rate():
    training, params = inner_training(loss_fn, optax.sgd(0.1), fresh(), shardings(), steps=1), fresh()
    delta, _ = training.run(params, training.init(params), [batch(1), batch(2)])
    expected = hand_gradient(params, join(batch(1), batch(2)))
    assert_close(delta, {name: 0.1 * leaf for name, leaf in expected.items()}, rtol=1e-4)
    assert not params["w"].is_deleted()


def test_inner_steps_take_their_part_of_every_batch_and_keep_the_optimizers_state():
    optimizer, h = optax.adam(0.01), 4
    training, params = inner_training(loss_fn, optimizer, fresh(), shardings(), steps=h), fresh()
    state, own = training.init(params), optimizer.init(params)
    for t in range(2):
        batches = [batch(2 * t), batch(2 * t + 1)]
        delta, state = training.run(params, state, batches)
        inner = params
        for i in range(h):
            part = join(*({name: leaf[2 * i : 2 * i + 2] for name, leaf in b.items()} for b in batches))
            updates, own = optimizer.update(jax.grad(loss_fn)(inner, part), own, inner)
            inner = optax.apply_updates(inner, updates)
        assert_close(delta, jax.tree.map(jnp.subtract, params, inner), rtol=1e-3)
        assert optax.tree_utils.tree_get(state, "count") == (t + 1) * h
        assert_close(optax.tree_utils.tree_get(state, "mu"), optax.tree_utils.tree_get(own, "mu"), rtol=1e-3)


def test_apply_subtracts_and_donates():
    old, update = fresh(), jax.tree.map(jnp.ones_like, fresh())
    expected = {name: np.asarray(leaf) - 0.5 for name, leaf in old.items()}
    new = apply_step(shardings())(old, update, jnp.float32(0.5))
    for name, leaf in new.items():
        np.testing.assert_array_equal(leaf, expected[name])
    assert all(leaf.is_deleted() for leaf in old.values())
    assert not any(leaf.is_deleted() for leaf in update.values())


def test_apply_keeps_the_parameters_type():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), fresh())
    new = apply_step(shardings())(params, fresh(), jnp.float32(0.5))
    assert new["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("round", "rate"),
    [
        (0, 0.1),
        (1, 0.325),
        (2, 0.55),
        (4, 1.0),
        (8, 0.55),
        (12, 0.1),
        (10, 0.1 + 0.9 * (1 + np.cos(0.75 * np.pi)) / 2),
        (500, 0.1),
    ],
)
def test_learning_rate_table(round, rate):
    schedule = learning_rate(peak=3.0, warmup_rounds=4, schedule_rounds=12, final_fraction=0.1)
    np.testing.assert_allclose(schedule(round), 3.0 * rate, rtol=1e-5)


def test_learning_rate_without_a_warm_up_starts_at_the_peak():
    schedule = learning_rate(peak=2.0, warmup_rounds=0, schedule_rounds=10, final_fraction=0.5)
    np.testing.assert_allclose([schedule(0), schedule(5), schedule(10)], [2.0, 1.5, 1.0], rtol=1e-6)


def test_the_papers_rate_starts_where_it_is_told():
    schedule = learning_rate(
        peak=4e-4, warmup_rounds=250, schedule_rounds=20_000, final_fraction=0.1, start_fraction=0.2
    )
    np.testing.assert_allclose([schedule(0), schedule(250), schedule(20_000)], [8e-5, 4e-4, 4e-5], rtol=1e-5)


def test_the_loss_and_its_mean_over_batches():
    loss, params = make_loss(loss_fn, shardings()), fresh()
    losses = [float(loss_fn(params, batch(seed))) for seed in range(3)]
    np.testing.assert_allclose([float(loss(params, batch(seed))) for seed in range(3)], losses, rtol=1e-6)
    assert mean_loss(loss, params, [batch(seed) for seed in range(3)]) == pytest.approx(
        np.mean(losses), rel=1e-6
    )
    assert not params["w"].is_deleted()


def test_evaluation_probes_along_the_direction_and_donates_nothing():
    params = fresh()
    compressor = demo(params, k=4, bits=32)
    rule = signed_mean(compressor.format)
    assigned, other = batch(1), batch(2)
    sent, _ = compressor.update(compressor.init(params), steps().gradient(params, assigned))

    def to_update(sent):
        return rule.direction(compressor.decode(sent))

    scores = {"assigned": assigned_loss_score, "random": random_loss_score}
    evaluate = make_evaluation(loss_fn, to_update, scores, shardings())
    arguments = (params, sent, None, assigned, other, loss_fn(params, other), jnp.float32(0.01))
    found = evaluate(*arguments)
    moved = jax.tree.map(lambda theta, u: theta - 0.01 * u, params, to_update(sent))
    assert set(found) == set(scores)
    for name, data in (("assigned", assigned), ("random", other)):
        fall = float(loss_fn(params, data) - loss_fn(moved, data))
        assert abs(fall) > 1e-3
        np.testing.assert_allclose(found[name], fall, rtol=1e-3)
    assert float(found["assigned"]) > 0
    assert jax.tree.map(float, evaluate(*arguments)) == jax.tree.map(float, found)
