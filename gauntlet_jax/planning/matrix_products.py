"""Floating point operations of a compiled program's matrix products, loops turned as often as they turn.

TPU compilers write matrix products as convolutions, those with batch axes as dilated ones, most of whose windows lie outside
the array; only positions that hit an entry count. All else (additions, exponentials, sorting) is left out.
"""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from gauntlet_jax.planning.hlo_text import Computation, Instruction, Program

_WINDOW = re.compile(r"window=\{([^}]*)\}")
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")


def matrix_flops(program: Program, times: Mapping[str, int]) -> int:
    """Two for each multiplication and addition, on one device.

    Args:
      program: the compiled program.
      times: how often each computation runs.
    """
    return sum(
        times.get(computation.name, 0) * _flops(computation, instruction)
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
    )


def _flops(computation: Computation, instruction: Instruction) -> int:
    if instruction.opcode == "dot":
        left = computation.instructions[instruction.operands[0]].shapes[0].dims
        contracted = [left[axis] for axis in instruction.numbers("lhs_contracting_dims")]
        return 2 * math.prod(instruction.shapes[0].dims) * math.prod(contracted)
    if instruction.opcode == "convolution":
        return _convolution(computation, instruction)
    return 0


def _convolution(computation: Computation, instruction: Instruction) -> int:
    found = _LABELS.search(instruction.attributes)
    assert found is not None, instruction.name
    left, right = (computation.instructions[name].shapes[0].dims for name in instruction.operands[:2])
    left_at, right_at, out_at = (
        dict(zip(labels, dims, strict=True))
        for labels, dims in zip(found.groups(), (left, right, instruction.shapes[0].dims), strict=True)
    )
    spatial = sorted(label for label in left_at if label.isdigit())
    window = _window(instruction, len(spatial))
    hits = 1
    for axis, label in enumerate(spatial):
        hits *= _hits(
            entries=left_at[label],
            outputs=out_at[label],
            size=right_at[label],
            stride=window["stride"][axis],
            low=window["pad"][axis],
            base=window["lhs_dilate"][axis],
            spread=window["rhs_dilate"][axis],
        )
    groups = int(instruction.attribute("feature_group_count") or 1)
    batches = int(instruction.attribute("batch_group_count") or 1)
    return 2 * (left_at["f"] // groups) * out_at["f"] * (left_at["b"] // batches) * hits


def _window(instruction: Instruction, axes: int) -> Mapping[str, Sequence[int]]:
    window: dict[str, list[int]] = {
        "stride": [1] * axes,
        "pad": [0] * axes,
        "lhs_dilate": [1] * axes,
        "rhs_dilate": [1] * axes,
    }
    found = _WINDOW.search(instruction.attributes)
    for part in found[1].split() if found else []:
        name, value = part.split("=")
        if name in window:
            window[name] = [int(word.split("_")[0]) for word in value.split("x")]
    return window


def _hits(*, entries: int, outputs: int, size: int, stride: int, low: int, base: int, spread: int) -> int:
    """Pairs of an output and a place in the window that meet an entry along one axis."""
    outs = np.arange(outputs, dtype=np.int64) * stride - low
    count = 0
    for place in range(size):
        where = outs + place * spread
        count += int(np.count_nonzero((where % base == 0) & (where >= 0) & (where < entries * base)))
    return count
