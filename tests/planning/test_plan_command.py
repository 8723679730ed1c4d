"""``gauntlet plan``: its verdicts, exit codes and refusals, on CPUs; and a program of the real TPU compiler."""

import importlib.util
import json
import subprocess
import sys

import pytest

from gauntlet_jax.cli.main import main
from gauntlet_jax.cli.overrides import load_config
from gauntlet_jax.cli.plan_compilers import LIBTPU
from gauntlet_jax.config import Config
from gauntlet_jax.planning import chips
from gauntlet_jax.planning.planner import round_of
from gauntlet_jax.planning.topology import devices_of, parse_topology

SMALL = """
from gauntlet_jax.config import *
from gauntlet_jax.training.model import DecoderConfig

def get_config():
    return Config(
        name="small",
        peers=(PeerConfig("P1"), PeerConfig("P2")),
        model=DecoderConfig(vocabulary=256, width=128, layers=8, heads=2, kv_heads=1, intermediate=256, scan=True),
        data=DataConfig(length=64, batch=16, capacity=2, heldout=64),
        compression=CompressionConfig(beta=0.9, k=8),
        mesh=MeshConfig(fsdp=2),
    )
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The command's own settings of the environment end with each test."""
    for name, value in LIBTPU.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "small.py"
    file.write_text(SMALL)
    return str(file)


@pytest.fixture
def memory(monkeypatch):
    """Sets how much a CPU device has."""

    def set_memory(size):
        monkeypatch.setitem(chips.CHIPS, "cpu", chips.CHIPS["cpu"]._replace(memory=size))

    return set_memory


def test_a_run_that_fits_says_so_in_json(path, capsys):
    assert main(["plan", path, "--topology", "cpu:2", "--json", "--uplink", "1Mbps"]) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record["fits"] and record["short"] == 0 and record["advice"] is None and record["devices"] == 2
    steps = {step["name"]: step for step in record["steps"]}
    assert set(steps) == {
        *("gradient", "encode", "evaluate", "loss", "inspect", "add", "finish", "apply", "probe"),
    }
    # Every step is compiled in earnest: parameters and residual lie on two devices, and all but encoding speaks.
    kept = record["resident"]["peer"]
    assert kept["optimizer"] == 0 and kept["params"] < 0.6 * 4 * record["parameters"]
    assert steps["gradient"]["memory"]["arguments"] >= kept["params"]
    assert steps["gradient"]["beside"] == kept["residual"] and steps["encode"]["beside"] == kept["params"]
    assert steps["gradient"]["sent_bytes"] and not steps["encode"]["sent_bytes"]
    # 6 operations a parameter and token in matrices, and attention's; half of them on each device.
    matrices = 8 * (128 * 128 * 3 + 3 * 128 * 256) + 128 * 256
    attention = 8 * 2 * 2 * 64 * 128  # products with keys and values, the whole square
    assert steps["gradient"]["flops"] == 16 * 64 * 3 * (2 * matrices + attention) / 2
    assert record["rounds"]["peer"]["upload_seconds"] == pytest.approx(8e-6 * record["artifact_bytes"])
    assert "gradient: compiled in" in said.err


def test_a_run_that_does_not_fit_says_by_how_much_and_what_would_help(path, memory, capsys):
    main(["plan", path, "--topology", "cpu:2", "--json"])
    peaks = {step["name"]: step["peak"] for step in json.loads(capsys.readouterr().out)["steps"]}
    others = max(peak for name, peak in peaks.items() if name != "gradient")
    assert others < peaks["gradient"]
    memory((others + peaks["gradient"]) // 2)
    assert main(["plan", path, "--topology", "cpu:2"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "does not fit: gradient needs" in said and "more than the" in said
    assert "It fits with --model.remat" in said
    assert main(["plan", path, "--topology", "cpu:2", "--model.remat"]) == 0
    assert "fits:" in capsys.readouterr().out
    assert main(["plan", path, "--topology", "cpu:2", "--no-advice"]) == 1
    assert "--model.remat" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "the config file comes first"),
        (["--topology", "cpu:2"], "the config file comes first"),
        (["CONFIG"], "needs --topology"),
        (["CONFIG", "--topology", "v5q:4x4"], "there is no chip 'v5q'; the nearest is 'v5"),
        (["CONFIG", "--topology", "cpu:2", "--uplink", "fast"], "'fast' is no rate"),
        (["CONFIG", "--topology", "cpu:2", "--efficiency", "0"], "--efficiency: a part of the peak"),
        (["CONFIG", "--topology", "cpu:1"], "needs 2 devices, 1 are there"),
        (["CONFIG", "--topology", "cpu:3", "--mesh.fsdp", "3"], "data.batch: 16 sequences"),
        (["CONFIG", "--topology", "cpu:2", "--model.remta"], "the nearest is --model.remat"),
        (["nowhere.py", "--topology", "cpu:2"], "no config file nowhere.py"),
    ],
)
def test_wrong_use_is_one_line(path, words, told, capsys):
    assert main(["plan", *(path if word == "CONFIG" else word for word in words)]) == 2
    said = capsys.readouterr()
    assert told in said.err and said.err.count("\n") == 1 and not said.out


def test_without_the_tpu_compiler_it_says_how_to_get_it(path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["plan", path, "--topology", "v5e:1x2"]) == 2
    assert "pip install 'gauntlet-jax[tpu]'" in capsys.readouterr().err


def test_help_needs_no_jax():
    code = (
        "import sys; from gauntlet_jax.cli import plan\n"
        "try: plan.run(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "sys.exit('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--topology" in done.stdout, done.stderr


def test_cards_are_judged_by_cpus_and_said_to_be(path, capsys):
    assert main(["plan", path, "--topology", "a100-40gb:2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "in place of a100-40gbs: memory and traffic are estimates" in said and "of 36.00 GiB a device" in said
    )


def test_a_round_needs_no_more_devices_than_its_mesh(path):
    config = load_config(path, Config)
    parts = round_of(config, devices_of(parse_topology("cpu:8")))
    assert parts.devices == 2 and parts.artifact > 0


TPU = """
import json, sys
from gauntlet_jax.cli import plan_compilers
plan_compilers.prepare()
from gauntlet_jax.cli.overrides import load_config
from gauntlet_jax.config import Config
from gauntlet_jax.planning.plan import Assumptions
from gauntlet_jax.planning.planner import plan_of
from gauntlet_jax.planning.topology import parse_topology

topology = parse_topology("v5e:2x1")
with plan_compilers.devices_for(topology) as devices:
    config = load_config(sys.argv[1], Config)
    made = plan_of(config, topology, devices, Assumptions(0.4, 0.6, 1e6, 1e6), only={"loss"})
(step,) = made.steps
print(json.dumps([{device.platform for device in devices} == {"tpu"}, made.fits, step.analysis._asdict()]))
"""


def test_the_real_tpu_compiler_compiles_a_step(path):
    # In a process of its own: the compiler's library is loaded with the environment that the command sets.
    done = subprocess.run([sys.executable, "-c", TPU, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    is_tpu, fits, analysis = json.loads(done.stdout)
    assert is_tpu and fits
    matrices = 8 * (128 * 128 * 3 + 3 * 128 * 256) + 128 * 256
    attention = 8 * 2 * 2 * 64 * 128
    assert analysis["flops"] == 16 * 64 * (2 * matrices + attention) / 2
    assert analysis["sent"] and not analysis["unknown_loops"]
