"""Bytes that a compiled program reads from and writes to a device's large memory, loops turned as often as they turn.

Each instruction reads its operands and writes its result once; a fusion counts as one instruction. Of an array that is only
sliced, or updated in place, the slice counts. What the compiler keeps on the chip is free.
"""

from collections.abc import Mapping

from gauntlet_jax.planning.hlo_text import Computation, Instruction, Program

_FREE = frozenset(
    {
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "while",
        "conditional",
        "call",
        "after-all",
        "partition-id",
        "replica-id",
        "iota",
        "async-start",
        "async-update",
        "async-done",
        "optimization-barrier",
        "opt-barrier",
        "domain",
    }
)
_SLICING = frozenset({"dynamic-slice", "slice", "gather"})
_RENAMING = frozenset({"bitcast", "reshape", "convert", "copy"})


def bytes_moved(program: Program, times: Mapping[str, int]) -> int:
    """Of one device in one run of the program."""
    fused = {
        called
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        if instruction.opcode == "fusion"
        for _, called in instruction.called()
    }
    return sum(
        times.get(computation.name, 0) * _bytes(program, computation, instruction)
        for computation in program.computations.values()
        if computation.name not in fused
        for instruction in computation.instructions.values()
    )


def _bytes(program: Program, computation: Computation, instruction: Instruction) -> int:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    if opcode == "custom-call" and not instruction.operands:
        return 0  # a buffer that somebody else fills
    if opcode == "fusion":
        inner = program.computations[dict(instruction.called())["calls"]]
        return _fusion(computation, instruction, inner)
    if opcode in _SLICING:
        return 2 * _stored(instruction)
    if opcode == "dynamic-update-slice":
        return 2 * _stored(computation.instructions[instruction.operands[1]])
    written = _stored(instruction)
    if opcode.endswith("-start"):  # its result names the operand too
        written = max(
            0, written - sum(_stored(computation.instructions[name]) for name in instruction.operands)
        )
    return written + sum(_stored(computation.instructions[name]) for name in instruction.operands)


def _fusion(computation: Computation, instruction: Instruction, inner: Computation) -> int:
    users: dict[str, list[Instruction]] = {}
    for each in inner.instructions.values():
        for name in each.operands:
            users.setdefault(name, []).append(each)
    total = 0
    for each in inner.instructions.values():
        if each.opcode == "parameter":
            given = computation.instructions[instruction.operands[int(each.literal)]]
            total += min(_stored(given), _read(each, users)) if _stored(given) else 0
    root = inner.instructions[inner.root]
    parts = [inner.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
    for part, shape in zip(parts, instruction.shapes, strict=False):
        if not shape.on_chip:
            total += min(shape.bytes, _written(inner, part))
    return total


def _read(parameter: Instruction, users: Mapping[str, list[Instruction]]) -> int:
    """What a fusion reads of a parameter: its slices if it is only sliced, nothing where it is only updated."""
    total = 0
    for user in users.get(parameter.name, []):
        if user.opcode in _SLICING and user.operands[0] == parameter.name:
            total += user.bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name:
            continue
        elif user.opcode in _RENAMING:
            total += _read(user, users)
        else:
            return parameter.bytes
    return total


def _written(inner: Computation, part: Instruction) -> int:
    while part.opcode in _RENAMING and part.operands:
        part = inner.instructions[part.operands[0]]
    if part.opcode == "dynamic-update-slice":
        return inner.instructions[part.operands[1]].bytes
    return part.bytes


def _stored(instruction: Instruction) -> int:
    return sum(shape.bytes for shape in instruction.shapes if not shape.on_chip)
