"""Where parameters and batches live: a (data, fsdp, tensor) mesh, of which one device is the 1x1x1 case."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gauntlet_jax.compression.chunking import block_side
from gauntlet_jax.types import Params

AXES = ("data", "fsdp", "tensor")

# Matrices whose rows are the sharded features of the product before them; all others split their columns.
_ROW_PARALLEL = frozenset({"output", "down", "embedding"})


class Shardings(NamedTuple):
    """Placements on one mesh.

    Attributes:
      params: a pytree of ``NamedSharding`` shaped like the parameters.
      batch: sequences over the data and fsdp axes.
      replicated: the same value everywhere.
    """

    params: Any
    batch: NamedSharding
    replicated: NamedSharding


def make_mesh(
    *,
    data: int = 1,
    fsdp: int = 1,
    tensor: int = 1,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> Mesh:
    """A mesh over ``data * fsdp * tensor`` devices (the first ones, unless they are given).

    Raises:
      ValueError: there are fewer devices than that, or an axis is below 1.
    """
    wanted = data * fsdp * tensor
    devices = jax.devices() if devices is None else devices
    if min(data, fsdp, tensor) < 1 or len(devices) < wanted:
        raise ValueError(
            f"mesh: {data}x{fsdp}x{tensor} (data x fsdp x tensor) needs {wanted} devices, {len(devices)} are there"
        )
    return jax.make_mesh(
        (data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:wanted]
    )


def make_shardings(mesh: Mesh, params: Params, *, stacked: Any | None = None) -> Shardings:
    """Placements for a model.

    A matrix is split over ``fsdp`` along one axis and over ``tensor`` along the other. An axis is only cut at multiples of
    its compression block, so that encoding stays local to a shard; where that is impossible the other axis takes
    the split, and where both refuse the tensor is replicated.

    Args:
      mesh: from ``make_mesh``.
      params: arrays or shapes.
      stacked: leading layer axes of each tensor (never split), as in ``compression.chunking.layouts_of``.
    """
    stacked = jax.tree.map(lambda leaf: max(0, len(leaf.shape) - 2), params) if stacked is None else stacked

    def place(path: tuple[Any, ...], leaf: Any, stack: int) -> NamedSharding:
        names = {getattr(entry, "key", None) for entry in path}
        wanted = ("tensor", "fsdp") if names & _ROW_PARALLEL else ("fsdp", "tensor")
        return NamedSharding(mesh, _partition(mesh, tuple(leaf.shape), stack, wanted))

    return Shardings(
        params=jax.tree_util.tree_map_with_path(place, params, stacked),
        batch=NamedSharding(mesh, PartitionSpec(("data", "fsdp"))),
        replicated=NamedSharding(mesh, PartitionSpec()),
    )


def _partition(mesh: Mesh, shape: tuple[int, ...], stack: int, wanted: tuple[str, str]) -> PartitionSpec:
    if len(shape) - stack != 2:
        return PartitionSpec()

    def fits(axis: int, name: str) -> bool:
        return shape[axis] % (mesh.shape[name] * block_side(shape[axis])) == 0

    names: list[str | None] = [None] * len(shape)
    for axis, name in zip((stack, stack + 1), wanted, strict=True):
        if mesh.shape[name] == 1:
            continue  # cuts nothing, and would keep the other name from this axis
        other = 2 * stack + 1 - axis
        free = [a for a in (axis, other) if names[a] is None and fits(a, name)]
        if free:
            names[free[0]] = name
    return PartitionSpec(*names)
