"""``gauntlet lab`` with a study that measures nothing much: what is kept, made again, told and written."""

import json
import sys

import pytest

from gauntlet_jax.cli import lab as command
from gauntlet_jax.cli import libraries
from gauntlet_jax.cli import main as cli
from gauntlet_jax.lab import studies
from gauntlet_jax.lab.cells import Cell, Cells
from gauntlet_jax.lab.economics import ECONOMICS
from gauntlet_jax.lab.findings import Claim, Curves, Dots, Findings, Grid
from gauntlet_jax.lab.picture import as_svg
from gauntlet_jax.lab.statistics import Interval, t_interval
from gauntlet_jax.lab.study import Study
from gauntlet_jax.lab.tables import Table

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def toy(monkeypatch):
    """A registered study, and the cells that it has measured."""
    measured = []

    def measure(case, seed):
        measured.append(Cell(case, seed))
        return {"value": len(case) + seed}

    def conclude(size, results):
        rows = tuple((case, t_interval([r["value"] for r in results(case)])) for case in ("a", "bb"))
        interval = rows[0][1]
        return Findings(
            (Claim("a is small", True), Claim(f"bb is {HOSTILE}", False)),
            (Table(f"Values, {size}", ("case", "value"), rows, "Read so."),),
            (
                Dots("dots", "apples", ("a", "bb"), {"s": (interval, interval)}, {"one": 1.0}),
                Curves("curves", "x", "y", {"s": ([1.0, 2.0], [interval, interval])}, log="x"),
                Grid("grid", "%", ("a",), ("x", "y"), ((1.0, None),), bound=0.5),
            ),
        )

    study = Study(
        name="toy",
        question="How long are names?",
        seeds={"quick": 2, "full": 3},
        cases=lambda size: {name: name for name in ("a", "bb")},
        identity=lambda case, seed: f"{case} {seed}",
        measure=measure,
        conclude=conclude,
        seconds=lambda case: 100.0,
    )
    monkeypatch.setattr(studies, "STUDIES", {**studies.STUDIES, "toy": study})
    return study, measured


def test_the_command_measures_what_is_missing_and_says_what_it_found(toy, tmp_path, monkeypatch, capsys):
    _, measured = toy
    arguments = ["lab", "toy", "--out", str(tmp_path), "--jobs", "1"]
    with monkeypatch.context() as without:  # nothing to draw with, and nothing to be drawn
        without.setitem(sys.modules, "matplotlib", None)
        assert cli.main([*arguments, "--no-pictures"]) == 0
    said = capsys.readouterr().out
    assert "4 measurements, 1 side by side: about 7 min" in said
    assert "yes  a is small" in said and f"no   bb is {HOSTILE}" in said
    assert measured == [Cell("a", 0), Cell("bb", 0), Cell("a", 1), Cell("bb", 1)]
    document = json.loads((tmp_path / command.JSON).read_text())
    assert (document["schema"], document["seeds"], document["size"]) == (2, 2, "quick")
    assert document["tables"][0]["rows"][0][1]["mean"] == 1.5
    assert [claim["holds"] for claim in document["claims"]] == [True, False]
    assert not (tmp_path / command.PICTURE).exists()

    # A second time there is nothing to measure; a damaged cell alone is measured again, and the pictures are drawn.
    measured.clear()
    damaged = tmp_path / command.CELLS / "bb-seed1.json"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    assert cli.main(arguments) == 0
    assert measured == [Cell("bb", 1)]
    assert "1 measurements, 1 side by side: about 2 min (3 are there already)" in capsys.readouterr().out
    assert (tmp_path / command.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_the_page_needs_nothing_but_itself_and_takes_names_as_text(toy, tmp_path):
    assert cli.main(["lab", "toy", "--out", str(tmp_path), "--jobs", "1"]) == 0
    page = (tmp_path / command.REPORT).read_text()
    assert page.count("<svg") == 3
    assert HOSTILE not in page and "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert "1.5 ± 6.4" in page and "gauntlet lab toy" in page
    assert "src=" not in page.split("</style>")[1].replace("xlink:href", "")


def test_a_chart_has_the_same_bytes_twice():
    panel = Dots("dots", "apples", ("a",), {"s": (Interval(1.0, 0.5),)})
    assert as_svg(panel) == as_svg(panel)


def test_ctrl_c_keeps_what_is_finished(toy, tmp_path, monkeypatch, capsys):
    study, measured = toy

    def stopped(case, seed):
        if len(measured) == 3:
            raise KeyboardInterrupt
        return study.measure(case, seed)

    monkeypatch.setitem(studies.STUDIES, "toy", study._replace(measure=stopped))
    assert cli.main(["lab", "toy", "--out", str(tmp_path), "--jobs", "1"]) == 130
    assert "stopped after 3 of 4 measurements" in capsys.readouterr().out
    assert Cells(tmp_path / command.CELLS, study, "quick", seeds=2).missing() == [Cell("bb", 1)]


def test_a_cell_whose_making_has_changed_is_measured_again(toy, tmp_path):
    study, _ = toy
    cells = Cells(tmp_path, study, "quick", seeds=1)
    cells.measure(Cell("a", 0))
    assert cells.of("a") == [{"value": 1}]
    other = Cells(tmp_path, study._replace(identity=lambda case, seed: "another"), "quick", seeds=1)
    assert Cell("a", 0) in other.missing()
    with pytest.raises(ValueError, match="lacks results of bb"):
        cells.of("bb")


def test_cells_side_by_side_and_on_a_cluster_are_kept_too(tmp_path):
    cells = Cells(tmp_path / "cells", ECONOMICS, "quick", seeds=1)
    done = []
    cells.run(cells.all[:1], jobs=2, prepare=libraries.quiet, done=done.append)
    cells.run_on_cluster(
        cells.all[1:2], cluster="local", partition=None, jobs=1, prepare=libraries.quiet, done=done.append
    )
    assert done == cells.all[:2]
    assert cells.missing() == cells.all[2:]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "gauntlet lab --list names them"),
        (["figure"], "there is no study 'figure': figure2"),
        (["toy", "--seeds", "1"], "--seeds: 1, at least 2"),
        (["toy", "--jobs", "0"], "--jobs: 0, at least 1"),
        (["toy", "--seed", "3"], "the nearest is --seeds"),
        (["toy", "--cluster", "slurm", "--out", "{tmp}"], "--cluster slurm: Could not detect"),
    ],
)
def test_wrong_use_is_one_line(toy, arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")  # no Slurm, whatever is installed
    assert cli.main(["lab", *(argument.format(tmp=tmp_path) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_without_matplotlib_nothing_is_run(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["lab", "toy", "--out", str(tmp_path / "x")]) == 2
    assert "pip install gauntlet-jax[lab]" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_list_names_every_study_with_its_question(capsys):
    assert cli.main(["lab", "--list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said and study.question in said for name, study in studies.STUDIES.items())
