import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gauntlet_jax.nodes.stopwatch import Stopwatch, Work, compile_all


@pytest.fixture
def ticking() -> Stopwatch:
    """Every look at the clock takes a second, so a measured block without a look inside takes one."""
    return Stopwatch(now=itertools.count().__next__)


def test_compiling_is_counted_apart_and_once(ticking: Stopwatch):
    step = ticking.step("train", jax.jit(lambda x: x + 1))
    step(np.zeros(2, np.float32))
    assert dict(ticking.seconds) == {"compile": 1, "train": 1}
    step(np.ones(2, np.float32))
    assert dict(ticking.seconds) == {"compile": 1, "train": 2}
    step(np.ones(3, np.float32))  # another shape is another program
    assert dict(ticking.seconds) == {"compile": 2, "train": 3}


def test_what_is_compiled_ahead_is_not_compiled_again(ticking: Stopwatch):
    step = ticking.step("encode", jax.jit(lambda tree: jax.tree.map(jnp.sum, tree)))
    shape = jax.ShapeDtypeStruct((3,), jnp.float32)
    compile_all(ticking, [Work("one", step, ({"a": shape},)), Work("two", step, ({"a": shape, "b": shape},))])
    assert dict(ticking.seconds) == {"compile": 1}
    step({"a": np.ones(3, np.float32)})
    assert dict(ticking.seconds) == {"compile": 1, "encode": 1}


def test_an_error_while_compiling_ahead_is_raised(ticking: Stopwatch):
    step = ticking.step("train", jax.jit(lambda x: x.reshape(5)))
    with pytest.raises(TypeError, match="reshape"):
        compile_all(ticking, [Work("one", step, (jax.ShapeDtypeStruct((3,), jnp.float32),))])


def test_kinds_add_up(ticking: Stopwatch):
    first, second = (ticking.step("evaluate", jax.jit(function)) for function in (jnp.sin, jnp.cos))
    first(np.float32(1))
    second(np.float32(1))
    with ticking.measure("evaluate"):
        pass
    with pytest.raises(KeyError), ticking.measure("other"):
        raise KeyError
    assert dict(ticking.seconds) == {"compile": 2, "evaluate": 3, "other": 1}


def test_a_step_computes_what_the_plain_function_does():
    def function(x, tree):
        return x @ x, jax.tree.map(lambda leaf: jnp.tanh(leaf) * 3, tree)

    x, tree = (
        np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32),
        {"a": np.arange(4.0, dtype=np.float32)},
    )
    plain = jax.jit(function)(x, tree)
    stepped = Stopwatch().step("train", jax.jit(function))(x, tree)
    jax.tree.map(np.testing.assert_array_equal, plain, stepped)


def test_donation_is_kept():
    step = Stopwatch().step("aggregate", jax.jit(lambda x: x + 1, donate_argnums=0))
    given = jnp.zeros(4)
    step(given)
    assert given.is_deleted()
