"""A pseudo-gradient as three flat arrays, and the exact count of its bytes.

Tensors follow one another in the order of ``jax.tree.leaves``: ``indices`` holds every block's Elias-Fano code,
``codes`` the values (four 2-bit codes a byte), ``tables`` a row ``[shift, step]`` a tensor. Sizes depend on the format
alone, so a receiver knows them before it reads a byte.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from gauntlet_jax.compression.chunking import Layout, is_layout
from gauntlet_jax.compression.compressor import Format, SparseTensor
from gauntlet_jax.compression.index_coding import index_code, pack_indices, unpack_indices
from gauntlet_jax.compression.quantization import is_bounded
from gauntlet_jax.types import PseudoGradient


class Sizes(NamedTuple):
    """The exact size of every pseudo-gradient of a format.

    Attributes:
      values: coefficients sent.
      parameters: parameters of the model.
      index_bytes, code_bytes, table_bytes: bytes of the three arrays.
    """

    values: int
    parameters: int
    index_bytes: int
    code_bytes: int
    table_bytes: int

    @property
    def bytes(self) -> int:
        """Bytes in all."""
        return self.index_bytes + self.code_bytes + self.table_bytes

    @property
    def bits_per_value(self) -> float:
        """Bits a sent coefficient costs, indices and tables included."""
        return 8 * self.bytes / self.values

    @property
    def compression(self) -> float:
        """How many times smaller than the gradient in float32."""
        return 4 * self.parameters / self.bytes


def sizes(fmt: Format) -> Sizes:
    """Counts the bytes of a format's pseudo-gradients."""
    layouts = fmt.leaves()
    return Sizes(
        values=sum(layout.chunks * fmt.k_of(layout) for layout in layouts),
        parameters=sum(layout.chunks * layout.size for layout in layouts),
        index_bytes=sum(_index_bytes(fmt, layout) for layout in layouts),
        code_bytes=sum(_code_bytes(fmt, layout) for layout in layouts),
        table_bytes=8 * len(layouts),
    )


def array_shapes(fmt: Format) -> dict[str, jax.ShapeDtypeStruct]:
    """Name, shape and dtype of the arrays that ``pack`` makes."""
    size = sizes(fmt)
    codes = (
        jax.ShapeDtypeStruct((size.values,), jnp.float32)
        if fmt.bits == 32
        else jax.ShapeDtypeStruct((size.code_bytes,), jnp.uint8)
    )
    return {
        "indices": jax.ShapeDtypeStruct((size.index_bytes,), jnp.uint8),
        "codes": codes,
        "tables": jax.ShapeDtypeStruct((len(fmt.leaves()), 2), jnp.float32),
    }


def pack(fmt: Format, sent: PseudoGradient) -> dict[str, Array]:
    """The three arrays of a pseudo-gradient (jit it with ``fmt`` closed over)."""
    leaves = jax.tree.leaves(sent, is_leaf=lambda node: isinstance(node, SparseTensor))
    pairs = list(zip(fmt.leaves(), leaves, strict=True))
    return {
        "indices": jnp.concatenate([pack_indices(s.indices, layout.size).reshape(-1) for layout, s in pairs]),
        "codes": jnp.concatenate([_pack_codes(fmt, s.codes) for _, s in pairs]),
        "tables": jnp.stack([s.table for _, s in pairs]),
    }


def unpack(fmt: Format, arrays: Mapping[str, Array]) -> tuple[PseudoGradient, Bool[Array, ""]]:
    """Reads a stranger's arrays, whose shapes and dtypes must have been checked against ``array_shapes``.

    Returns:
      ``(pseudo_gradient, well_formed)``. It is well formed where every index code is canonical and in range, every value
      finite and bounded, and every spare bit zero. A tensor that is not reads as zeros at indices in range, so that what
      is refused can be decoded without harm.
    """
    fields, verdicts = [], []
    index_at = code_at = 0
    for number, layout in enumerate(fmt.leaves()):
        k = fmt.k_of(layout)
        end = index_at + _index_bytes(fmt, layout)
        coded = arrays["indices"][index_at:end].reshape(layout.chunks, -1)
        indices, canonical = unpack_indices(coded, layout.size, k)
        index_at, start = end, code_at
        code_at += _code_bytes(fmt, layout) if fmt.bits != 32 else layout.chunks * k
        codes, clean = _unpack_codes(fmt, arrays["codes"][start:code_at], (layout.chunks, k))
        table = arrays["tables"][number]
        good = canonical & clean & is_bounded(codes, table, bits=fmt.bits)
        if fmt.bits == 32:
            codes = jnp.where(good, codes, 0.0)
        fields.append(SparseTensor(indices, codes, jnp.where(good, table, 0.0)))
        verdicts.append(good)
    structure = jax.tree.structure(fmt.layouts, is_leaf=is_layout)
    return jax.tree.unflatten(structure, fields), jnp.all(jnp.stack(verdicts))


def _index_bytes(fmt: Format, layout: Layout) -> int:
    return layout.chunks * index_code(layout.size, fmt.k_of(layout)).bytes


def _code_bytes(fmt: Format, layout: Layout) -> int:
    return math.ceil(layout.chunks * fmt.k_of(layout) * fmt.bits / 8)


def _pack_codes(fmt: Format, codes: Array) -> Array:
    flat = codes.reshape(-1)
    if fmt.bits != 2:
        return flat
    fours = jnp.pad(flat, (0, -flat.size % 4)).reshape(-1, 4)
    return jnp.sum(fours.astype(jnp.uint32) << np.arange(0, 8, 2, dtype=np.uint32), axis=1).astype(jnp.uint8)


def _unpack_codes(fmt: Format, packed: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    if fmt.bits != 2:
        return packed.reshape(shape), jnp.array(True)
    fours = (packed[:, None] >> jnp.arange(0, 8, 2, dtype=jnp.uint8)) & jnp.uint8(3)
    flat, spare = jnp.split(fours.reshape(-1), [math.prod(shape)])
    return flat.reshape(shape), jnp.all(spare == 0)
