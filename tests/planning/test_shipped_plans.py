"""The shipped configs of large runs: their constants and sizes by hand; with ``--full`` the plans that they claim."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import abstract_task
from gauntlet_jax.cli.overrides import load_config
from gauntlet_jax.config import Config, MeshConfig
from gauntlet_jax.config_check import check, slots_of
from gauntlet_jax.planning.topology import parse_topology
from gauntlet_jax.training.model import parameter_count

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = ("paper_1b", "sparseloco_8b", "sparseloco_72b")
COMMAND = re.compile(r"gauntlet plan (configs/\w+\.py) --topology (\S+)((?: --\S+ \S+)*)")


def load(name):
    return load_config(str(CONFIGS / f"{name}.py"), Config)


def commands():
    """The plans that the docstrings claim: config, topology, overrides, and the claimed peak in GiB."""
    for name in NAMES:
        text = (CONFIGS / f"{name}.py").read_text().split('"""')[1]
        found = COMMAND.findall(text)
        peaks = re.findall(r"fits: ([\d.]+) of ([\d.]+) GiB", text)
        assert found and len(found) == len(peaks), name
        for (path, topology, overrides), (peak, memory) in zip(found, peaks, strict=True):
            yield path, topology, overrides.split(), float(peak), float(memory)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_config_is_one_that_can_run(name):
    config = load(name)
    check(config)
    assert config.name == name
    assert config.data.path is not None  # nobody trains one of these on a stand-in by mistake


def test_the_papers_constants():
    config = load("paper_1b")
    rules, settings, rate = config.validator, config.compression, config.learning_rate
    assert (settings.method, settings.beta, settings.k, settings.bits) == ("demo", 0.999, 32, 8)
    assert (settings.norm, settings.divisor) == ("tensor", "peers")
    assert (rate.peak, rate.warmup_rounds, rate.schedule_rounds, rate.final_fraction) == (
        4e-4,
        250,
        20_000,
        0.1,
    )
    assert rate.schedule()(0) == pytest.approx(4e-5)
    assert (rules.top_g, rules.sample_size, rules.step_fraction) == (15, 5, 0.2)
    assert (rules.slash_factor, rules.proof_decay, rules.max_sync_score) == (0.75, 0.95, 3.0)
    assert config.rewards.power == 2.0 and slots_of(config) == 250 and config.rounds == 20_000
    assert (config.data.length, config.model.vocabulary) == (2048, 32_000)
    assert config.data.batch * config.data.length == 393_216  # about 400K tokens


@pytest.mark.parametrize(
    ("name", "parameters", "values", "chunks"),
    [
        # 294,144 blocks of 64x64 and 1,056 of 64, 32 values of each.
        ("paper_1b", 1_204_881_408, 9_446_400, 295_200),
        ("sparseloco_8b", 8_030_261_248, None, None),
        ("sparseloco_72b", None, None, None),
    ],
)
def test_sizes_by_hand(name, parameters, values, chunks):
    config = load(name)
    model, settings = config.model, config.compression
    head = model.width // model.heads
    block = model.width * head * (2 * model.heads + 2 * model.kv_heads) + 3 * model.width * model.intermediate
    vectors = (2 * model.layers + 1) * model.width
    matrices = model.layers * block + 2 * model.vocabulary * model.width
    one = dataclasses.replace(config, mesh=MeshConfig())
    task = abstract_task(one, jax.devices()[:1])
    steps = Steps(one, task)
    assert parameter_count(task.params) == matrices + vectors
    if parameters is not None:
        assert matrices + vectors == parameters
    # Every matrix is whole blocks of 64x64; vectors are blocks of 64, all of which a larger k sends.
    whole = matrices // 4096 * settings.k + vectors // 64 * min(settings.k, 64)
    assert matrices % 4096 == 0
    if values is not None:
        assert (whole, matrices // 4096 + vectors // 64) == (values, chunks)
    # Over all the parts that an artifact is dealt out into.
    total = {
        field: sum(spec.shape[0] for name, spec in steps.schema.items() if name.startswith(field))
        for field in ("codes", "scales")
    }
    assert total["codes"] == whole * settings.bits // 8
    assert total["scales"] == matrices // 4096 + vectors // 64


@pytest.mark.slow
def test_the_claimed_plans(full):
    for path, topology, overrides, peak, memory in commands():
        chips = parse_topology(topology)
        assert 0 < peak <= memory == pytest.approx(chips.chip.memory / 2**30, abs=0.01)
        config = load(Path(path).stem)
        flag = overrides.index("--mesh.fsdp") + 1 if "--mesh.fsdp" in overrides else None
        fsdp = config.mesh.fsdp if flag is None else int(overrides[flag])
        assert config.mesh.data * fsdp * config.mesh.tensor == chips.chips
        if full:  # minutes each
            command = [sys.executable, "-m", "gauntlet_jax.cli.main", "plan", path, "--topology", topology]
            done = subprocess.run(
                [*command, *overrides, "--json"],
                cwd=CONFIGS.parent,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["peak"] / 2**30 == pytest.approx(peak, rel=0.05)
