"""A slice of chips by its name, such as ``v5p:4x4x4`` or ``h100:8``, and the devices that programs for it are compiled for."""

import math
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from gauntlet_jax.planning.chips import Chip, chip_named

_TOPOLOGY = re.compile(r"([\w.\-]+):(\d+(?:x\d+)*)")
_SIDES = (1, 2)  # besides multiples of four, the sides of the smaller slices
_EXAMPLES = {0: "8", 2: "4x4", 3: "4x4x4"}


class Topology(NamedTuple):
    """Chips of one node.

    Attributes:
      name: as it was given.
      chip: of which kind.
      sides: of a TPU slice's torus; of others the number of chips.
    """

    name: str
    chip: Chip
    sides: tuple[int, ...]

    @property
    def chips(self) -> int:
        """How many."""
        return math.prod(self.sides)

    @property
    def stand_in(self) -> bool:
        """Whether another compiler than the chip's own compiles for it."""
        return self.chip.kind == "gpu"


def parse_topology(name: str) -> Topology:
    """Reads a topology's name.

    Args:
      name: ``CHIP:SIDES``: of a TPU its slice (``v5e:4x4``, ``v5p:4x4x4``), of anything else how many (``h100:8``, ``cpu:8``).

    Raises:
      ValueError: no such chip, or none of its slices.
    """
    found = _TOPOLOGY.fullmatch(name)
    if found is None:
        raise ValueError(f"topology: {name!r} is not CHIP:SIDES such as v5e:4x4, v5p:4x4x4, h100:8 or cpu:8")
    chip = chip_named(found[1])
    sides = tuple(int(side) for side in found[2].split("x"))
    example = f"{chip.name}:{_EXAMPLES[chip.axes]}"
    if len(sides) != max(1, chip.axes):
        has = f"{chip.axes} sides" if chip.axes else "a number of chips"
        raise ValueError(f"topology: {chip.name} has {has}, such as {example}, not {found[2]}")
    if min(sides) < 1:
        raise ValueError(f"topology: {name} has no chips")
    if chip.axes and any(side % 4 and side not in _SIDES for side in sides):
        raise ValueError(f"topology: the sides of {chip.name} are 1, 2 or multiples of 4, such as {example}")
    return Topology(name, chip, sides)


def devices_of(topology: Topology) -> list[Any]:
    """Devices to build a mesh of; those of a TPU can be compiled for and nothing else, wherever this runs.

    Raises:
      ValueError: the compiler refuses the slice, or this process has too few CPU devices to stand in.
    """
    if topology.chip.kind != "tpu":
        devices = jax.devices("cpu")
        if len(devices) < topology.chips:
            raise ValueError(
                f"topology: {topology.name} needs {topology.chips} CPU devices, {len(devices)} are there"
            )
        return devices[: topology.chips]
    # Hosts of four chips, but for slices that are smaller. A v4's two cores are one device.
    options: dict[str, Any] = {"chips_per_host_bounds": (*(min(2, side) for side in topology.sides[:2]), 1)}
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options)
    except RuntimeError as error:
        raise ValueError(
            f"topology: the TPU compiler refuses {topology.name}: {str(error).splitlines()[0]}"
        ) from error
    return list(found.devices)
