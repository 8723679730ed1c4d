"""Between the packed blocks on a node's devices and the arrays of an artifact.

An artifact holds the packed blocks of all tensors one after another, in the order of ``jax.tree.leaves``, as three arrays: ``indices``,
``codes`` and ``scales``. Cut into parts it holds such three for each part, ``indices_0`` and so on: every tensor is dealt out along one of its
axes (one that does not divide is of part 0), so that each host of a node writes and reads the parts that its own devices hold, and no
host the whole.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from gauntlet_jax.compression import Format, PackedTensor, packed_shapes
from gauntlet_jax.storage.shards import Piece, dealt, fetch, holders
from gauntlet_jax.storage.zarr_arrays import ArraySpec, Schema


class _Leaf(NamedTuple):
    """One tensor: what is packed of it, where it lies, and the axis of its grid that is dealt out into parts."""

    shapes: PackedTensor
    sharding: jax.sharding.Sharding
    axis: int | None


class Payload:
    """The arrays of one format's artifacts.

    Attributes:
      schema: all arrays by name.
      reads: the names of those that this process needs: all of them, where a node is one process.
      taken: shapes of what ``take`` gives, and where it lies.
    """

    def __init__(self, fmt: Format, shardings: Any, *, parts: int = 1):
        """The payload of a format.

        Args:
          fmt: the agreed format.
          shardings: where the parameters lie, shaped like them.
          parts: agreed, too.

        Raises:
          ValueError: a part lies on several hosts.
        """
        self._parts = parts
        # One device cuts the arrays itself: three copies an artifact are many times faster than three a tensor.
        devices = jax.tree.leaves(shardings)[0].device_set
        self._as_they_lie = parts == len(devices) == 1
        self._structure = jax.tree.structure(shardings)
        packed = jax.tree.leaves(packed_shapes(fmt), is_leaf=lambda node: isinstance(node, PackedTensor))
        self._leaves = [
            _Leaf(shapes, sharding, layout.cut_axis(parts))
            for shapes, sharding, layout in zip(packed, jax.tree.leaves(shardings), fmt.leaves(), strict=True)
        ]
        dtypes = {field: getattr(packed[0], field).dtype for field in PackedTensor._fields}
        self.schema: Schema = {
            self._name(field, part): ArraySpec(
                (sum(math.prod(self._slab_shape(leaf, field)) for leaf in self._of(part)),), np.dtype(dtype)
            )
            for part in range(parts)
            for field, dtype in dtypes.items()
            if self._of(part)
        }
        found = {part: self._holders(part) for part in range(parts) if self._of(part)}
        mine = jax.process_index()
        # What stays whole is of part 0, and lies on every host.
        self._needed = [part for part, processes in found.items() if part == 0 or mine in processes]
        self._written = [part for part, processes in found.items() if min(processes) == mine]
        self.reads = frozenset(
            self._name(field, part) for part in self._needed for field in PackedTensor._fields
        )
        alone = jax.sharding.SingleDeviceSharding(min(devices, key=lambda device: device.id))
        self.taken = (
            {
                name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=alone)
                for name, spec in self.schema.items()
            }
            if self._as_they_lie
            else self._tree(
                jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=leaf.sharding)
                for leaf in self._leaves
                for shape in leaf.shapes
            )
        )

    def arrays(self, packed: Any) -> dict[str, np.ndarray]:
        """The arrays that this process writes; each is written by one process of a node.

        Args:
          packed: a tree of ``PackedTensor`` on the devices.
        """
        leaves = jax.tree.leaves(packed, is_leaf=lambda node: isinstance(node, PackedTensor))
        if all(leaf.scales.is_fully_addressable for leaf in leaves):
            leaves = jax.device_get(leaves)  # all copies at once
        return {
            self._name(field, part): np.concatenate(
                [
                    fetch(getattr(packed_leaf, field), self._slab_of(leaf, field, part)).reshape(-1)
                    for leaf, packed_leaf in zip(self._leaves, leaves, strict=True)
                    if part == 0 or leaf.axis is not None
                ]
            )
            for part in self._written
            for field in PackedTensor._fields
        }

    def take(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """What a compiled function takes of an artifact, and hands to ``cut``.

        Args:
          arrays: those of ``reads``, checked against the schema.
        """
        return {name: arrays[name] for name in self.reads} if self._as_they_lie else self._packed(arrays)

    def cut(self, taken: Any) -> Any:
        """The blocks of what was taken, inside a compiled function: a tree of ``PackedTensor``."""
        return self._packed(taken) if self._as_they_lie else taken

    def _packed(self, arrays: Mapping[str, Any]) -> Any:
        slabs: list[dict[str, dict[int, np.ndarray]]] = [
            {field: {} for field in PackedTensor._fields} for _ in self._leaves
        ]
        for part in self._needed:
            for field in PackedTensor._fields:
                flat, at = arrays[self._name(field, part)], 0
                for number, leaf in enumerate(self._leaves):
                    if part and leaf.axis is None:
                        continue
                    shape = self._slab_shape(leaf, field)
                    end = at + math.prod(shape)
                    slabs[number][field][part] = flat[at:end].reshape(shape)
                    at = end
        if jax.process_count() == 1:
            # Left on the host: a compiled function that says where it takes them puts them there many times faster.
            placed = [
                self._region(leaf, held[field], None)
                for leaf, held in zip(self._leaves, slabs, strict=True)
                for field in PackedTensor._fields
            ]
        else:
            placed = [
                jax.make_array_from_callback(
                    getattr(leaf.shapes, field).shape,
                    leaf.sharding,
                    functools.partial(self._region, leaf, held[field]),
                )
                for leaf, held in zip(self._leaves, slabs, strict=True)
                for field in PackedTensor._fields
            ]
        return self._tree(placed)

    def _tree(self, fields: Iterable[Any]) -> Any:
        """A tree of ``PackedTensor`` of the three fields of each tensor."""
        each = iter(fields)
        tensors = [PackedTensor(*three) for three in zip(each, each, each, strict=True)]
        return jax.tree.unflatten(self._structure, tensors)

    def _of(self, part: int) -> list[_Leaf]:
        return [leaf for leaf in self._leaves if part == 0 or leaf.axis is not None]

    def _name(self, field: str, part: int) -> str:
        return field if self._parts == 1 else f"{field}_{part}"

    def _slab_shape(self, leaf: _Leaf, field: str) -> tuple[int, ...]:
        return tuple(cut.stop - cut.start for cut in self._slab_of(leaf, field, 0))

    def _slab_of(self, leaf: _Leaf, field: str, part: int) -> Piece:
        return dealt(getattr(leaf.shapes, field).shape, leaf.axis, part, self._parts)

    def _region(
        self, leaf: _Leaf, slabs: Mapping[int, np.ndarray], index: tuple[slice, ...] | None
    ) -> np.ndarray:
        """A piece of one packed array, put together from its slabs; None takes all of it."""
        if leaf.axis is None:
            return slabs[0] if index is None else slabs[0][index]
        if index is None:
            return np.concatenate([slabs[part] for part in range(self._parts)], leaf.axis)
        each = slabs[min(slabs)].shape[leaf.axis]
        start, stop, _ = index[leaf.axis].indices(each * self._parts)
        first = start // each
        joined = np.concatenate([slabs[part] for part in range(first, -(-stop // each))], leaf.axis)
        inner = list(index)
        inner[leaf.axis] = slice(start - first * each, stop - first * each)
        return joined[tuple(inner)]

    def _holders(self, part: int) -> set[int]:
        """The processes whose devices hold every entry of a part."""
        # Of the mesh, which may be one that is only planned, and not this machine's.
        found = {device.process_index for device in self._leaves[0].sharding.device_set}
        for leaf in self._of(part) if len(found) > 1 else ():
            found &= holders(leaf.sharding, leaf.shapes.scales.shape, self._slab_of(leaf, "scales", part))
        if not found:
            raise ValueError(
                f"mesh: part {part} of {self._parts} lies on several hosts; mesh.tensor must be within a host, and"
                " compression.parts a multiple of the hosts along mesh.fsdp"
            )
        return found
