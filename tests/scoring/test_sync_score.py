import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gauntlet_jax.scoring import probe_indices, sync_score, take_probe

KEY = jax.random.key(7)
PARAMS = {
    "matrix": jnp.arange(1000.0, 1012.0).reshape(3, 4),
    "scalar": jnp.array(5.0),
    "vector": jnp.arange(10.0, dtype=jnp.bfloat16),
}


def test_the_probe_shows_the_drawn_entries_in_tree_order():
    indices = probe_indices(KEY, ((3, 4), (), (10,)), per_tensor=3)
    assert [index.shape for index in indices] == [(3, 2), (3, 0), (3, 1)]
    expected = [1000 + 4 * row + column for row, column in indices[0].tolist()] + [5.0] * 3
    expected += [float(position) for (position,) in indices[2].tolist()]
    probe = take_probe(PARAMS, KEY, per_tensor=3)
    assert probe.dtype == jnp.float32
    assert probe.tolist() == expected
    assert jax.jit(take_probe, static_argnames="per_tensor")(PARAMS, KEY, per_tensor=3).tolist() == expected


def test_every_entry_can_be_drawn_and_every_key_draws_others():
    (index,) = probe_indices(KEY, ((3, 4),), per_tensor=400)
    counts = np.bincount(np.asarray(index[:, 0] * 4 + index[:, 1]), minlength=12)
    assert counts.min() > 10 and counts.max() < 70  # 33 expected, within 4 deviations
    shapes = ((1000, 1000),) * 3
    mine, other = probe_indices(KEY, shapes), probe_indices(jax.random.key(8), shapes)
    assert not np.array_equal(jnp.stack(mine), jnp.stack(other))
    assert not np.array_equal(mine[0], mine[1])  # each tensor is drawn by itself


def test_a_tensor_of_more_than_two_to_the_31_entries_is_probed_everywhere():
    (index,) = probe_indices(KEY, ((2**17, 2**20),), per_tensor=64)
    flat = np.asarray(index, np.int64) @ np.array([2**20, 1])
    assert (np.asarray(index) >= 0).all() and (np.asarray(index) < [2**17, 2**20]).all()
    assert flat.max() > 2**36 and flat.min() < 2**34
    # and the gather traces on such a tensor, without an index type that overflows
    shape = jax.ShapeDtypeStruct((2**17, 2**20), jnp.bfloat16)
    assert jax.eval_shape(take_probe, {"w": shape}, KEY).shape == (2,)


def test_an_empty_tensor_is_refused():
    with pytest.raises(ValueError, match="empty tensor"):
        take_probe({"w": jnp.zeros((3, 0))}, KEY)


def test_hand_numbers():
    own = jnp.array([1.0, 2.0, -3.0, 0.0])
    theirs = np.array([1.0, 2.2, -3.1, 0.1], np.float32)
    assert float(sync_score(own, theirs, 0.1)) == pytest.approx(1.0, abs=1e-5)  # (0 + .2 + .1 + .1) / 4 / .1
    assert float(sync_score(own, own, 0.1)) == 0.0
    assert float(sync_score(own, own, 0.0)) == 0.0  # in sync, even where the schedule starts at 0
    assert float(sync_score(own, theirs, 0.0)) == np.inf


def test_a_peer_one_signed_round_behind_reads_one():
    alpha = 4e-4
    behind = jax.tree.map(lambda x: x - alpha * jnp.sign(jnp.sin(x + 1.0)), {"w": jnp.linspace(0.0, 1.0, 64)})
    own, theirs = (
        take_probe({"w": jnp.linspace(0.0, 1.0, 64)}, KEY, per_tensor=9),
        take_probe(behind, KEY, per_tensor=9),
    )
    assert float(sync_score(own, theirs, alpha)) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    "probe",
    [[1.0, np.nan], [1.0, np.inf], [1.0, -np.inf], [1.0], [1.0, 2.0, 3.0], [], [[1.0, 2.0]], [3e38, -3e38]],
    ids=str,
)
def test_anything_else_fails(probe):
    score = sync_score(jnp.array([1.0, 2.0]), np.array(probe, np.float32), 1e-3)
    assert float(score) == np.inf


def test_jit_and_vmap_agree_with_eager():
    own = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    theirs = jnp.array([[1.5, 2.0], [jnp.nan, 4.0]])
    eager = [float(sync_score(own[i], theirs[i], 0.5)) for i in range(2)]
    batched = jax.jit(jax.vmap(sync_score, in_axes=(0, 0, None)))(own, theirs, 0.5)
    assert batched.tolist() == eager == [0.5, np.inf]
