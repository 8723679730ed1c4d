"""The scripts in launch/: sound shell, dry runs that say all and do nothing, and a run that is stopped leaves no process."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
LOCAL = ROOT / "launch" / "local.sh"

NOBODY = """
from gauntlet_jax.config import Config, PeerConfig

def get_config():
    return Config(name="nobody", peers=(PeerConfig("P1"),), rounds=3)
"""


def local(*words, **options):
    return subprocess.run(
        [str(LOCAL), *map(str, words)], capture_output=True, text=True, timeout=60, check=False, **options
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_is_sound(script):
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "shellcheck is missing: apt-get install shellcheck"
        )
    found = subprocess.run(
        [shellcheck, "--external-sources", str(script)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_started_and_explains_itself(script):
    assert os.access(script, os.X_OK)
    helped = subprocess.run([str(script), "--help"], capture_output=True, text=True, check=True)
    assert helped.stdout.startswith(f"usage: launch/{script.name}")
    assert script.name in (ROOT / "launch" / "README.md").read_text()


def test_a_dry_run_prints_every_process_and_does_nothing(tmp_path):
    folder = tmp_path / "run"
    lines = local("--dry-run", "--dir", folder, "--port", "7555").stdout.splitlines()
    commands = [re.search(r"gauntlet (\w+)", line) for line in lines]
    assert [found and found[1] for found in commands] == [
        "ledger",
        *["validator"] * 2,
        *["peer"] * 6,
        "follow",
    ]
    names = [found[1] for line in lines if (found := re.search(r"--name (\S+)", line))]
    assert names == ["V1", "V2", "P1", "P2", "P3", "P4", "P5", "P6"]
    for name, line in zip(names, lines[1:-1], strict=True):
        assert f"{ROOT}/configs/local.py --ledger http://127.0.0.1:7555" in line
        assert f"--bucket file://{folder}/buckets/{name} --allow-folder {folder}/buckets" in line
        assert f"--home {folder}/nodes/{name}" in line
        assert line.endswith(f"> {folder}/logs/{name}.log &")
    assert f"follow http://127.0.0.1:7555 --out {folder}/follow --allow-folder {folder}/buckets" in lines[-1]
    assert not folder.exists()


def test_a_new_folder_in_runs_local_is_the_default(tmp_path):
    assert f"{tmp_path.resolve()}/runs/local/20" in local("--dry-run", cwd=tmp_path).stdout


def test_numbers_of_nodes_are_options():
    lines = local("--dry-run", "--peers", "1", "--validators", "3", "--dir", "/nowhere/x").stdout
    assert re.findall(r"--name (\S+)", lines) == ["V1", "V2", "V3", "P1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--colour"], "no option --colour"),
        (["--dir"], "--dir needs a value"),
        (["--port", "x"], "x is no number"),
        (["--config", "none.py"], "no config none.py"),
        (["--dir", "a b"], "--dir"),
    ],
)
def test_wrong_use_is_one_line(words, told, tmp_path):
    found = local(*words, cwd=tmp_path)
    assert found.returncode == 2
    assert told in found.stderr
    assert found.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_said(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        found = local("--dir", tmp_path / "run", "--port", taken.getsockname()[1])
    assert found.returncode == 2
    assert "give another --port" in found.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_stopped_leaves_no_process_and_can_go_on(tmp_path, number):
    """A ledger and its follower, without nodes: what the script does with all of them alike."""
    config = tmp_path / "nobody.py"
    config.write_text(NOBODY)
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = str(probe.getsockname()[1])
    words = [
        "--dir",
        str(tmp_path / "run"),
        "--config",
        str(config),
        "--port",
        port,
        "--peers",
        "0",
        "--validators",
        "0",
    ]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [str(LOCAL), *words],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if "the run waits for P1" in line:
                break
        process.send_signal(number)
        rest = process.communicate(timeout=60)[0]
    finally:
        if process.poll() is None:
            process.kill()
    assert process.returncode == 0, rest
    assert "followed 0 of 3 rounds" in rest
    assert "all stopped" in rest
    assert f"start them again with: launch/local.sh --dir {tmp_path / 'run'}" in rest
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
    assert (tmp_path / "run" / "ledger.sqlite").is_file()
