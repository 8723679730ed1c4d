import jax
import jax.numpy as jnp
import numpy as np
import optax

from gauntlet_jax.training.baselines import AdamW
from gauntlet_jax.training.sharding import make_mesh, make_shardings
from gauntlet_jax.training.train_step import gradient_steps, learning_rate


def loss_fn(params, batch):
    return jnp.mean(jnp.square(batch @ params["w"] + params["b"]))


def fresh():
    rng = np.random.default_rng(0)
    return {"w": jnp.asarray(rng.normal(size=(128, 6)), jnp.float32), "b": jnp.ones(6)}


def batches(round):
    rng = np.random.default_rng(round)
    return [rng.normal(size=(4, 128)).astype(np.float32) for _ in range(3)]


SCHEDULE = learning_rate(peak=0.02, warmup_rounds=2, schedule_rounds=6, final_fraction=0.1)


def baseline(mesh, **kwargs):
    params = fresh()
    shardings = make_shardings(mesh, params)
    params = jax.device_put(params, shardings.params)
    return params, shardings, AdamW(params, SCHEDULE, gradient_steps(loss_fn, shardings), shardings, **kwargs)


def test_it_is_a_plain_optax_loop():
    start, _, adamw = baseline(make_mesh())
    optimizer = optax.adamw(SCHEDULE, b1=0.9, b2=0.95, weight_decay=0.0)
    params, state = fresh(), optimizer.init(fresh())
    for t in range(4):
        adamw.run_round(batches(t))
        gradient = jax.grad(loss_fn)(params, np.concatenate(batches(t)))
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        for name in params:
            np.testing.assert_allclose(adamw.params[name], params[name], rtol=1e-4, atol=1e-5)
    assert adamw.state[0].count == 4
    # The run it is compared with starts from the same arrays.
    assert not start["w"].is_deleted()
    np.testing.assert_array_equal(start["w"], fresh()["w"])
    assert np.abs(np.asarray(adamw.params["w"] - start["w"])).max() > 0.01


def test_moments_lie_where_their_parameters_lie_on_two_devices():
    _, shardings, two = baseline(make_mesh(fsdp=2))
    _, _, one = baseline(make_mesh())
    assert shardings.params["w"].spec[0] == "fsdp"
    for t in range(3):
        for moment in ("mu", "nu"):
            tree = optax.tree_utils.tree_get(two.state, moment)
            for name, leaf in tree.items():
                assert leaf.sharding.is_equivalent_to(shardings.params[name], leaf.ndim)
            assert tree["w"].addressable_shards[0].data.shape == (64, 6)
        two.run_round(batches(t))
        one.run_round(batches(t))
    for name in ("w", "b"):
        np.testing.assert_allclose(two.params[name], one.params[name], rtol=1e-4, atol=1e-5)


def test_its_step_can_be_wrapped():
    calls = []

    def counted(step):
        def call(*args):
            calls.append(len(args))
            return step(*args)

        return call

    _, _, adamw = baseline(make_mesh(), compile_step=counted)
    adamw.run_round(batches(0))
    assert calls == [3]
