"""Reads the text of a compiled program (HLO): its computations and their instructions, nothing of what they mean."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BITS = {
    "pred": 8,
    "s2": 2,
    "u2": 2,
    "s4": 4,
    "u4": 4,
    "s8": 8,
    "u8": 8,
    "s16": 16,
    "u16": 16,
    "f16": 16,
    "bf16": 16,
    "s32": 32,
    "u32": 32,
    "f32": 32,
    "s64": 64,
    "u64": 64,
    "f64": 64,
    "c64": 64,
    "c128": 128,
    "token": 0,
    "opaque": 0,
}
_SHAPE = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_HEAD = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = ")
_ON_CHIP = re.compile(r"S\([1-9]\d*\)")  # a memory space of its own, such as a TPU's vector memory


class Shape(NamedTuple):
    """One array.

    Attributes:
      dtype: as HLO spells it, such as "bf16".
      dims: its axes.
      on_chip: it lies in memory on the chip itself, not in its large memory.
    """

    dtype: str
    dims: tuple[int, ...]
    on_chip: bool

    @property
    def bytes(self) -> int:
        """Without the padding of its layout."""
        bits = _BITS.get(self.dtype, 8)  # what is not listed is one of the 8-bit floats
        return math.ceil(math.prod(self.dims) * bits / 8)


class Instruction(NamedTuple):
    """One line of a program.

    Attributes:
      name: unique in the program.
      opcode: such as "all-gather-start".
      shapes: of the result; a tuple's parts one after another.
      operands: names of instructions of the same computation.
      literal: what stands in the parentheses, such as a constant's value.
      attributes: what follows them.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    @property
    def bytes(self) -> int:
        """Of the result."""
        return sum(shape.bytes for shape in self.shapes)

    def attribute(self, name: str) -> str | None:
        """A word or a braced list such as ``{1,0}``, without the braces; None if it has none of that name."""
        found = re.search(rf"(?:^|[ ,]){name}=(?:\{{([^}}]*)\}}|%?([^\s,]+))", self.attributes)
        return None if found is None else found[1] if found[1] is not None else found[2]

    def numbers(self, name: str) -> tuple[int, ...]:
        """A braced list of whole numbers; () if it has none of that name."""
        text = self.attribute(name)
        return tuple(int(word) for word in text.split(",")) if text else ()

    def called(self) -> Iterator[tuple[str, str]]:
        """The computations that it runs, each with the attribute that names it, such as "body"."""
        for found in re.finditer(
            r"(calls|to_apply|body|condition|branch_computations|true_computation|false_computation"
            r"|called_computations)=(\{[^}]*\}|%[\w.\-]+)",
            self.attributes,
        ):
            for name in _NAME.findall(found[2]):
                yield found[1], name


class Computation(NamedTuple):
    """A function of a program: its instructions by name, in their order, and the name of the one that is its result."""

    name: str
    instructions: dict[str, Instruction]
    root: str


class Program(NamedTuple):
    """Computations by name, and the name of the first to run."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Program:
    """Reads what ``jax.stages.Compiled.as_text`` gives.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, name, root = None, None, ""
    instructions: dict[str, Instruction] = {}
    for line in text.splitlines():
        if name is None:
            head = _HEAD.match(line)
            if head is not None:
                name, instructions, root = head[2], {}, ""
                entry = name if head[1] else entry
            continue
        if line.startswith("}"):
            computations[name] = Computation(name, instructions, root)
            name = None
            continue
        start = _INSTRUCTION.match(line)
        if start is not None:
            instruction = _instruction(start[2], line[start.end() :])
            instructions[instruction.name] = instruction
            root = instruction.name if start[1] else root
    if entry is None:
        raise ValueError("this is not the text of a compiled program: it has no ENTRY")
    return Program(computations, entry)


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    shapes = tuple(
        Shape(dtype, _dims(dims), bool(layout and _ON_CHIP.search(layout)))
        for dtype, dims, layout in _SHAPE.findall(text[:end])
    )
    opens = text.index("(", end)
    closes = _closing(text, opens)
    literal = text[opens + 1 : closes]
    opcode = text[end:opens].strip()
    # A constant's or parameter's parentheses hold no names; nor does anything else before the first of them.
    operands = tuple(_NAME.findall(literal))
    return Instruction(name, opcode, shapes, operands, literal, text[closes + 1 :])


def _dims(text: str) -> tuple[int, ...]:
    # A bounded dynamic axis is written <=8.
    return tuple(int(word.strip().removeprefix("<=")) for word in text.split(",")) if text else ()


def _closing(text: str, opens: int) -> int:
    depth = 0
    for place in range(opens, len(text)):
        if text[place] == "(":
            depth += 1
        elif text[place] == ")":
            depth -= 1
            if not depth:
                return place
    raise ValueError(f"a line of a compiled program does not end: {text[:80]}")
