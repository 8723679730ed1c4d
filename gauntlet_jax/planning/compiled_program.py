"""What a compiled program takes of one device: memory, operations, and bytes in its memory and over its links."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from gauntlet_jax.planning.collectives import bytes_by_kind
from gauntlet_jax.planning.hlo_text import parse
from gauntlet_jax.planning.loops import count_runs
from gauntlet_jax.planning.matrix_products import matrix_flops
from gauntlet_jax.planning.traffic import bytes_moved

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?)")
_TEMPORARIES = re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available")


class Memory(NamedTuple):
    """Bytes on one device while a program runs.

    Attributes:
      arguments: what it is given.
      outputs: what it gives.
      temporaries: the most that it needs besides at any time.
      aliased: outputs that lie where an argument lay.
      code: the program itself.
    """

    arguments: int
    outputs: int
    temporaries: int
    aliased: int
    code: int

    @property
    def peak(self) -> int:
        """All of it at once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


class Analysis(NamedTuple):
    """A compiled program, on one device, loops turned as often as they turn.

    Attributes:
      memory: of the program alone.
      flops: of its matrix products.
      moved: bytes read from and written to the device's memory.
      sent: bytes sent over links, by kind of collective.
      unknown_loops: loops that count as one turn, since the program does not tell how often they turn.
    """

    memory: Memory
    flops: int
    moved: int
    sent: Mapping[str, int]
    unknown_loops: tuple[str, ...]


def analyze(compiled: Any, *, devices: int) -> Analysis:
    """Reads a compiled program.

    Args:
      compiled: a ``jax.stages.Compiled``.
      devices: that it runs on.
    """
    stats = compiled.memory_analysis()
    program = parse(compiled.as_text())
    runs = count_runs(program)
    return Analysis(
        Memory(
            arguments=stats.argument_size_in_bytes,
            outputs=stats.output_size_in_bytes,
            temporaries=stats.temp_size_in_bytes,
            aliased=stats.alias_size_in_bytes,
            code=stats.generated_code_size_in_bytes,
        ),
        flops=matrix_flops(program, runs.times),
        moved=bytes_moved(program, runs.times),
        sent=bytes_by_kind(program, runs.times, devices=devices),
        unknown_loops=runs.unknown,
    )


def bytes_wanted(message: str) -> int | None:
    """What a program would have needed, from the message of a compiler that ran out of memory; None from any other."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    found = _USED.search(message) or _TEMPORARIES.search(message)
    return None if found is None else int(float(found[1]) * _UNITS[found[2]])
