"""Bytes that a compiled program moves between devices, by kind of collective."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from gauntlet_jax.planning.hlo_text import Computation, Instruction, Program

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
"""The collectives of HLO; each also has a form that starts it and goes on, ``-start``."""

_GROUPS_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\([^)]*\)+)? \{([^}]*)\}")
_GROUPS_LIST = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_GROUPS_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_AXIS = re.compile(r"'([^']+)'=(\d+)")
_USED = re.compile(r"'([^']+)'(?::\(\d+\)(\d+))?")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_IN_PARTS = '"async_collective_fusion_config"'


class Collective(NamedTuple):
    """One collective of a program.

    Attributes:
      kind: one of ``KINDS``.
      sent: bytes that each device sends over its links when it runs once.
      group: devices that take part with one another.
    """

    kind: str
    sent: int
    group: int


def bytes_by_kind(program: Program, times: Mapping[str, int], *, devices: int) -> dict[str, int]:
    """Bytes that one device sends in one run of the program; kinds that it does not have are left out.

    With n devices in a group and an operand of b bytes a device sends, by the ring algorithms: all-gather ``(n-1) b``,
    reduce-scatter and all-to-all ``(n-1)/n b``, all-reduce ``2 (n-1)/n b``, collective-permute and broadcast ``b``.

    Args:
      program: the compiled program.
      times: how often each computation runs.
      devices: of the program.
    """
    # A TPU's compiler may cut one collective into parts between steps of a product: each part names the whole, and its channel.
    # Parts in a loop run more often than its start and its end, which tell how often there is one.
    cut: dict[tuple[str, str], int] = {}
    total: defaultdict[str, int] = defaultdict(int)
    for computation in program.computations.values():
        count = times.get(computation.name, 0)
        if not count:
            continue
        for instruction in computation.instructions.values():
            found = collective_of(computation, instruction, devices=devices)
            if found is None:
                continue
            channel, sent = _CHANNEL.search(instruction.attributes), count * found.sent
            if channel is not None and _IN_PARTS in instruction.attributes:
                part = (found.kind, channel[1])
                cut[part] = min(sent, cut.get(part, sent))
            else:
                total[found.kind] += sent
    for (kind, _), sent in cut.items():
        total[kind] += sent
    return {kind: total[kind] for kind in KINDS if total.get(kind)}


def collective_of(computation: Computation, instruction: Instruction, *, devices: int) -> Collective | None:
    """What an instruction moves; None if it is no collective."""
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    given = sum(computation.instructions[name].bytes for name in instruction.operands)
    group = _group(instruction, devices)
    if kind == "all-reduce" and _is_scattered(computation, instruction):
        kind = "reduce-scatter"
    if kind in ("collective-permute", "collective-broadcast"):
        return Collective(kind, given, group)
    share = {
        "all-gather": group - 1,
        "all-reduce": 2 * (group - 1) / group,
        "reduce-scatter": (group - 1) / group,
        "all-to-all": (group - 1) / group,
    }[kind]
    return Collective(kind, round(share * given), group)


def _is_scattered(computation: Computation, instruction: Instruction) -> bool:
    """Whether each device keeps its part alone: a TPU's reduce-scatter is a fusion of an all-reduce and a slice."""
    if not computation.name.startswith("all-reduce-scatter"):
        return False
    users = [each for each in computation.instructions.values() if instruction.name in each.operands]
    return bool(users) and all(each.opcode == "dynamic-slice" for each in users)


def _group(instruction: Instruction, devices: int) -> int:
    """Devices of a replica group; all of them where none is named."""
    text = instruction.attributes
    found = _GROUPS_MESH.search(text)
    if found is not None:
        sizes = {name: int(size) for name, size in _AXIS.findall(found[1])}
        return math.prod(int(part) if part else sizes[name] for name, part in _USED.findall(found[2]))
    found = _GROUPS_LIST.search(text)
    if found is not None:
        return len(found[1].split(",")) if found[1] else devices
    found = _GROUPS_IOTA.search(text)
    return int(found[2]) if found is not None else devices
