"""A pseudo-gradient as bytes, block by block, and the exact count of them.

Every block is packed by itself: its Elias-Fano code, its values (four 2-bit codes a byte) and its scale. So a piece of a tensor that holds whole
blocks packs alone, and sizes depend on the format alone: a receiver knows them before it reads a byte.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from gauntlet_jax.compression.chunking import Layout, is_layout
from gauntlet_jax.compression.compressor import Format, SparseTensor
from gauntlet_jax.compression.index_coding import index_code, pack_indices, unpack_indices
from gauntlet_jax.compression.quantization import is_bounded
from gauntlet_jax.types import PseudoGradient


class PackedTensor(NamedTuple):
    """What travels of one tensor.

    Attributes:
      indices: uint8[*grid, bytes], a block's Elias-Fano code.
      codes: uint8[*grid, bytes], or float32[*grid, k] where values are not quantised.
      scales: uint16[*grid], the bits of bfloat16 steps.
    """

    indices: Any
    codes: Any
    scales: Any


class Sizes(NamedTuple):
    """The exact size of every pseudo-gradient of a format.

    Attributes:
      values: coefficients sent.
      parameters: parameters of the model.
      index_bytes, code_bytes, scale_bytes: bytes of indices, values and scales.
    """

    values: int
    parameters: int
    index_bytes: int
    code_bytes: int
    scale_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes in all."""
        return self.index_bytes + self.code_bytes + self.scale_bytes

    @property
    def bits_per_value(self) -> float:
        """Bits a sent coefficient costs, indices and scales included."""
        return 8 * self.bytes / self.values

    @property
    def compression(self) -> float:
        """How many times smaller than the gradient in float32."""
        return 4 * self.parameters / self.bytes


def sizes(fmt: Format) -> Sizes:
    """Counts the bytes of a format's pseudo-gradients."""
    layouts = fmt.leaves()
    packed = jax.tree.leaves(packed_shapes(fmt), is_leaf=_is_packed)

    def nbytes(shape: jax.ShapeDtypeStruct) -> int:
        return math.prod(shape.shape) * shape.dtype.itemsize

    return Sizes(
        values=sum(layout.chunks * fmt.k_of(layout) for layout in layouts),
        parameters=sum(layout.chunks * layout.size for layout in layouts),
        index_bytes=sum(nbytes(tensor.indices) for tensor in packed),
        code_bytes=sum(nbytes(tensor.codes) for tensor in packed),
        scale_bytes=sum(nbytes(tensor.scales) for tensor in packed),
    )


def packed_shapes(fmt: Format) -> Any:
    """Shapes and dtypes of what ``pack`` makes: a pytree like the parameters with a ``PackedTensor`` at each leaf."""

    def one(layout: Layout) -> PackedTensor:
        k = fmt.k_of(layout)
        codes = (
            jax.ShapeDtypeStruct((*layout.grid, k), jnp.float32)
            if fmt.bits == 32
            else jax.ShapeDtypeStruct((*layout.grid, math.ceil(k * fmt.bits / 8)), jnp.uint8)
        )
        indices = jax.ShapeDtypeStruct((*layout.grid, index_code(layout.size, k).bytes), jnp.uint8)
        return PackedTensor(indices, codes, jax.ShapeDtypeStruct(layout.grid, jnp.uint16))

    return jax.tree.map(one, fmt.layouts, is_leaf=is_layout)


def pack(fmt: Format, sent: PseudoGradient) -> Any:
    """The bytes of a pseudo-gradient, or of pieces of one that hold whole blocks: a pytree of ``PackedTensor``."""

    def one(layout: Layout, tensor: SparseTensor) -> PackedTensor:
        return PackedTensor(
            pack_indices(tensor.indices, layout.size), _pack_codes(fmt, tensor.codes), tensor.scales
        )

    return jax.tree.map(one, fmt.layouts, sent, is_leaf=is_layout)


def unpack(fmt: Format, packed: Any) -> tuple[PseudoGradient, Bool[Array, ""]]:
    """Reads a stranger's bytes, whose shapes and dtypes must have been checked against ``packed_shapes``.

    Returns:
      ``(pseudo_gradient, well_formed)``. It is well formed where every index code is canonical and in range, every value
      finite and bounded, every spare bit zero, and every block of zeros written in the one way there is. A tensor that is not reads as zeros
      at indices in range, so that what is refused can be decoded without harm.
    """
    verdicts = []

    def one(layout: Layout, tensor: PackedTensor) -> SparseTensor:
        k = fmt.k_of(layout)
        indices, canonical = unpack_indices(tensor.indices, layout.size, k)
        codes, clean = _unpack_codes(fmt, tensor.codes, k)
        # Canonical indices rise, so they are 0 to k - 1 where the last is k - 1. Looking at all makes a CPU decode all twice.
        in_order = jnp.all((tensor.scales != 0) | (indices[..., -1] == k - 1))
        good = canonical & clean & in_order & is_bounded(codes, tensor.scales, bits=fmt.bits)
        verdicts.append(good)
        if fmt.bits == 32:
            codes = jnp.where(good, codes, 0.0)
        return SparseTensor(indices, codes, jnp.where(good, tensor.scales, jnp.uint16(0)))

    sent = jax.tree.map(one, fmt.layouts, packed, is_leaf=is_layout)
    return sent, jnp.all(jnp.stack(verdicts))


def _is_packed(node: Any) -> bool:
    return isinstance(node, PackedTensor)


def _pack_codes(fmt: Format, codes: Array) -> Array:
    if fmt.bits != 2:
        return codes
    spare = [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % 4)]
    fours = jnp.pad(codes, spare).reshape(*codes.shape[:-1], -1, 4)
    return jnp.sum(fours.astype(jnp.uint32) << np.arange(0, 8, 2, dtype=np.uint32), axis=-1).astype(jnp.uint8)


def _unpack_codes(fmt: Format, packed: Array, k: int) -> tuple[Array, Array]:
    if fmt.bits != 2:
        return packed, jnp.array(True)
    fours = (packed[..., None] >> jnp.arange(0, 8, 2, dtype=jnp.uint8)) & jnp.uint8(3)
    codes, spare = jnp.split(fours.reshape(*packed.shape[:-1], -1), [k], axis=-1)
    return codes, jnp.all(spare == 0)
