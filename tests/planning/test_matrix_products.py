"""Operations and memory traffic of compiled programs, against counts by hand and the compiler's own."""

import jax
import jax.numpy as jnp
import pytest

from gauntlet_jax.planning.hlo_text import parse
from gauntlet_jax.planning.loops import count_runs
from gauntlet_jax.planning.matrix_products import matrix_flops
from gauntlet_jax.planning.traffic import bytes_moved


def product(left, right, out, attributes):
    text = (
        f"ENTRY %main (a: f32[]) -> f32[] {{\n  %a = bf16[{left}] parameter(0)\n  %b = bf16[{right}] parameter(1)\n"
        f"  ROOT %r = bf16[{out}] {attributes.replace('(', '(%a, %b', 1)}\n}}\n"
    )
    return matrix_flops(parse(text), {"main": 1})


@pytest.mark.parametrize(
    ("left", "right", "out", "attributes", "flops"),
    [
        ("7,5", "5,3", "7,3", "dot(), lhs_contracting_dims={1}, rhs_contracting_dims={0}", 2 * 7 * 5 * 3),
        (
            "4,7,5",
            "4,5,3",
            "4,7,3",
            "dot(), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={1}",
            2 * 4 * 7 * 5 * 3,
        ),
        ("7,5", "5,3", "7,3", "convolution(), dim_labels=bf_io->bf", 2 * 7 * 5 * 3),
        ("7,5", "3,5", "7,3", "convolution(), dim_labels=bf_oi->bf", 2 * 7 * 5 * 3),
        ("5,7", "5,3", "7,3", "convolution(), dim_labels=fb_io->bf", 2 * 7 * 5 * 3),
        # A TPU's product with batch axes: 4 and 2 of them, queries 6 by keys 6 over 5 features.
        (
            "4,6,2,5",
            "4,6,2,5",
            "4,2,6,6",
            "convolution(), window={size=4x2 stride=3x1 lhs_dilate=4x2}, dim_labels=0b1f_0o1i->01bf",
            2 * 4 * 2 * 6 * 6 * 5,
        ),
        # One that turns an axis into several: the window runs backwards, and meets an entry once for each output.
        (
            "3,6,1,5",
            "1,5,9,8",
            "3,6,8,9",
            "convolution(), window={size=1x8 pad=0_0x7_7 rhs_reversal=0x1}, dim_labels=0bf1_1io0->0b1f",
            None,
        ),
    ],
)
def test_products_by_hand(left, right, out, attributes, flops):
    if flops is None:
        # Features are the axis of 1, the axis of 5 is spatial against a window of 8 over 9 outputs: see the shapes below.
        left, right, out = "3,6,5,1", "8,9,5,1", "3,6,8,9"
        attributes = (
            "convolution(), window={size=1x8 pad=0_0x7_7 rhs_reversal=0x1}, dim_labels=0bf1_1oi0->0b1f"
        )
        flops = 2 * (3 * 6) * 5 * (8 * 9)
    assert product(left, right, out, attributes) == flops


@pytest.mark.parametrize("size", [1, 3])
def test_padding_does_not_count(size):
    # One axis of 8 entries, a window of 3, padded by 1 on both sides: the two outermost outputs meet 2 entries each.
    attributes = "convolution(), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f"
    assert product(f"{size},8,5", "3,5,7", f"{size},8,7", attributes) == 2 * size * 5 * 7 * (3 * 8 - 2)


def test_a_scan_counts_as_often_as_it_turns_where_the_compiler_counts_it_once():
    def run(x, stack):
        return jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, stack)[0]

    compiled = jax.jit(run).lower(jnp.zeros((32, 64)), jnp.zeros((6, 64, 64))).compile()
    program = parse(compiled.as_text())
    runs = count_runs(program)
    once = 2 * 32 * 64 * 64
    assert matrix_flops(program, runs.times) == 6 * once
    assert matrix_flops(program, dict.fromkeys(runs.times, 1)) == once
    told = compiled.cost_analysis()["flops"]
    assert once <= told < 1.1 * once


def test_traffic_of_a_scan_reads_each_slice_once():
    def run(x, stack):
        return jax.lax.scan(lambda c, w: (c @ w, None), x, stack)[0]

    layers, width = 6, 256
    compiled = jax.jit(run).lower(jnp.zeros((8, width)), jnp.zeros((layers, width, width))).compile()
    program = parse(compiled.as_text())
    moved = bytes_moved(program, count_runs(program).times)
    matrices = layers * width * width * 4
    # Sliced out (read, written) and multiplied (read): three times each, at most; never the whole stack a layer.
    assert matrices <= moved < 3.3 * matrices


def test_what_stays_on_the_chip_is_free_and_updates_count_what_they_write():
    text = """ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[1000]{0} parameter(0)
  %b = f32[10]{0:T(128)S(1)} parameter(1)
  %i = s32[] parameter(2)
  %sum = f32[10]{0:T(128)S(1)} add(%b, %b)
  %c = f32[10]{0} add(%b, %sum)
  ROOT %u = f32[1000]{0} dynamic-update-slice(%a, %c, %i)
}
"""
    assert bytes_moved(parse(text), {"main": 1}) == 40 + 2 * 40
