"""Encoding and aggregation as one would first write them in JAX: what the fast forms must beat, and whose bytes they must give."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gauntlet_jax.compression import Format, PackedTensor
from gauntlet_jax.compression.chunking import Layout, from_blocks, is_layout, to_blocks
from gauntlet_jax.compression.dct import dct_matrix
from gauntlet_jax.compression.index_coding import index_code
from gauntlet_jax.compression.quantization import dequantize, quantize
from gauntlet_jax.types import Params

EXACT = jax.lax.Precision.HIGHEST


def encode(fmt: Format, beta: float, residual: Any, gradient: Params) -> tuple[Any, Any]:
    """``(packed, residual)``: a batched product a side, ``lax.top_k``, a sort, bits one by one."""

    def one(layout: Layout, old: jax.Array, tensor: jax.Array) -> tuple[PackedTensor, jax.Array]:
        blocks = beta * old + _along_sides(to_blocks(tensor, layout), layout.block)
        flat, k = blocks.reshape(-1, layout.size), fmt.k_of(layout)
        indices = jnp.sort(jax.lax.top_k(jnp.abs(flat), k)[1], axis=-1)
        codes, scales = quantize(jnp.take_along_axis(flat, indices, axis=-1), bits=8)
        indices = jnp.where((scales == 0)[:, None], jnp.arange(k), indices)
        left = flat.at[jnp.arange(len(flat))[:, None], indices].add(-dequantize(codes, scales, bits=8))
        grid = blocks.shape[:-1]
        packed = PackedTensor(_bits_of(indices, layout.size), codes, scales)
        return jax.tree.map(lambda leaf: leaf.reshape(*grid, *leaf.shape[1:]), packed), left.reshape(
            blocks.shape
        )

    both = jax.tree.map(one, fmt.layouts, residual, gradient, is_leaf=is_layout)
    packed, left = (
        jax.tree.map(lambda _, pair, at=at: pair[at], fmt.layouts, both, is_leaf=is_layout) for at in (0, 1)
    )
    return packed, left


def aggregate(fmt: Format, peers: Any) -> Params:
    """The signed mean of packed pseudo-gradients, stacked along a first axis, from a dense stack of all of them."""

    def one(layout: Layout, packed: PackedTensor) -> jax.Array:
        dense = jax.vmap(functools.partial(_decoded, layout, fmt.k_of(layout)))(packed)
        return jnp.sign(from_blocks(_along_sides(jnp.mean(dense, axis=0), layout.block, back=True), layout))

    return jax.tree.map(one, fmt.layouts, peers, is_leaf=is_layout)


def _along_sides(blocks: jax.Array, block: tuple[int, ...], *, back: bool = False) -> jax.Array:
    matrices = [dct_matrix(side).T if back else dct_matrix(side) for side in block]
    cut = blocks.reshape(-1, *block)
    if len(block) == 1:
        return jnp.matmul(cut, matrices[0].T, precision=EXACT).reshape(blocks.shape)
    if back:
        along = jnp.matmul(cut, matrices[1].T, precision=EXACT)
        return jnp.matmul(matrices[0], along, precision=EXACT).reshape(blocks.shape)
    along = jnp.matmul(matrices[0], cut, precision=EXACT)
    return jnp.matmul(along, matrices[1].T, precision=EXACT).reshape(blocks.shape)


def _bits_of(indices: jax.Array, size: int) -> jax.Array:
    rows, k = indices.shape
    code = index_code(size, k)
    bitmap = jnp.zeros((rows, code.bitmap_bits), jnp.uint8)
    bitmap = bitmap.at[jnp.arange(rows)[:, None], (indices >> code.low_bits) + jnp.arange(k)].set(1)
    low = (
        ((indices[:, :, None] >> jnp.arange(code.low_bits)) & 1)
        .reshape(rows, k * code.low_bits)
        .astype(jnp.uint8)
    )
    bits = jnp.concatenate([bitmap, low], axis=1)
    return jnp.packbits(bits, axis=1, bitorder="little")


def _decoded(layout: Layout, k: int, packed: PackedTensor) -> jax.Array:
    code = index_code(layout.size, k)
    bits = jnp.unpackbits(packed.indices.reshape(-1, code.bytes), axis=1, bitorder="little").astype(jnp.int32)
    seen = jnp.cumsum(bits[:, : code.bitmap_bits], axis=1)
    places = jnp.sum(seen[:, None, :] <= jnp.arange(k)[None, :, None], axis=2)
    low = bits[:, code.bitmap_bits : code.bitmap_bits + k * code.low_bits].reshape(
        len(bits), k, code.low_bits
    )
    indices = (places - jnp.arange(k) << code.low_bits) | jnp.sum(low << jnp.arange(code.low_bits), axis=2)
    values = dequantize(packed.codes, packed.scales, bits=8).reshape(-1, k)
    unit = values / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(values))), 1e-30)
    dense = jnp.zeros((len(indices), layout.size), jnp.float32)
    return dense.at[jnp.arange(len(indices))[:, None], indices].add(unit).reshape(*layout.grid, layout.size)
