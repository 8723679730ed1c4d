"""Quantisation of what is sent, each block with a scale of its own that its receiver can bound.

The values of a block are coded on ``2**bits`` evenly spaced levels around zero, ``(code - (2**bits - 1)/2) * step``. At 8 bits the
levels reach the block's largest value; at 2 bits they lie at ±1 and ±3 times its mean magnitude, which loses a third of the energy that ±0.75
and ±2.25 deviations lose, since the largest of a block are much alike. The step is a bfloat16: two bytes a block, and a bound on all that a
receiver will ever add. (The public PyTorch system takes one table for a whole tensor: mean, deviation
and 256 bucket means, which a sender may fill with anything, and which no shard of a tensor can know without the others.)
"""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt16

Bits: TypeAlias = Literal[2, 8, 32]
"""Bits a value: 2 (four levels), 8 (256 levels), or 32 for float32 as it is."""

LARGEST = 2.0**40
"""No level may be larger: squares of that size, summed over 2**40 entries, are still finite in float32."""

_ONE = 0x3F80  # 1.0 as a bfloat16
_TWO_BIT_STEP = 2.0  # in mean magnitudes


def quantize(values: Float[Array, "*grid k"], *, bits: Bits) -> tuple[Array, UInt16[Array, "*grid"]]:
    """Codes the values of every block.

    Args:
      values: float32, all that is sent of a block in the last axis.
      bits: 2, 8, or 32 (values stay as they are).

    Returns:
      ``(codes, scales)``: uint8 codes of the values' shape (float32 values for 32 bits), and each block's step, as the bits of a
      bfloat16. Where the step is 0 so are the codes.
    """
    if bits == 32:
        return values, jnp.full(values.shape[:-1], _ONE, jnp.uint16)
    levels = 2**bits
    reach = (
        jnp.max(jnp.abs(values), axis=-1) / ((levels - 1) / 2)
        if bits == 8
        else _total(jnp.abs(values)) * (_TWO_BIT_STEP / values.shape[-1])
    )
    rounded = reach.astype(jnp.bfloat16)
    step = rounded.astype(jnp.float32)[..., None]
    position = values / jnp.where(step > 0, step, 1.0) + (levels - 1) / 2
    codes = jnp.where(step > 0, jnp.clip(jnp.round(position), 0, levels - 1), 0.0).astype(jnp.uint8)
    return codes, jax.lax.bitcast_convert_type(rounded, jnp.uint16)


def dequantize(codes: Array, scales: UInt16[Array, "*grid"], *, bits: Bits) -> Float[Array, "*grid k"]:
    """The values that the codes stand for: ``(code - (2**bits - 1)/2) * step``, float32."""
    if bits == 32:
        return codes
    return (codes.astype(jnp.float32) - (2**bits - 1) / 2) * steps_of(scales)[..., None]


def steps_of(scales: UInt16[Array, "*grid"]) -> Float[Array, "*grid"]:
    """The steps that the bits of bfloat16 numbers stand for, float32."""
    return jax.lax.bitcast_convert_type(scales, jnp.bfloat16).astype(jnp.float32)


def is_bounded(codes: Array, scales: UInt16[Array, "*grid"], *, bits: Bits) -> Bool[Array, ""]:
    """Whether a stranger's scales (and values, at 32 bits) are finite, canonical and reach at most ``LARGEST``.

    Every value that fits the 2 or 8 bits of a code is a level; but a block of zeros has one form alone, all codes 0.
    """
    if bits == 32:
        return jnp.all(scales == _ONE) & jnp.all(jnp.abs(codes) <= LARGEST)  # NaN compares false
    reach = 2 ** (bits - 1) * steps_of(scales)
    silent = scales == 0
    # A sign bit is out of range as well; NaN compares false.
    return jnp.all((scales < 0x8000) & (reach <= LARGEST)) & jnp.all(
        jnp.where(silent[..., None], codes == 0, True)
    )


def _total(values: Float[Array, "*grid k"]) -> Float[Array, "*grid"]:
    """The sum over a block, halves added to halves: the same bits whatever blocks lie beside it, which a reduction does not promise."""
    while (count := values.shape[-1]) > 1:
        half = count // 2
        pairs = values[..., :half] + values[..., half : 2 * half]
        values = jnp.concatenate([pairs, values[..., 2 * half :]], axis=-1)
    return values[..., 0]
