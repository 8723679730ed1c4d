"""What chips can do, from their makers' data sheets."""

import difflib
from typing import Literal, NamedTuple

GIB = 2**30
_GPU_SHARE = (
    0.9  # of a card, which JAX takes with XLA_PYTHON_CLIENT_MEM_FRACTION=0.9; its own default is 0.75
)


class Chip(NamedTuple):
    """One device of a mesh.

    Attributes:
      name: as in a topology.
      kind: who compiles for it.
      memory: bytes that a program can have; a TPU's as its compiler counts them.
      flops: dense bfloat16 operations a second, the peak.
      bandwidth: of its memory, bytes a second.
      links: bytes a second that it can send to other chips over all its links together.
      axes: of a slice's torus; 0 where chips are only counted.
    """

    name: str
    kind: Literal["tpu", "gpu", "cpu"]
    memory: int
    flops: float
    bandwidth: float
    links: float
    axes: int


def _tpu(name: str, gib: float, flops: float, bandwidth: float, links: float, axes: int) -> Chip:
    return Chip(name, "tpu", int(gib * GIB), flops, bandwidth, links, axes)


def _gpu(name: str, gib: float, flops: float, bandwidth: float, links: float) -> Chip:
    return Chip(name, "gpu", int(_GPU_SHARE * gib * GIB), flops, bandwidth, links, 0)


CHIPS = {
    chip.name: chip
    for chip in (
        _tpu("v4", 30.75, 275e12, 1.228e12, 300e9, 3),
        _tpu("v5e", 15.75, 197e12, 0.819e12, 200e9, 2),
        _tpu("v5p", 95.74, 459e12, 2.765e12, 600e9, 3),
        _tpu("v6e", 31.25, 918e12, 1.638e12, 448e9, 2),
        _gpu("a100-40gb", 40, 312e12, 1.555e12, 300e9),
        _gpu("a100-80gb", 80, 312e12, 2.039e12, 300e9),
        _gpu("h100", 80, 989e12, 3.35e12, 450e9),
        _gpu("h200", 141e9 / GIB, 989e12, 4.8e12, 450e9),
        _gpu("b200", 180e9 / GIB, 2250e12, 8e12, 900e9),
        _gpu("l40s", 48, 362e12, 0.864e12, 32e9),
        _gpu("rtx4090", 24, 165e12, 1.008e12, 32e9),
        # A virtual device of a machine's processor: a fraction of a common one.
        Chip("cpu", "cpu", 4 * GIB, 0.1e12, 0.01e12, 10e9, 0),
    )
}
"""By name."""


def chip_named(name: str) -> Chip:
    """The chip of a name.

    Raises:
      ValueError: there is none.
    """
    if name not in CHIPS:
        near = difflib.get_close_matches(name.lower(), CHIPS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"topology: there is no chip {name!r}; the nearest is {near!r} ({', '.join(CHIPS)} are known)"
        )
    return CHIPS[name]
