"""Cutting parameter tensors into blocks, and putting them together again.

Blocks follow *logical* layers and global shapes: a stack of L layers is L tensors, a matrix is cut into blocks whose
sides are the largest divisors of its dimensions that are at most 64, and a vector into blocks of at most 64.

Blocks keep their places: ``[*stack, rows, columns]`` becomes ``[*stack, rows of blocks, columns of blocks, entries of a block]``. A
tensor that lies in pieces on several devices, cut between blocks, is so cut into blocks piece by piece: the functions here read
the shape of the piece that they are given, and a layout's ``block`` and ``stack`` alone.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gauntlet_jax.types import Params


class Layout(NamedTuple):
    """How one tensor is cut (static: hashable, known from shapes alone).

    Attributes:
      shape: the tensor's global shape.
      stack: how many leading axes count layers rather than rows.
      block: sides of a block, ``(rows, columns)`` for matrices and ``(length,)`` for vectors.
    """

    shape: tuple[int, ...]
    stack: int
    block: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements in a block."""
        return math.prod(self.block)

    @property
    def grid(self) -> tuple[int, ...]:
        """How many blocks there are along each axis: layers, then rows and columns of blocks, or blocks of a vector."""
        inner = self.shape[self.stack :] or (1,)
        return (
            *self.shape[: self.stack],
            *(length // side for length, side in zip(inner, self.block, strict=True)),
        )

    @property
    def chunks(self) -> int:
        """Blocks in the tensor."""
        return math.prod(self.grid)

    def cut_axis(self, parts: int) -> int | None:
        """The axis along which the tensor is dealt out into equal parts, between blocks.

        The one whose blocks can be halved more often, since devices come in powers of two; then the one with more blocks, the
        first of equals. None where it stays whole: in one part, where neither axis divides, and for vectors.
        """
        if parts == 1 or len(self.block) == 1:
            return None
        axes = [axis for axis in (self.stack, self.stack + 1) if self.grid[axis] % parts == 0]
        return max(axes, key=lambda axis: (self.grid[axis] & -self.grid[axis], self.grid[axis]), default=None)


def block_side(length: int, *, largest: int = 64) -> int:
    """The largest divisor of ``length`` that is at most ``largest``."""
    return next(side for side in range(min(length, largest), 0, -1) if length % side == 0)


def layout_of(shape: tuple[int, ...], *, stack: int | None = None, largest: int = 64) -> Layout:
    """The layout of one tensor.

    Args:
      shape: its global shape, no axis empty.
      stack: leading axes that count layers; None takes all but the last two of a tensor with three or more.
      largest: longest side of a block.

    Raises:
      ValueError: an axis is empty, or ``stack`` is larger than the number of axes.
    """
    if any(length < 1 for length in shape):
        raise ValueError(f"a tensor of shape {shape} holds nothing to compress")
    if stack is None:
        stack = max(0, len(shape) - 2)
    if not 0 <= stack <= len(shape):
        raise ValueError(f"stack {stack} does not fit a tensor of shape {shape}")
    inner = shape[stack:]
    if len(inner) > 2:
        stack, inner = len(shape) - 2, shape[-2:]
    return Layout(shape, stack, tuple(block_side(length, largest=largest) for length in inner) or (1,))


def layouts_of(params: Params, *, stacked: Any | None = None, largest: int = 64) -> Any:
    """The layout of every tensor of a pytree.

    Args:
      params: arrays or ``jax.ShapeDtypeStruct``.
      stacked: a pytree of ints shaped like ``params`` that gives each tensor's leading layer axes; None guesses as
        in ``layout_of``.
      largest: longest side of a block.

    Returns:
      A pytree shaped like ``params`` with a ``Layout`` at each leaf.
    """
    if stacked is None:
        return jax.tree.map(lambda leaf: layout_of(tuple(leaf.shape), largest=largest), params)
    return jax.tree.map(
        lambda leaf, stack: layout_of(tuple(leaf.shape), stack=stack, largest=largest), params, stacked
    )


def is_layout(node: Any) -> bool:
    """Whether a pytree node is a ``Layout``: the ``is_leaf`` of ``jax.tree.map`` over layouts."""
    return isinstance(node, Layout)


def to_blocks(tensor: Float[Array, "..."], layout: Layout) -> Float[Array, "*grid size"]:
    """Cuts a tensor, or a piece of it that holds whole blocks, into blocks."""
    stack = tensor.shape[: layout.stack]
    if len(layout.block) == 1:
        return tensor.reshape(*stack, -1, layout.size)
    rows, columns = layout.block
    height, width = tensor.shape[-2:]
    cut = tensor.reshape(*stack, height // rows, rows, width // columns, columns)
    return jnp.swapaxes(cut, -3, -2).reshape(*stack, height // rows, width // columns, layout.size)


def from_blocks(blocks: Float[Array, "*grid size"], layout: Layout) -> Float[Array, "..."]:
    """The inverse of ``to_blocks``."""
    stack = blocks.shape[: layout.stack]
    if len(layout.block) == 1:
        # No axis but layers: a scalar, or a stack of them.
        return blocks.reshape(*stack, *(() if len(layout.shape) == layout.stack else (-1,)))
    rows, columns = layout.block
    down, across = blocks.shape[-3:-1]
    cut = jnp.swapaxes(blocks.reshape(*stack, down, across, rows, columns), -3, -2)
    return cut.reshape(*stack, down * rows, across * columns)
