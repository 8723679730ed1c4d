"""Reading compiled programs: lines, loops, and how often what is in them runs."""

import jax
import jax.numpy as jnp
import pytest

from gauntlet_jax.planning.hlo_text import Shape, parse
from gauntlet_jax.planning.loops import count_runs

LOOP = """HloModule jit_f, is_scheduled=true

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %p = (s32[]{:T(128)}, f32[4]{0:T(128)S(1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %two = s32[] constant(STEP)
  %next = s32[] add(%i, %two)
  ROOT %out = (s32[], f32[4]) tuple(%next, %x)
}

%compare_fusion (a: s32[], b: s32[]) -> pred[] {
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %lt = pred[] compare(%a, %b), direction=DIRECTION
}

%condition (q: (s32[], f32[4])) -> pred[] {
  %q = (s32[], f32[4]) parameter(0)
  %limit = s32[] constant(17)
  %j = s32[] get-tuple-element(%q), index=0
  ROOT %go = pred[] fusion(%j, %limit), kind=kLoop, calls=%compare_fusion
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x.1 = f32[4]{0} parameter(0)
  %start = s32[] constant(3)
  %init = (s32[], /*index=1*/f32[4]) tuple(%start, %x.1)
  %while.1 = (s32[], f32[4]) while(%init), condition=%condition, body=%body
  ROOT %y = f32[4]{0} get-tuple-element(%while.1), index=1
}
"""


def looping(step="2", direction="LT"):
    return parse(LOOP.replace("STEP", step).replace("DIRECTION", direction))


def test_the_parts_of_a_line():
    program = looping()
    assert program.entry == "main" and set(program.computations) == {
        "body",
        "compare_fusion",
        "condition",
        "main",
    }
    body = program.computations["body"]
    parameter = body.instructions["p"]
    assert parameter.shapes == (Shape("s32", (), False), Shape("f32", (4,), True))
    assert parameter.bytes == 4 + 16 and parameter.opcode == "parameter" and parameter.literal == "0"
    assert body.root == "out" and body.instructions["out"].operands == ("next", "x")
    loop = program.computations["main"].instructions["while.1"]
    assert dict(loop.called()) == {"condition": "condition", "body": "body"}
    assert program.computations["body"].instructions["i"].attribute("index") == "0"


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("bf16[2,3]{1,0:T(8,128)(2,1)}", 12),
        ("pred[5]", 5),
        ("s4[3]", 2),
        ("f8e4m3fn[7]", 7),
        ("(f32[2], /*index=1*/(s8[3], u32[]{:S(2)}))", 15),
        ("f32[<=4]", 16),
    ],
)
def test_bytes_of_shapes(line, size):
    text = f'ENTRY %e (a: f32[]) -> f32[] {{\n  ROOT %a = {line} thing(), metadata={{op_name="jit(f)/x"}}\n}}'
    assert parse(text).computations["e"].instructions["a"].bytes == size


def test_text_of_something_else_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("module @jit_f {}")


@pytest.mark.parametrize(
    ("step", "direction", "turns"), [("2", "LT", 7), ("1", "LT", 14), ("1", "LE", 15), ("7", "LE", 3)]
)
def test_turns_are_read_from_the_condition(step, direction, turns):
    runs = count_runs(looping(step, direction))  # from 3 to 17
    assert runs.times["body"] == runs.times["condition"] * turns == turns and runs.unknown == ()


def test_a_loop_that_does_not_tell_counts_once_and_is_named():
    runs = count_runs(looping(direction="NE"))
    assert runs.times["body"] == 1 and runs.unknown == ("while.1",)


def test_the_compiler_may_say_it_itself():
    text = LOOP.replace("DIRECTION", "NE").replace("STEP", "1")
    text = text.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"9"}}')
    assert count_runs(parse(text)).times["body"] == 9


def test_nested_scans_multiply():
    def inner(x, _):
        return jnp.sin(x) @ x, None

    def outer(x, _):
        return jax.lax.scan(inner, x, None, length=3)[0], None

    def run(x):
        return jax.lax.scan(outer, x, None, length=5)[0]

    text = jax.jit(run).lower(jnp.zeros((96, 96))).compile().as_text()
    runs = count_runs(parse(text))
    assert runs.unknown == () and 15 in runs.times.values()
