import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gauntlet_jax.cli import main as cli
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger

CONFIG = Path(__file__).parents[2] / "configs" / "local.py"


@contextlib.contextmanager
def served(*arguments):
    """``gauntlet ledger serve`` as a process; gives its URL and the process."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gauntlet_jax.cli.main",
            "ledger",
            "serve",
            *map(str, arguments),
            "--port",
            "0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("ledger of run local at http://127.0.0.1:"), line
        yield line.split(" at ")[1].strip(), process
    finally:
        process.kill()
        process.communicate()


def test_a_ledger_is_founded_served_stopped_and_served_again(tmp_path, capsys):
    database = tmp_path / "runs" / "ledger.sqlite"
    with served(database, "--config", CONFIG) as (url, process):
        assert cli.main(["ledger", "status", url]) == 0
        assert "waits for P1, P2, P3, P4, P5, P6, V1, V2" in capsys.readouterr().out
        assert cli.main(["ledger", "verify", str(database)]) == 0
        assert "1 entries, all sound" in capsys.readouterr().out
        assert cli.main(["ledger", "serve", str(database), "--port", "0"]) == 2
        assert "served by another process" in capsys.readouterr().err
        keep = database.with_name("ledger.sqlite.beacon")
        assert stat.S_IMODE(keep.stat().st_mode) == 0o600
        with contextlib.closing(LedgerClient(url)) as client:
            anchor = client.terms()["anchor"]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "stopped\n", "")
    # A restart needs no config, and Ctrl-C ends it as well.
    with served(database) as (url, process):
        with contextlib.closing(LedgerClient(url)) as client:
            assert client.terms()["anchor"] == anchor
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "stopped\n", "")
    secret = keep.read_bytes()
    keep.chmod(0o644)
    assert cli.main(["ledger", "serve", str(database), "--port", "0"]) == 2
    assert "chmod 600" in capsys.readouterr().err
    keep.chmod(0o600)
    keep.write_bytes(secret[::-1])
    assert cli.main(["ledger", "serve", str(database), "--port", "0"]) == 2
    told = capsys.readouterr().err
    assert "not the one that this run began with" in told
    assert told.count("\n") == 1
    keep.unlink()
    assert cli.main(["ledger", "serve", str(database), "--port", "0"]) == 2
    assert "is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["ledger"], "needs a verb"),
        (["ledger", "sing"], "there is no gauntlet ledger sing"),
        (["ledger", "serve"], "needs one DB"),
        (["ledger", "verify"], "needs one DB"),
        (["ledger", "status"], "needs one URL"),
        (["ledger", "status", "nonsense"], "expected a URL"),
        (["ledger", "verify", "{tmp}/none.sqlite"], "there is no ledger"),
        (["ledger", "serve", "{tmp}/l.sqlite", "--port", "0"], "give --config"),
        (["ledger", "serve", "{tmp}/l.sqlite", "--port", "70000"], "ports are 0 to 65535"),
        (["ledger", "serve", "{tmp}/l.sqlite", "--prt", "0"], "the nearest is --port"),
        (["ledger", "serve", "{tmp}/l.sqlite", "--config", "{tmp}/c.py"], "no config file"),
        (["ledger", "serve", "{tmp}/l.sqlite", "--host", "203.0.113.1", "--port", "0"], "cannot listen"),
    ],
)
def test_what_a_user_can_mend_is_one_line(arguments, line, tmp_path, capsys):
    assert cli.main([argument.replace("{tmp}", str(tmp_path)) for argument in arguments]) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1


def test_a_port_in_use_and_the_file_of_something_else_are_told(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["ledger", "serve", str(tmp_path / "l.sqlite"), "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    (tmp_path / "text").write_text("no database at all, but text of some length" * 40)
    assert cli.main(["ledger", "serve", str(tmp_path / "text"), "--port", "0"]) == 2
    assert "text cannot be opened" in capsys.readouterr().err
    with SqliteLedger(tmp_path / "sim.sqlite", lambda: 0.0) as simulation:
        simulation.register("ada", "store/ada")
    command = ["ledger", "serve", str(tmp_path / "sim.sqlite"), "--config", str(CONFIG), "--port", "0"]
    assert cli.main(command) == 2
    assert "belongs to something else" in capsys.readouterr().err


def test_help(capsys):
    assert cli.main(["ledger", "--help"]) == 0
    assert "gauntlet ledger verify DB" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli.main(["ledger", "serve", "--help"])
    assert ended.value.code == 0
    assert "--start-delay" in capsys.readouterr().out
