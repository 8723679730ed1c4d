"""Bytes between devices: each collective in each of its spellings, and small programs counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gauntlet_jax.planning.collectives import bytes_by_kind
from gauntlet_jax.planning.hlo_text import parse
from gauntlet_jax.planning.loops import count_runs


def sent(text, devices=8):
    program = parse(text)
    return bytes_by_kind(program, count_runs(program).times, devices=devices)


def entry(*lines, computation="main"):
    body = "\n".join(f"  {line}" for line in lines)
    return f"ENTRY %{computation} (x: f32[8]) -> f32[8] {{\n  %x = f32[8]{{0}} parameter(0)\n{body}\n}}\n"


FOUR = "replica_groups={{0,1,2,3},{4,5,6,7}}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"%r = f32[32]{{0}} all-gather(%x), channel_id=1, {FOUR}, dimensions={{0}}", {"all-gather": 96}),
        (f"%r = f32[8]{{0}} all-reduce(%x), channel_id=1, {FOUR}, to_apply=%add", {"all-reduce": 48}),
        (f"%r = f32[2]{{0}} reduce-scatter(%x), channel_id=1, {FOUR}", {"reduce-scatter": 24}),
        (f"%r = f32[8]{{0}} all-to-all(%x), channel_id=1, {FOUR}", {"all-to-all": 24}),
        (
            "%r = f32[8]{0} collective-permute(%x), channel_id=1, source_target_pairs={{0,1},{1,0}}",
            {"collective-permute": 32},
        ),
        (
            f"%r = (f32[8]{{0}}, f32[32]{{0}}) all-gather-start(%x), channel_id=1, {FOUR}, dimensions={{0}}",
            {"all-gather": 96},
        ),
        (f"%r = f32[8]{{0}} all-reduce-start(%x), channel_id=1, {FOUR}, to_apply=%add", {"all-reduce": 48}),
        (
            "%r = (f32[8]{0}, f32[8]{0}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=1,"
            " source_target_pairs={{0,1},{1,0}}",
            {"collective-permute": 32},
        ),
        (
            f"%r = (f32[8]{{0}}, f32[8]{{0}}) all-reduce(%x, %x), channel_id=1, {FOUR}, to_apply=%add",
            {"all-reduce": 96},
        ),
        ("%r = f32[8]{0} add(%x, %x)", {}),
    ],
)
def test_each_kind(line, expected):
    assert sent(entry(line)) == expected


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", 2),
        ("replica_groups={}", 8),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", 2),
        ("replica_groups=mesh['axis_0'=1,'axis_1'=8] {'axis_1'}", 8),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_0'}", 4),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}", 8),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(1)2}", 2),
        ("replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}", 1),
    ],
)
def test_groups_in_every_spelling(groups, size):
    line = f"%r = f32[64]{{0}} all-gather(%x), channel_id=1, {groups}, dimensions={{0}}"
    assert sent(entry(line)) == ({"all-gather": 32 * (size - 1)} if size > 1 else {})


def test_parts_of_one_collective_count_once():
    line = "%{} = f32[64]{{0}} all-gather(%x), channel_id={}, replica_groups={{}}, dimensions={{0}}{}"
    part = ', backend_config={"async_collective_fusion_config":{"flag_start":"2"}}'
    assert sent(entry(line.format("a", 3, part), line.format("b", 3, part))) == {"all-gather": 224}
    assert sent(entry(line.format("a", 3, part), line.format("b", 4, part))) == {"all-gather": 448}
    assert sent(entry(line.format("a", 3, ""), line.format("b", 3, ""))) == {"all-gather": 448}
    # Parts that lie in a loop run more often than the collective.
    program = parse(
        entry(line.format("a", 3, part)).replace("ENTRY %main", "%body") + entry(line.format("b", 3, part))
    )
    assert bytes_by_kind(program, {"body": 5, "main": 2}, devices=8) == {"all-gather": 448}


def test_a_reduction_of_which_each_keeps_its_part_is_a_reduce_scatter():
    lines = (
        f"%r = f32[8]{{0}} all-reduce(%x), channel_id=1, {FOUR}, to_apply=%add",
        "%c = s32[] constant(0)",
        "%s = f32[2]{0} dynamic-slice(%r, %c), dynamic_slice_sizes={2}",
    )
    assert sent(entry(*lines, computation="all-reduce-scatter.1")) == {"reduce-scatter": 24}
    assert sent(entry(*lines)) == {"all-reduce": 48}


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)


def placed(mesh, shape, *names):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*names)))


def test_a_scan_over_gathered_matrices_by_hand(mesh):
    def run(x, stack):
        return jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, stack)[0].sum()

    x, stack = placed(mesh, (32, 64), ("a", "b")), placed(mesh, (5, 64, 64), None, "b")
    compiled = jax.jit(run).lower(x, stack).compile()
    # A device sends its quarter of 64 x 64 floats to three others, five times; and the sum, one float, once around eight.
    assert sent(compiled.as_text()) == {"all-gather": 5 * 3 * 16 * 64 * 4, "all-reduce": 7}


def test_a_shard_mapped_exchange_by_hand(mesh):
    def run(x):
        return jax.lax.all_to_all(jax.lax.ppermute(x, "a", [(0, 1), (1, 0)]), "b", 1, 0, tiled=True)

    spec = PartitionSpec(("a", "b"))
    mapped = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec))
    compiled = mapped.lower(placed(mesh, (16, 8), ("a", "b"))).compile()
    assert sent(compiled.as_text()) == {"all-to-all": 3 * 64 // 4, "collective-permute": 64}
