import contextlib
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from rewards.shared_world import http_world

from gauntlet_jax.cli import main as cli
from gauntlet_jax.rewards.ledger import RESERVE
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.rewards.weight_commit import weights_digest
from gauntlet_jax.testing.ledger_world import play_round, populate

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
        (["ledger", "show"], "needs one URL or DB"),
        (["ledger", "show", "{tmp}/l.sqlite", "1", "2"], "needs one URL or DB"),
        (["ledger", "show", "{tmp}/none.sqlite"], "there is no ledger"),
        (["ledger", "show", "{tmp}/none.sqlite", "last"], "'last' is no round"),
        (["ledger", "show", "ftp://host"], "expected a URL"),
        (["ledger", "transfer"], "needs one URL"),
        (["ledger", "transfer", "http://127.0.0.1:1"], "needs --key FILE, --to ACCOUNT and --units N"),
        (
            ["ledger", "transfer", "u", "--key", "{tmp}/k", "--to", "a", "--units", "1"],
            "there is no key file",
        ),
        (["ledger", "transfer", "u", "--unit", "1"], "the nearest is --units"),
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


def played(path):
    """A ledger of two rounds, of which V2 was silent in the second after disagreeing in the first."""
    salt = bytes(32)
    with SqliteLedger(path, lambda: 0.0) as ledger:
        for name, stake in (("V1", 3.0), ("V2", 1.0)):
            ledger.register_validator(name, stake)
        for name in ("ada", "bob"):
            ledger.register(name, f"memory://{name}")
        rows = {"V1": {"ada": 2.0, "bob": 1.0, RESERVE: 1.0}, "V2": {"bob": 1.0}}
        for name, row in rows.items():
            ledger.commit_weights(0, name, weights_digest(0, name, row, salt))
        for name, row in rows.items():
            ledger.reveal_weights(0, name, row, salt)
        for round in range(2):
            ledger.run_epoch(round, ["ada", "bob"], 1001)


def test_an_epoch_is_shown_as_a_table(tmp_path, capsys):
    path = tmp_path / "ledger.sqlite"
    played(path)
    assert cli.main(["ledger", "show", str(path), "0"]) == 0
    # V1 alone decides: I = .75 * .5, .75 * .25 + .25 * .25, .75 * .25, normalised: 6/13, 4/13, 3/13. Of ada and the reserve V1
    # holds all, of bob 3/4: D = 12/13, 1/13.
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["round", "0:", "1001", "units"],
        ["peer", "consensus", "incentive", "units"],
        ["ada", "0.5000", "0.4615", "231"],
        ["bob", "0.2500", "0.3077", "154"],
        ["reserve", "0.2500", "0.2308", "115"],
        ["validator", "trust", "dividends", "units"],
        ["V1", "1.0000", "0.9231", "462"],
        ["V2", "0.2500", "0.0769", "38"],
        ["unpaid", "reserve", "115,", "remainder", "1"],
        ["accounts"],
        ["V1", "924"],
        ["V2", "76"],
        ["ada", "462"],
        ["bob", "308"],
        ["reserve", "230"],
        ["remainder", "2"],
        ["all", "together", "2002"],
    ]
    assert cli.main(["ledger", "show", str(path)]) == 0
    assert "round 1: 1001 units" in capsys.readouterr().out
    assert cli.main(["ledger", "show", str(path), "2"]) == 2
    assert "has no epoch of round 2" in capsys.readouterr().err
    with SqliteLedger(tmp_path / "empty.sqlite", lambda: 0.0):
        pass
    assert cli.main(["ledger", "show", str(tmp_path / "empty.sqlite")]) == 2
    assert "has no epoch yet" in capsys.readouterr().err


def test_an_epoch_is_shown_over_http(capsys):
    with http_world() as world:
        populate(world)
        assert cli.main(["ledger", "show", world.url]) == 2
        assert "has no epoch yet" in capsys.readouterr().err
        play_round(world, {"V1": {"ada": 1.0}, "V2": {"ada": 1.0}})
        world.open_round()
        assert cli.main(["ledger", "show", world.url]) == 0
        newest = capsys.readouterr().out
        assert "round 0: 1000003 units" in newest
        assert next(line.split()[1] for line in newest.splitlines() if "V3" in line) == "silent"
        assert cli.main(["ledger", "show", world.url, "0"]) == 0
        assert capsys.readouterr().out == newest
        assert cli.main(["ledger", "status", world.url]) == 0
        told = capsys.readouterr().out
        assert "commits to weights" in told
        assert "all together" in told


def test_units_are_given_on_from_the_command_line(tmp_path, capsys):
    key = tmp_path / "identity.key"
    key.write_text(hashlib.sha256(b"eve").hexdigest())  # the world's key of eve, which was granted 10
    key.chmod(0o600)
    with http_world() as world:
        populate(world)
        command = ["ledger", "transfer", world.url, "--key", str(key), "--to", "ada", "--units", "4"]
        assert cli.main([*command, "--receipt", "ab" * 16]) == 0
        assert cli.main([*command, "--receipt", "ab" * 16]) == 0
        assert "ada has 4 units more, receipt abab" in capsys.readouterr().out
        assert world.balances()["ada"] == 4
        assert cli.main(command) == 0
        assert world.balances()["ada"] == 8
        capsys.readouterr()
        assert cli.main(command) == 2
        assert "has 2 units, 4 are needed" in capsys.readouterr().err
        assert cli.main([*command, "--name", "ada"]) == 2
        assert "another key" in capsys.readouterr().err
    assert cli.main(command) == 2
    told = capsys.readouterr().err
    assert "repeat it with --receipt" in told
    assert told.count("\n") == 1
    assert key.read_text() not in told


def test_help(capsys):
    assert cli.main(["ledger", "--help"]) == 0
    assert "gauntlet ledger verify DB" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli.main(["ledger", "serve", "--help"])
    assert ended.value.code == 0
    assert "--start-delay" in capsys.readouterr().out
