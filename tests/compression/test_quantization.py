import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gauntlet_jax.compression.quantization import LARGEST, dequantize, is_bounded, quantize

TABLE = jnp.array([1.0, 0.5], jnp.float32)
CODES = jnp.zeros(3, jnp.uint8)
STEP = {8: 6.0 / 256.0, 2: 1.5}  # in standard deviations


def normal(count, *, seed=0, loc=0.3, scale=2.0):
    return np.random.default_rng(seed).normal(loc, scale, count).astype(np.float32)


@pytest.mark.parametrize(("bits", "levels"), [(2, [-2.25, -0.75, 0.75, 2.25]), (8, None)])
def test_levels_by_hand(bits, levels):
    if levels is not None:
        table = jnp.array([10.0, 1.5], jnp.float32)
        np.testing.assert_allclose(
            dequantize(jnp.arange(4, dtype=jnp.uint8), table, bits=2), 10.0 + np.array(levels)
        )
    else:
        table = jnp.array([10.0, 0.5], jnp.float32)
        values = dequantize(jnp.array([0, 127, 128, 255], jnp.uint8), table, bits=8)
        np.testing.assert_allclose(values, [10 - 63.75, 9.75, 10.25, 10 + 63.75])


@pytest.mark.parametrize("bits", [2, 8])
def test_numpy_codes_the_same(bits):
    values = normal((8, 125))
    codes, table = quantize(jnp.asarray(values), bits=bits)
    exact = values.astype(np.float64)
    shift, step = exact.mean(), exact.std() * STEP[bits]
    np.testing.assert_allclose(table, [shift, step], rtol=1e-5)
    position = np.clip((exact - shift) / step + (2**bits - 1) / 2, 0, 2**bits - 1)
    assert codes.dtype == jnp.uint8 and codes.shape == values.shape and table.dtype == jnp.float32
    # Half a level, and the rounding of float32 where a value lies between two.
    assert np.abs(np.asarray(codes) - position).max() <= 0.5 + 1e-3
    expected = shift + (np.asarray(codes, np.float64) - (2**bits - 1) / 2) * step
    np.testing.assert_allclose(dequantize(codes, table, bits=bits), expected, atol=1e-5)


def test_eight_bits_err_by_half_a_step_within_three_sigma_and_clip_beyond():
    values = normal(4000)
    codes, table = quantize(jnp.asarray(values), bits=8)
    error = np.abs(np.asarray(dequantize(codes, table, bits=8)) - values)
    inside = np.abs(values - values.mean()) <= 2.98 * values.std()
    step = float(table[1])
    assert 0 < (~inside).sum() < 40
    assert error[inside].max() <= 0.5 * step * 1.001
    assert error[inside].max() > 0.45 * step
    assert error[~inside].max() > step


def test_two_bits_err_by_half_a_step_between_the_outer_levels():
    values = normal(4000)
    codes, table = quantize(jnp.asarray(values), bits=2)
    assert set(np.unique(codes)) == {0, 1, 2, 3}
    error = np.abs(np.asarray(dequantize(codes, table, bits=2)) - values)
    inside = np.abs(values - values.mean()) <= 3 * values.std()
    assert error[inside].max() <= 0.5 * float(table[1]) * 1.001


def test_32_bits_pass_through():
    values = jnp.asarray(normal(7))
    codes, table = quantize(values, bits=32)
    np.testing.assert_array_equal(table, [0.0, 1.0])
    np.testing.assert_array_equal(dequantize(codes, table, bits=32), values)
    assert is_bounded(codes, table, bits=32)


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e-30, 1e9])
def test_equal_values_come_back(bits, value):
    codes, table = quantize(jnp.full((3, 5), value, jnp.float32), bits=bits)
    np.testing.assert_allclose(dequantize(codes, table, bits=bits), value, rtol=1e-5)
    assert is_bounded(codes, table, bits=bits)
    if value == 0.0:  # no step to divide by: the code is the one next to the mean, on any platform
        np.testing.assert_array_equal(codes, 2 ** (bits - 1))


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.float32, 6, elements=st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False)),
    st.sampled_from([2, 8]),
)
def test_what_an_honest_peer_makes_is_bounded_and_finite(values, bits):
    codes, table = quantize(jnp.asarray(values), bits=bits)
    assert float(table[1]) >= 0
    decoded = np.asarray(dequantize(codes, table, bits=bits))
    assert np.isfinite(decoded).all()
    if np.abs(values).max() < 2.0**36:
        assert is_bounded(codes, table, bits=bits)


@pytest.mark.parametrize(
    "table",
    [
        (np.nan, 1.0),
        (0.0, np.nan),
        (np.inf, 1.0),
        (-np.inf, 1.0),
        (0.0, np.inf),
        (0.0, -1.0),
        (np.inf, -np.inf),
        (2.0 * LARGEST, 0.0),
        (-2.0 * LARGEST, 0.0),
        (0.0, LARGEST),
        (3e38, 3e38),
    ],
)
@pytest.mark.parametrize("bits", [2, 8])
def test_a_table_that_is_not_finite_small_and_positive_is_refused(table, bits):
    assert not is_bounded(CODES, jnp.array(table, jnp.float32), bits=bits)


@pytest.mark.parametrize("bits", [2, 8])
def test_no_level_of_a_bounded_table_is_larger(bits):
    table = jnp.array([LARGEST / 2, LARGEST / 2 / 2 ** (bits - 1)], jnp.float32)
    assert is_bounded(CODES, table, bits=bits)
    levels = dequantize(jnp.arange(2**bits, dtype=jnp.uint8), table, bits=bits)
    assert np.abs(levels).max() <= LARGEST
    assert not is_bounded(CODES, table * 1.01, bits=bits)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0 * LARGEST, -2.0 * LARGEST])
def test_values_of_32_bits_are_bounded_one_by_one(value):
    identity = jnp.array([0.0, 1.0], jnp.float32)
    assert is_bounded(jnp.array([1.0, LARGEST], jnp.float32), identity, bits=32)
    assert not is_bounded(jnp.array([1.0, value], jnp.float32), identity, bits=32)
    assert not is_bounded(jnp.array([1.0, 2.0], jnp.float32), TABLE, bits=32)


def test_eager_and_jit_agree():
    values = jnp.asarray(normal(64))
    codes, table = quantize(values, bits=8)
    jitted_codes, jitted_table = jax.jit(lambda v: quantize(v, bits=8))(values)
    np.testing.assert_allclose(table, jitted_table, rtol=1e-6)
    assert np.abs(np.asarray(codes, int) - np.asarray(jitted_codes, int)).max() <= 1
