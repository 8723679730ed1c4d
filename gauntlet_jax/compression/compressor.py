"""Compressors: gradients to pseudo-gradients and back, as init/update/decode triples with explicit state.

Both shipped compressors are one recipe with error feedback, in the space of block coefficients (the DCT is linear and
orthonormal, so what is left over can stay transformed, which saves an inverse transform each round):

    e <- beta * e + T(g);    q = Quant(TopK_k(e));    e <- e - deq(q)

with T the DCT-II for DeMo and the identity for SparseLoCo. What is subtracted is what the receivers add, quantisation
included, so nothing is ever lost: sent + left over = accumulated.

Every block is compressed by itself. So a tensor that lies in pieces on several devices, cut between blocks, is compressed piece by
piece and without a word between the devices, to the same bits as in one place.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gauntlet_jax.compression import dct as dct_lib
from gauntlet_jax.compression import quantization
from gauntlet_jax.compression.chunking import Layout, from_blocks, is_layout, layouts_of, to_blocks
from gauntlet_jax.compression.topk import scatter_add, top_k
from gauntlet_jax.types import Params, PseudoGradient


class SparseTensor(NamedTuple):
    """What is sent of one tensor.

    Attributes:
      indices: int32[*grid, k], strictly increasing in a block.
      codes: uint8[*grid, k], or float32 values where they are not quantised.
      scales: uint16[*grid], the bits of the bfloat16 step between a block's levels; where it is 0, the block's indices are 0 to k - 1.
    """

    indices: Array
    codes: Array
    scales: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Format:
    """All that sender and receiver must agree on, known from the model's shapes alone (static).

    Attributes:
      layouts: a pytree of ``Layout`` shaped like the parameters.
      k: coefficients sent of a block (all of a smaller one).
      bits: bits of a value.
      transform: "dct" or "none".

    Raises:
      ValueError: k is below 1.
    """

    layouts: Any
    k: int
    bits: quantization.Bits
    transform: Literal["dct", "none"]

    def __post_init__(self):
        if self.k < 1:
            raise ValueError(f"compression: at least one coefficient of a block is sent, not k = {self.k}")

    def k_of(self, layout: Layout) -> int:
        """Coefficients sent of one of this tensor's blocks."""
        return min(self.k, layout.size)

    def leaves(self) -> list[Layout]:
        """The layouts, in the order of ``jax.tree.leaves`` of the parameters."""
        return jax.tree.leaves(self.layouts, is_leaf=is_layout)

    def zeros(self) -> Any:
        """Block coefficients of nothing, float32[*grid, size] at each leaf."""
        return jax.tree.map(
            lambda layout: jnp.zeros((*layout.grid, layout.size), jnp.float32),
            self.layouts,
            is_leaf=is_layout,
        )

    def analyze(self, tensors: Params) -> Any:
        """Parameter-shaped tensors to block coefficients, float32[*grid, size] at each leaf."""

        def one(layout: Layout, tensor: Array) -> Array:
            blocks = to_blocks(tensor.astype(jnp.float32), layout)
            return dct_lib.dct(blocks, layout.block) if self.transform == "dct" else blocks

        return jax.tree.map(one, self.layouts, tensors, is_leaf=is_layout)

    def synthesize(self, coefficients: Any) -> Params:
        """The inverse of ``analyze``, in float32."""

        def one(layout: Layout, blocks: Array) -> Array:
            return from_blocks(
                dct_lib.idct(blocks, layout.block) if self.transform == "dct" else blocks, layout
            )

        return jax.tree.map(one, self.layouts, coefficients, is_leaf=is_layout)

    def values(self, sent: SparseTensor) -> Float[Array, "*grid k"]:
        """The dequantised coefficients of one tensor."""
        return quantization.dequantize(sent.codes, sent.scales, bits=self.bits)


class Compressor(NamedTuple):
    """An init/update/decode triple; every function is pure and may be jitted.

    Attributes:
      init: ``params -> state``, a zero residual.
      update: ``(state, gradient) -> (pseudo_gradient, state)``.
      decode: ``pseudo_gradient -> float32 tensors`` shaped like the parameters, the receivers' view of it.
      format: the static agreement that aggregation and packing read.
    """

    init: Callable[[Params], Any]
    update: Callable[[Any, Params], tuple[PseudoGradient, Any]]
    decode: Callable[[PseudoGradient], Params]
    format: Format


def demo(
    params: Params,
    *,
    beta: float = 0.999,
    k: int = 32,
    bits: quantization.Bits = 8,
    stacked: Any | None = None,
) -> Compressor:
    """DeMo's compressor, the paper's (Gauntlet, the section on pseudo-gradients): DCT-II of 64x64 blocks.

    Args:
      params: arrays or shapes of the model.
      beta: momentum of the residual.
      k: coefficients sent of a block of 64x64.
      bits: 2, 8, or 32 for unquantised values.
      stacked: see ``chunking.layouts_of``.
    """
    return _with_error_feedback(Format(layouts_of(params, stacked=stacked), k, bits, "dct"), beta)


def sparseloco(
    params: Params,
    *,
    beta: float = 0.95,
    k: int = 64,
    bits: quantization.Bits = 2,
    stacked: Any | None = None,
) -> Compressor:
    """SparseLoCo's compressor: top-k of the change of H inner steps itself, on 2-bit levels; no DCT, no sign.

    Its ``gradient`` is Delta = theta_0 - theta_H. Arguments as in ``demo``.
    """
    return _with_error_feedback(Format(layouts_of(params, stacked=stacked), k, bits, "none"), beta)


def _with_error_feedback(fmt: Format, beta: float) -> Compressor:
    def init(params: Params) -> Any:
        del params  # the residual's shape is the format's
        return fmt.zeros()

    def update(state: Any, gradient: Params) -> tuple[PseudoGradient, Any]:
        accumulated = jax.tree.map(lambda e, g: beta * e + g, state, fmt.analyze(gradient))
        sent = jax.tree.map(
            lambda layout, e: _select(fmt, layout, e), fmt.layouts, accumulated, is_leaf=is_layout
        )
        residual = jax.tree.map(
            lambda layout, e, s: scatter_add(e, s.indices, -fmt.values(s)),
            fmt.layouts,
            accumulated,
            sent,
            is_leaf=is_layout,
        )
        return sent, residual

    def decode(sent: PseudoGradient) -> Params:
        return fmt.synthesize(
            jax.tree.map(
                lambda layout, s: scatter_add(
                    jnp.zeros((*s.scales.shape, layout.size), jnp.float32), s.indices, fmt.values(s)
                ),
                fmt.layouts,
                sent,
                is_leaf=is_layout,
            )
        )

    return Compressor(init, update, decode, fmt)


def _select(fmt: Format, layout: Layout, coefficients: Array) -> SparseTensor:
    indices, values = top_k(coefficients, fmt.k_of(layout))
    codes, scales = quantization.quantize(values, bits=fmt.bits)
    # A block of nothing is written in one way only, or its copies could differ from it in bytes alone.
    in_order = jnp.arange(indices.shape[-1], dtype=jnp.int32)
    return SparseTensor(jnp.where((scales == 0)[..., None], in_order, indices), codes, scales)
