"""How often each computation of a compiled program runs: a loop's body as often as the loop turns."""

from collections import defaultdict
from typing import NamedTuple

from gauntlet_jax.planning.hlo_text import Computation, Instruction, Program


class Runs(NamedTuple):
    """How often computations run in one run of the program.

    Attributes:
      times: by computation; 0 for what only a reduction, a sort or the like calls on single elements.
      unknown: loops whose number of turns the program does not tell; they count as one turn.
    """

    times: dict[str, int]
    unknown: tuple[str, ...]


def count_runs(program: Program) -> Runs:
    """Follows the calls from the entry down.

    Both branches of a conditional count, which is an upper bound. A scan's number of turns is in its condition.
    """
    times: defaultdict[str, int] = defaultdict(int)
    unknown: list[str] = []

    def visit(name: str, count: int) -> None:
        times[name] += count
        for instruction in program.computations[name].instructions.values():
            if instruction.opcode in _ELEMENTWISE:
                continue
            turns = 1
            if instruction.opcode == "while":
                found = turns_of(program, program.computations[name], instruction)
                if found is None:
                    unknown.append(instruction.name)
                else:
                    turns = found
            for how, called in instruction.called():
                visit(called, count if how == "condition" else count * turns)

    visit(program.entry, 1)
    return Runs(dict(times), tuple(dict.fromkeys(unknown)))


# Their ``to_apply`` works on two numbers: nothing of interest happens there.
_ELEMENTWISE = frozenset(
    {
        "reduce",
        "reduce-window",
        "sort",
        "scatter",
        "map",
        "select-and-scatter",
        "all-reduce",
        "all-reduce-start",
        "reduce-scatter",
        "topk",
    }
)


def turns_of(program: Program, computation: Computation, loop: Instruction) -> int | None:
    """How often a ``while`` turns: ``ceil((bound - start) / step)``, or None where that is not told.

    The CPU compiler says so itself; otherwise it is read from a condition ``counter < constant``.
    """
    known = _known_trip_count(loop)
    if known is not None:
        return known
    called = dict(loop.called())
    condition, body = program.computations[called["condition"]], program.computations[called["body"]]
    bound = _bound(program, condition)
    if bound is None:
        return None
    place, limit, inclusive = bound
    start = _start(computation, loop, place)
    step = _step(program, body, place)
    if start is None or step is None or step < 1:
        return None
    return max(0, -(-(limit + inclusive - start) // step))


def _known_trip_count(loop: Instruction) -> int | None:
    marks = loop.attributes.split('"known_trip_count":{"n":"')
    return int(marks[1].split('"')[0]) if len(marks) > 1 else None


def _constant(computation: Computation, name: str) -> int | None:
    """The whole number that a name stands for, through copies; None if it is no constant."""
    while True:
        instruction = computation.instructions[name]
        if instruction.opcode == "constant":
            return int(instruction.literal) if instruction.literal.lstrip("-").isdigit() else None
        if instruction.opcode not in _PASSING or len(instruction.operands) != 1:
            return None
        name = instruction.operands[0]


_PASSING = frozenset({"copy", "bitcast", "convert", "copy-start", "copy-done", "reshape"})


def _place(computation: Computation, name: str) -> int | None:
    """Which part of the computation's one parameter a name stands for, through copies."""
    while True:
        instruction = computation.instructions[name]
        if instruction.opcode == "get-tuple-element":
            origin = computation.instructions[instruction.operands[0]]
            return _index(instruction) if origin.opcode == "parameter" else None
        if instruction.opcode not in _PASSING or not instruction.operands:
            return None
        name = instruction.operands[0]


def _index(instruction: Instruction) -> int:
    text = instruction.attribute("index")
    assert text is not None
    return int(text)


def _inlined(program: Program, computation: Computation, name: str) -> tuple[str, str, list[str]] | None:
    """Opcode, attributes and operands (in the outer computation) of an instruction or of a fusion of one such."""
    instruction = computation.instructions[name]
    if instruction.opcode != "fusion":
        return instruction.opcode, instruction.attributes, list(instruction.operands)
    inner = program.computations[dict(instruction.called())["calls"]]
    root = inner.instructions[inner.root]
    outer = []
    for operand in root.operands:
        parameter = inner.instructions[operand]
        if parameter.opcode == "constant" and parameter.literal.lstrip("-").isdigit():
            outer.append(f"={parameter.literal}")  # a constant of the fusion itself
        elif parameter.opcode == "parameter":
            outer.append(instruction.operands[int(parameter.literal)])
        else:
            return None
    return root.opcode, root.attributes, outer


def _value(computation: Computation, name: str) -> int | None:
    return int(name[1:]) if name.startswith("=") else _constant(computation, name)


def _bound(program: Program, condition: Computation) -> tuple[int, int, int] | None:
    """Of ``counter < limit``: the counter's place, the limit, and 1 if it is ``<=``."""
    found = _inlined(program, condition, condition.root)
    if found is None or found[0] != "compare":
        return None
    _, attributes, (left, right) = found
    direction = {word for word in ("LT", "LE", "GT", "GE") if f"direction={word}" in attributes}
    if direction & {"GT", "GE"}:
        left, right = right, left
    elif not direction:
        return None
    if left.startswith("="):
        return None
    place, limit = _place(condition, left), _value(condition, right)
    if place is None or limit is None:
        return None
    return place, limit, int(bool(direction & {"LE", "GE"}))


def _start(computation: Computation, loop: Instruction, place: int) -> int | None:
    given = computation.instructions[loop.operands[0]]
    if given.opcode != "tuple":
        return None
    return _constant(computation, given.operands[place])


def _step(program: Program, body: Computation, place: int) -> int | None:
    root = body.instructions[body.root]
    if root.opcode != "tuple":
        return None
    name = root.operands[place]
    while body.instructions[name].opcode in _PASSING:
        name = body.instructions[name].operands[0]
    found = _inlined(program, body, name)
    if found is None or found[0] != "add":
        return None
    steps = [_value(body, operand) for operand in found[2]]
    return next((step for step in steps if step is not None), None)
