"""Where parameters and batches live: a (data, fsdp, tensor) mesh, of which one device is the 1x1x1 case."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gauntlet_jax.compression.chunking import block_side, layout_of
from gauntlet_jax.types import Params

AXES = ("data", "fsdp", "tensor")

# Matrices whose rows are the sharded features of the product before them; all others split their columns.
_ROW_PARALLEL = frozenset({"output", "down", "embedding"})


class Shardings(NamedTuple):
    """Placements on one mesh.

    Attributes:
      mesh: the devices.
      params: a pytree of ``NamedSharding`` shaped like the parameters. Blocks lie like the parameters that they are cut from, so this is
        also where residuals, pseudo-gradients and sums of them lie.
      batch: sequences over the data and fsdp axes.
      replicated: the same value everywhere.
    """

    mesh: Mesh
    params: Any
    batch: NamedSharding
    replicated: NamedSharding

    @property
    def specs(self) -> Any:
        """The partition of every tensor: ``params`` without the mesh."""
        return jax.tree.map(lambda sharding: sharding.spec, self.params)

    @property
    def cuts(self) -> Any:
        """The names of the mesh axes that every tensor is cut over, shaped like the parameters."""
        return jax.tree.map(
            lambda sharding: tuple(name for name in sharding.spec if name is not None), self.params
        )

    def per_shard(
        self, function: Callable[..., Any], *, inputs: tuple[Any, ...], outputs: Any
    ) -> Callable[..., Any]:
        """A function that every device applies to its own pieces: nothing is said between devices but what it says itself.

        Args:
          function: of pieces of arrays.
          inputs: a partition, or a tree of them, for each argument.
          outputs: the same for what it returns.
        """
        return jax.shard_map(function, mesh=self.mesh, in_specs=inputs, out_specs=outputs)

    def of_optimizer(self, optimizer: optax.GradientTransformation, params: Params) -> Any:
        """Where an optimizer's state lies: what belongs to a parameter where that lies, the rest everywhere.

        ``jit(optimizer.init)`` alone would lose the placement.
        """
        return optax.tree_utils.tree_map_params(
            optimizer,
            lambda _, placement: placement,
            jax.eval_shape(optimizer.init, params),
            self.params,
            transform_non_params=lambda _: self.replicated,
        )


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
    shape, chosen, kinds = (data, fsdp, tensor), devices[:wanted], (AxisType.Auto,) * 3
    if tensor == 1:
        return jax.make_mesh(shape, AXES, axis_types=kinds, devices=chosen)
    # The chips of a host next to each other: what is cut over tensor should not leave it.
    hosts = sorted(chosen, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(hosts).reshape(shape), AXES, axis_types=kinds)


def make_shardings(mesh: Mesh, params: Params, *, stacked: Any | None = None, parts: int = 1) -> Shardings:
    """Placements for a model.

    A matrix is split over ``fsdp`` along one axis and over ``tensor`` along the other. An axis is only cut at multiples of
    its compression block, so that encoding stays local to a shard; where that is impossible the other axis takes
    the split, and where both refuse the tensor is replicated.

    Args:
      mesh: from ``make_mesh``.
      params: arrays or shapes.
      stacked: leading layer axes of each tensor (never split), as in ``compression.chunking.layouts_of``.
      parts: what artifacts are dealt out into. With several, ``fsdp`` cuts a tensor where it is dealt out and nowhere else, so that a host
        along ``fsdp`` holds whole parts.
    """
    stacked = jax.tree.map(lambda leaf: max(0, len(leaf.shape) - 2), params) if stacked is None else stacked

    def place(path: tuple[Any, ...], leaf: Any, stack: int) -> NamedSharding:
        names = {getattr(entry, "key", None) for entry in path}
        wanted = ("tensor", "fsdp") if names & _ROW_PARALLEL else ("fsdp", "tensor")
        shape = tuple(leaf.shape)
        cut = layout_of(shape, stack=stack).cut_axis(parts)
        allowed = (stack, stack + 1) if parts == 1 else () if cut is None else (cut,)
        return NamedSharding(mesh, _partition(mesh, shape, stack, wanted, fsdp=allowed))

    return Shardings(
        mesh=mesh,
        params=jax.tree_util.tree_map_with_path(place, params, stacked),
        batch=NamedSharding(mesh, PartitionSpec(("data", "fsdp"))),
        replicated=NamedSharding(mesh, PartitionSpec()),
    )


def _partition(
    mesh: Mesh, shape: tuple[int, ...], stack: int, wanted: tuple[str, str], *, fsdp: tuple[int, ...]
) -> PartitionSpec:
    if len(shape) - stack != 2:
        return PartitionSpec()

    def fits(axis: int, name: str) -> bool:
        return shape[axis] % (mesh.shape[name] * block_side(shape[axis])) == 0 and (
            name != "fsdp" or axis in fsdp
        )

    names: list[str | None] = [None] * len(shape)
    pairs = list(zip((stack, stack + 1), wanted, strict=True))
    if len(fsdp) == 1:
        pairs.sort(key=lambda pair: pair[1] != "fsdp")  # it has no choice, so it chooses first
    for axis, name in pairs:
        if mesh.shape[name] == 1:
            continue  # cuts nothing, and would keep the other name from this axis
        other = 2 * stack + 1 - axis
        free = [a for a in (axis, other) if names[a] is None and fits(a, name)]
        if free:
            names[free[0]] = name
    return PartitionSpec(*names)
