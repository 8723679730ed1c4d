"""Uniform quantisation of a tensor's sent values, with a table that its receiver can bound.

The values of a tensor are coded on ``2**bits`` evenly spaced levels around their mean. The table is two numbers, the
shift and the step; a level can be at most ``shift + 2**(bits - 1) * step`` away, so a receiver bounds what it will ever
add by looking at two finite floats. (The public PyTorch system sends a table of 256 bucket means instead, which a sender
may fill with anything.)
"""

from typing import Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Bits: TypeAlias = Literal[2, 8, 32]
"""Bits a value: 2 (four levels), 8 (256 levels), or 32 for float32 as it is."""

# In standard deviations: 8 bits span 6 sigma, 2 bits have levels at +-0.75 and +-2.25 sigma.
_STEP_IN_SIGMA = {8: 6.0 / 256.0, 2: 1.5}

LARGEST = 2.0**40
"""No level may be larger: squares of that size, summed over 2**40 entries, are still finite in float32."""


def quantize(values: Float[Array, "..."], *, bits: Bits) -> tuple[Array, Float[Array, "2"]]:
    """Codes the values of one tensor.

    Args:
      values: float32, all that is sent of one tensor.
      bits: 2, 8, or 32 (values stay as they are).

    Returns:
      ``(codes, table)``: uint8 codes of the values' shape (float32 values for 32 bits) and float32 ``[shift, step]``.
    """
    if bits == 32:
        return values, jnp.array([0.0, 1.0], jnp.float32)
    levels = 2**bits
    shift = jnp.mean(values)
    step = jnp.std(values) * _STEP_IN_SIGMA[bits]
    position = (values - shift) / jnp.where(step > 0, step, 1.0) + (levels - 1) / 2
    codes = jnp.clip(jnp.round(position), 0, levels - 1).astype(jnp.uint8)
    return codes, jnp.stack([shift, step]).astype(jnp.float32)


def dequantize(codes: Array, table: Float[Array, "2"], *, bits: Bits) -> Float[Array, "..."]:
    """The values that the codes stand for: ``shift + (code - (2**bits - 1)/2) * step``."""
    if bits == 32:
        return codes
    return table[0] + (codes.astype(jnp.float32) - (2**bits - 1) / 2) * table[1]


def is_bounded(codes: Array, table: Float[Array, "2"], *, bits: Bits) -> Bool[Array, ""]:
    """Whether a stranger's table (and values, at 32 bits) is finite, canonical and reaches at most ``LARGEST``.

    Codes need no check: every value that fits their 2 or 8 bits is a level.
    """
    if bits == 32:
        canonical = jnp.all(table == jnp.array([0.0, 1.0], jnp.float32))
        return canonical & jnp.all(jnp.abs(codes) <= LARGEST)  # NaN compares false
    shift, step = table[0], table[1]
    reach = jnp.abs(shift) + 2 ** (bits - 1) * step
    return (step >= 0) & (reach <= LARGEST)  # NaN compares false
