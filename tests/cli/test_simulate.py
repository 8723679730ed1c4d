import dataclasses
import errno
import io
import json
import os
import pathlib
import signal

import pytest
import synthetic_run
from rich.console import Console

from gauntlet_jax.cli import run_folder, simulate
from gauntlet_jax.cli.run_folder import UsageError

MADE = synthetic_run.records(rounds=12)


@dataclasses.dataclass(frozen=True)
class Settings:
    name: str = "fake"
    seed: int = 0
    rounds: int = 12
    checkpoint_every: int = 5


class Fake:
    """A simulation that replays records; ``fails`` maps a round to what happens in it."""

    def __init__(self, config, folder, fails):
        self.rounds, self.round, self.folder, self.fails = config.rounds, 0, folder, fails
        self.closed, self.compiled = False, False
        (folder / "ledger.sqlite").write_text("ledger")

    def compile(self):
        self.compiled = True

    def run_round(self):
        assert self.compiled
        if self.round in self.fails:
            self.fails[self.round]()
        self.round += 1
        return MADE[self.round - 1]

    def save_checkpoint(self):
        (self.folder / "checkpoints").mkdir(exist_ok=True)
        (self.folder / "checkpoints" / f"{self.round:03}").write_text("")

    def restore(self):
        found = sorted(path.name for path in (self.folder / "checkpoints").glob("*"))
        self.round = int(found[-1]) if found else 0
        return ["checkpoint 99 is corrupt: the one before is used"]

    def summary(self, records, wall_seconds):
        return synthetic_run.summary(records, wall_seconds)

    def close(self):
        self.closed = True


class Session:
    """The command on a fake simulation, with all it prints."""

    def __init__(self, folder):
        self.folder, self.printed, self.simulation = folder, "", None

    def run(self, config=Settings(), fails=(), resume=False, overwrite=False, build=None):
        stream = io.StringIO()

        def made(config, folder):
            self.simulation = Fake(config, folder, dict(fails))
            return self.simulation

        try:
            return simulate.simulate(
                config,
                self.folder,
                build=build or made,
                serialize=lambda config: json.dumps(dataclasses.asdict(config)),
                resume=resume,
                overwrite=overwrite,
                console=Console(file=stream, width=200),
                again=f"gauntlet simulate c.py --out {self.folder}",
            )
        finally:
            self.printed = stream.getvalue()

    @property
    def lines(self):
        return (self.folder / "rounds.jsonl").read_text().splitlines()


@pytest.fixture
def session(tmp_path):
    return Session(tmp_path / "runs" / "fake")


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_twice():
    interrupt()
    interrupt()


def disk_full():
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_run_leaves_a_whole_folder(session):
    assert session.run() == 0
    assert run_folder.read_run(session.folder).records == tuple(MADE)
    assert json.loads((session.folder / "config.json").read_text()) == dataclasses.asdict(Settings())
    assert json.loads((session.folder / "summary.json").read_text())["rounds"] == 12
    assert "<html" in (session.folder / "report.html").read_text()
    assert [p.name for p in sorted((session.folder / "checkpoints").iterdir())] == ["005", "010", "012"]
    assert session.simulation.closed
    for word in ("round 12/12", "fola", str(session.folder / "report.html"), "gauntlet explain"):
        assert word in session.printed


