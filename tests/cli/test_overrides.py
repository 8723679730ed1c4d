import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from gauntlet_jax.cli import overrides
from gauntlet_jax.cli.run_folder import UsageError


@dataclasses.dataclass(frozen=True)
class Validator:
    """How peers are judged.

    Attributes:
      sample_size: peers evaluated a round; None evaluates everyone.
    """

    sample_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """A run.

    Attributes:
      name: of the run.
      seed: of everything random.
      rounds: how many to run.
      rate: a float.
      baseline: which one.
      validator: how peers are judged.
      loss: a function.
    """

    name: str = "quick"
    seed: int = 0
    rounds: int = 20
    rate: float = 0.5
    baseline: Literal["none", "adamw"] = "none"
    validator: Validator = Validator()
    loss: Annotated[Callable[..., int], tyro.conf.Suppress] = len

    def __post_init__(self):
        if self.rounds < 1:
            raise ValueError("rounds: at least 1")


def test_overrides_are_typed_and_reach_nested_fields():
    changed = overrides.apply_overrides(
        Settings(), ["--validator.sample-size", "4", "--rate=2", "--baseline", "adamw"]
    )
    assert changed == Settings(validator=Validator(4), rate=2.0, baseline="adamw")
    assert changed.loss is len


def test_underscores_do_as_well():
    assert overrides.apply_overrides(Settings(), ["--validator.sample_size", "4"]).validator.sample_size == 4


def test_run_flags_come_apart_from_the_config():
    config, flags = overrides.apply_run_overrides(
        Settings(), ["--out", "x", "--seed", "3", "--resume"], program="gauntlet simulate c.py"
    )
    assert config == Settings(seed=3)
    assert flags == overrides.RunFlags(out=Path("x"), resume=True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["--validtor.sample-size", "4"],
            "no override --validtor.sample-size; the nearest is --validator.sample-size",
        ),
        (["--sede", "4"], "the nearest is --seed"),
        (["--seed", "1", "--ruonds=3"], "no override --ruonds; the nearest is --rounds"),
        (["--seed", "x"], "--seed: expected a whole number, got x"),
        (["--seed"], "--seed: expected a whole number, got no value"),
        (["--rate=fast"], "--rate: expected a number, got fast"),
        (["--validator.sample-size", "some"], "expected a whole number or None, got some"),
        (["--baseline", "sgd"], "--baseline: expected none or adamw, got sgd"),
        (["--seed", "1", "2"], "2 is one value too many"),
        (["20"], "'20' is no flag"),
        (["--rounds", "0"], "rounds: at least 1"),
    ],
)
def test_a_wrong_override_is_one_line(args, said, capsys):
    with pytest.raises(UsageError) as error:
        overrides.apply_overrides(Settings(), args)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr() == ("", "")


def test_one_help_lists_every_field_and_the_run_flags(capsys):
    with pytest.raises(SystemExit) as left:
        overrides.apply_run_overrides(Settings(), ["--help"], program="gauntlet simulate c.py")
    assert left.value.code == 0
    text = capsys.readouterr().out
    for word in (
        "--out",
        "--resume",
        "--overwrite",
        "--seed",
        "--validator.sample-size",
        "evaluates everyone",
    ):
        assert word in text
    assert "--loss" not in text


def config_file(folder, text):
    path = folder / "experiment.py"
    path.write_text(text)
    return str(path)


def test_a_config_is_loaded_by_path(tmp_path):
    path = config_file(tmp_path, "from pathlib import Path\ndef get_config():\n    return Path('here')\n")
    assert overrides.load_config(path, Path) == Path("here")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "has no get_config()"),
        ("def get_config():\n    return 1\n", "get_config() returned a int, not a Path"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("import nowhere_at_all\n", "line 1: ModuleNotFoundError"),
        ("def get_config(:\n", "line 1: SyntaxError"),
    ],
)
def test_a_wrong_config_file_is_one_line(tmp_path, text, said):
    with pytest.raises(UsageError) as error:
        overrides.load_config(config_file(tmp_path, text), Path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_config_names_the_nearest(tmp_path):
    path = config_file(tmp_path, "")
    with pytest.raises(
        UsageError, match=r"no config file .*experimnt\.py; the nearest there is .*experiment\.py"
    ):
        overrides.load_config(path.replace("experiment", "experimnt"), Path)
