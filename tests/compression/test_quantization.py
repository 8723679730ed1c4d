import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gauntlet_jax.compression.quantization import LARGEST, dequantize, is_bounded, quantize, steps_of

CODES = jnp.ones((1, 3), jnp.uint8)


def normal(*shape, seed=0, scale=2.0):
    return np.random.default_rng(seed).normal(0.0, scale, shape).astype(np.float32)


def scale_of(step):
    return np.array(step, ml_dtypes.bfloat16).view(np.uint16)


@pytest.mark.parametrize(
    ("bits", "codes", "levels"),
    [(2, [0, 1, 2, 3], [-2.25, -0.75, 0.75, 2.25]), (8, [0, 127, 128, 255], [-191.25, -0.75, 0.75, 191.25])],
)
def test_levels_by_hand(bits, codes, levels):
    values = dequantize(jnp.array([codes], jnp.uint8), jnp.array([scale_of(1.5)]), bits=bits)
    np.testing.assert_array_equal(values, [levels])


@pytest.mark.parametrize("bits", [2, 8])
def test_numpy_codes_the_same(bits):
    values = normal(4, 2, 125)
    codes, scales = quantize(jnp.asarray(values), bits=bits)
    exact = values.astype(np.float64)
    reach = np.abs(exact).max(-1) / 127.5 if bits == 8 else 2.0 * np.abs(exact).mean(-1)
    step = np.asarray(steps_of(scales), np.float64)
    np.testing.assert_allclose(step, reach, rtol=2**-8)  # a bfloat16 has 8 bits
    assert np.array_equal(step, reach.astype(ml_dtypes.bfloat16).astype(np.float64))
    position = np.clip(exact / step[..., None] + (2**bits - 1) / 2, 0, 2**bits - 1)
    assert codes.dtype == jnp.uint8 and codes.shape == values.shape
    assert scales.dtype == jnp.uint16 and scales.shape == (4, 2)
    # Half a level, and the rounding of float32 where a value lies between two.
    assert np.abs(np.asarray(codes) - position).max() <= 0.5 + 1e-3
    expected = (np.asarray(codes, np.float64) - (2**bits - 1) / 2) * step[..., None]
    np.testing.assert_allclose(dequantize(codes, scales, bits=bits), expected, rtol=1e-6)


def test_eight_bits_err_by_half_a_step_everywhere():
    values = normal(50, 80)
    codes, scales = quantize(jnp.asarray(values), bits=8)
    error = np.abs(np.asarray(dequantize(codes, scales, bits=8)) - values)
    step = np.asarray(steps_of(scales))[:, None]
    largest = np.abs(values) == np.abs(values).max(axis=1, keepdims=True)
    assert (error[~largest] <= 0.5 * np.broadcast_to(step, error.shape)[~largest] * 1.001).all()
    # A step that was rounded down does not quite reach the largest: by 2**-9 of it at most.
    assert (error <= (0.5 + 127.5 / 2**9) * step * 1.001).all()
    assert error.max() > 0.4 * step.min()


def test_two_bits_err_by_half_a_step_between_the_outer_levels():
    values = normal(1, 4000)
    codes, scales = quantize(jnp.asarray(values), bits=2)
    assert set(np.unique(codes)) == {0, 1, 2, 3}
    error = np.abs(np.asarray(dequantize(codes, scales, bits=2)) - values)
    step = float(steps_of(scales)[0])
    inside = np.abs(values) <= 2 * step
    assert 0 < (~inside).sum() < 40
    assert error[inside].max() <= 0.5 * step * 1.001


def test_a_block_knows_nothing_of_another():
    """One alone gives the same bits: that is what lets shards encode without a word between them."""
    values = normal(6, 32)
    values[3] *= 1e6
    for bits in (2, 8, 32):
        whole = quantize(jnp.asarray(values), bits=bits)
        for row in range(6):
            alone = quantize(jnp.asarray(values[row : row + 1]), bits=bits)
            for one, other in zip(whole, alone, strict=True):
                assert np.asarray(one)[row].tobytes() == np.asarray(other)[0].tobytes()


def test_32_bits_pass_through():
    values = jnp.asarray(normal(1, 7))
    codes, scales = quantize(values, bits=32)
    np.testing.assert_array_equal(steps_of(scales), [1.0])
    np.testing.assert_array_equal(dequantize(codes, scales, bits=32), values)
    assert is_bounded(codes, scales, bits=32)


@pytest.mark.parametrize("bits", [2, 8])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e-30, 1e9])
def test_equal_values_come_back_nearly(bits, value):
    codes, scales = quantize(jnp.full((3, 5), value, jnp.float32), bits=bits)
    np.testing.assert_allclose(dequantize(codes, scales, bits=bits), value, rtol=2**-8)
    assert is_bounded(codes, scales, bits=bits)
    if value == 0.0:
        np.testing.assert_array_equal(codes, 0)
        np.testing.assert_array_equal(scales, 0)


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.float32, (1, 6), elements=st.floats(-(2.0**38), 2.0**38, width=32)),
    st.sampled_from([2, 8]),
)
def test_what_an_honest_peer_makes_is_bounded_and_finite(values, bits):
    codes, scales = quantize(jnp.asarray(values), bits=bits)
    decoded = np.asarray(dequantize(codes, scales, bits=bits))
    assert np.isfinite(decoded).all()
    assert is_bounded(codes, scales, bits=bits)


@pytest.mark.parametrize("step", [np.nan, np.inf, -np.inf, -1.0, -0.0, LARGEST, 3e38])
@pytest.mark.parametrize("bits", [2, 8])
def test_a_scale_that_is_not_finite_small_and_positive_is_refused(step, bits):
    assert not is_bounded(CODES, jnp.array([scale_of(step)]), bits=bits)
    assert is_bounded(CODES, jnp.array([scale_of(1.0)]), bits=bits)


@pytest.mark.parametrize("bits", [2, 8])
def test_no_level_of_a_bounded_scale_is_larger(bits):
    step = LARGEST / 2 ** (bits - 1)
    assert is_bounded(CODES, jnp.array([scale_of(step)]), bits=bits)
    levels = dequantize(jnp.arange(2**bits, dtype=jnp.uint8)[None], jnp.array([scale_of(step)]), bits=bits)
    assert np.abs(levels).max() <= LARGEST
    assert not is_bounded(CODES, jnp.array([scale_of(step * 1.01)]), bits=bits)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0 * LARGEST, -2.0 * LARGEST])
def test_values_of_32_bits_are_bounded_one_by_one(value):
    one = jnp.array([scale_of(1.0)])
    assert is_bounded(jnp.array([[1.0, LARGEST]], jnp.float32), one, bits=32)
    assert not is_bounded(jnp.array([[1.0, value]], jnp.float32), one, bits=32)
    assert not is_bounded(jnp.array([[1.0, 2.0]], jnp.float32), jnp.array([scale_of(2.0)]), bits=32)


def test_eager_and_jit_agree():
    values = jnp.asarray(normal(3, 64))
    codes, scales = quantize(values, bits=8)
    jitted_codes, jitted_scales = jax.jit(lambda v: quantize(v, bits=8))(values)
    np.testing.assert_array_equal(scales, jitted_scales)
    assert np.abs(np.asarray(codes, int) - np.asarray(jitted_codes, int)).max() <= 1
