import subprocess
import sys

import pytest

from gauntlet_jax.cli import main as cli


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments, capsys):
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    for name in ("simulate", "report", "explain"):
        assert f"  {name} " in text


def test_an_unknown_command_names_the_nearest(capsys):
    assert cli.main(["simulat"]) == 2
    assert capsys.readouterr().err == (
        "gauntlet: there is no command 'simulat'; the nearest is 'simulate' (gauntlet --help lists them)\n"
    )


def test_simulate_help_needs_no_config(capsys):
    assert cli.main(["simulate", "--help"]) == 0
    assert "--resume" in capsys.readouterr().out
    assert cli.main(["simulate"]) == 2
    assert cli.main(["simulate", "--seed", "1", "c.py"]) == 2
    assert "the config comes first" in capsys.readouterr().err


def test_a_programming_error_keeps_its_traceback(monkeypatch):
    def broken(arguments):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("gauntlet_jax.cli.report.run", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["report"])


@pytest.mark.parametrize("command", ["explain", "report"])
def test_wrong_arguments_are_one_line(command, capsys):
    assert cli.main([command]) == 2
    assert cli.main([command, "nowhere", "--peer", "x"][: 4 if command == "explain" else 2]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_reading_commands_start_without_jax():
    code = (
        "import sys; from gauntlet_jax.cli import main, explain, report; main.main(['--help']); "
        "sys.exit('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
