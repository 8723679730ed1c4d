import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gauntlet_jax.compression.topk import scatter_add, top_k


def by_hand(chunks, k):
    """A stable sort by falling magnitude: of equals, the smaller index comes first."""
    order = np.sort(np.argsort(-np.abs(chunks), axis=1, kind="stable")[:, :k], axis=1)
    return order, np.take_along_axis(chunks, order, axis=1)


jitted_top_k = jax.jit(top_k, static_argnums=1)


def check(chunks, k):
    indices, values = jitted_top_k(jnp.asarray(chunks), k)
    expected, entries = by_hand(chunks, k)
    assert indices.dtype == jnp.int32 and indices.shape == (len(chunks), k)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, entries)
    assert (np.diff(indices, axis=1) > 0).all()


def test_magnitude_counts_the_sign_is_kept_and_ties_go_to_the_smaller_index():
    chunks = jnp.array([[1.0, -5.0, 2.0, 5.0], [2.0, -2.0, 2.0, -2.0], [0.0, 0.0, 0.0, -1.0]])
    indices, values = top_k(chunks, 2)
    np.testing.assert_array_equal(indices, [[1, 3], [0, 1], [0, 3]])
    np.testing.assert_array_equal(values, [[-5.0, 5.0], [2.0, -2.0], [0.0, -1.0]])


@pytest.mark.parametrize(
    ("size", "k"), [(64, 1), (64, 32), (64, 63), (64, 64), (4096, 32), (4096, 64), (1248, 8), (315, 32)]
)
def test_numpy_selects_the_same(size, k):
    rng = np.random.default_rng(k)
    check(rng.normal(size=(5, size)).astype(np.float32), k)
    check(rng.integers(-3, 4, (5, size)).astype(np.float32), k)  # ties everywhere
    check(np.where(rng.random((5, size)) < 0.003, 1e-38, 0.0).astype(np.float32), k)  # hardly anything there


def test_axes_before_the_last_are_as_many_blocks():
    blocks = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 256)).astype(np.float32))
    indices, values = top_k(blocks, 8)
    assert indices.shape == values.shape == (2, 3, 8)
    for at in np.ndindex(2, 3):
        alone = top_k(blocks[at][None], 8)
        np.testing.assert_array_equal(indices[at], alone[0][0])
        np.testing.assert_array_equal(
            scatter_add(blocks, indices, -values)[at], scatter_add(blocks[at][None], *alone[:1], -alone[1])[0]
        )


@settings(max_examples=20, deadline=None)
@given(
    hnp.arrays(np.float32, (3, 8), elements=st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0])),
    st.sampled_from([1, 3, 8]),
)
def test_ties_of_any_kind(chunks, k):
    check(chunks, k)


def test_eager_jit_and_vmap_agree():
    chunks = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 16)).astype(np.float32))
    eager = [top_k(chunk, 5) for chunk in chunks]
    jitted = jax.jit(jax.vmap(lambda chunk: top_k(chunk, 5)))(chunks)
    for i, (indices, values) in enumerate(eager):
        np.testing.assert_array_equal(jitted[0][i], indices)
        np.testing.assert_array_equal(jitted[1][i], values)


def test_scatter_adds_at_the_indices_of_each_block():
    chunks = jnp.arange(8.0).reshape(2, 4)
    added = scatter_add(
        chunks, jnp.array([[0, 3], [1, 2]], jnp.int32), jnp.array([[10.0, 20.0], [30.0, 40.0]])
    )
    np.testing.assert_array_equal(added, [[10.0, 1.0, 2.0, 23.0], [4.0, 35.0, 46.0, 7.0]])


def test_scatter_undoes_selection():
    chunks = jnp.asarray(np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32))
    indices, values = top_k(chunks, 5)
    rest = np.asarray(scatter_add(chunks, indices, -values))
    assert ((rest == 0).sum(axis=1) == 5).all()
    np.testing.assert_array_equal(scatter_add(jnp.asarray(rest), indices, values), chunks)