def test_ctrl_c_finishes_the_round_and_resume_ends_the_same(session, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    assert session.run(fails={6: interrupt}) == 130
    assert len(session.lines) == 7
    assert "stopped after 7 of 12 rounds; continue with: gauntlet simulate c.py" in session.printed
    assert "--resume" in session.printed
    assert (session.folder / "checkpoints" / "007").exists()
    assert not (session.folder / "summary.json").exists()
    assert signal.getsignal(signal.SIGINT) is before

    assert session.run(resume=True) == 0
    assert "resuming after round 7 of 12" in session.printed
    assert "warning: checkpoint 99 is corrupt" in session.printed
    unbroken = Session(tmp_path / "unbroken")
    unbroken.run()
    assert session.lines == unbroken.lines


def test_ctrl_c_twice_drops_the_round_and_the_checkpoint_before_counts(session):
    assert session.run(fails={7: interrupt_twice}) == 130
    assert len(session.lines) == 7
    assert "round 7 dropped; the newest checkpoint is after round 5" in session.printed
    assert session.run(resume=True) == 0
    assert run_folder.read_run(session.folder).records == tuple(MADE)


def test_a_full_disk_is_one_line_and_can_be_resumed(session):
    with pytest.raises(
        UsageError, match=r"no space left on device, writing .* continue with: .*--resume"
    ) as error:
        session.run(fails={8: disk_full})
    assert "\n" not in str(error.value)
    assert session.simulation.closed
    assert session.run(resume=True) == 0
    assert run_folder.read_run(session.folder).records == tuple(MADE)


def test_a_programming_error_in_a_round_is_not_hidden(session):
    def bug():
        raise ValueError("shapes do not match")

    with pytest.raises(ValueError, match="shapes do not match") as error:
        session.run(fails={1: bug})
    assert not isinstance(error.value, UsageError)


def test_a_finished_run_resumed_only_rewrites_what_is_derived(session):
    session.run()
    lines = session.lines
    (session.folder / "report.html").unlink()
    assert session.run(resume=True) == 0
    assert "already at round 12 of 12" in session.printed
    assert not session.simulation.compiled
    assert session.lines == lines
    assert (session.folder / "report.html").exists()


def test_more_rounds_go_on_from_a_finished_run(session):
    session.run(Settings(rounds=10))
    assert session.run(Settings(rounds=12), resume=True) == 0
    assert run_folder.read_run(session.folder).records == tuple(MADE)
    assert json.loads((session.folder / "config.json").read_text())["rounds"] == 12


def test_a_finished_run_that_goes_on_is_unfinished_again(session):
    session.run(Settings(rounds=10))
    assert session.run(Settings(rounds=12), resume=True, fails={10: interrupt}) == 130
    assert not (session.folder / "summary.json").exists()


def test_a_second_run_of_the_same_config_replaces_the_first(session):
    session.run(Settings(rounds=4))
    assert session.run(Settings(rounds=4)) == 0
    assert "replacing the finished run of the same config" in session.printed
    assert len(session.lines) == 4


def test_a_refused_config_leaves_nothing_behind(session, tmp_path):
    def refused(config, folder):
        (folder / "store").mkdir()
        raise ValueError("validator.top_g: G = 15,\nbut there are 12 peers")

    with pytest.raises(UsageError, match="G = 15, but there are 12 peers"):
        session.run(build=refused)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_config_leaves_the_old_run(session):
    session.run(Settings(rounds=4))
    lines = session.lines

    def refused(config, folder):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "corpus")

    with pytest.raises(UsageError, match="corpus"):
        session.run(Settings(seed=1), overwrite=True, build=refused)
    assert session.lines == lines


def test_another_configs_run_is_not_touched(session):
    session.run(Settings(rounds=4))
    with pytest.raises(UsageError, match=r"differs in seed \(0 there, 1 here\)"):
        session.run(Settings(seed=1))
    assert session.run(Settings(seed=1, rounds=3), overwrite=True) == 0
    assert len(session.lines) == 3


def test_a_name_that_is_no_folder_name():
    with pytest.raises(UsageError, match="cannot name a folder"):
        simulate._default_folder("../elsewhere")


def test_the_command_that_goes_on_keeps_the_overrides():
    rest = ["--rounds", "8", "--out", "x y", "--resume", "--model.width", "16", "--out=z", "--overwrite"]
    assert simulate._command("gauntlet simulate c.py", rest, pathlib.Path("x y")) == (
        "gauntlet simulate c.py --rounds 8 --model.width 16 --out 'x y'"
    )
