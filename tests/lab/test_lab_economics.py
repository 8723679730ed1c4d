"""The command in its smallest form, and what its tables make of known runs."""

import json
import sys

import numpy as np
import pytest
from small_runs import recorded

from gauntlet_jax.cli import lab as command
from gauntlet_jax.cli import libraries
from gauntlet_jax.cli import main as cli
from gauntlet_jax.config_check import check
from gauntlet_jax.lab import cases, costs, economics, losers, pair, split
from gauntlet_jax.lab.replay import PayRule, Settings, shares
from gauntlet_jax.lab.runs import Job, Runs
from gauntlet_jax.lab.statistics import Interval
from gauntlet_jax.lab.tables import Table, as_json, as_text
from gauntlet_jax.storage.journal import read_journal, write_journal

ROUNDS = 8
SETTINGS = Settings(payable_after=0, proof_gate=0.5)


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    """A pair's run, really simulated: its folder and its runs."""
    folder = tmp_path_factory.mktemp("lab")
    runs = Runs(folder, ["pair"], seeds=2, rounds=ROUNDS)
    runs.run_one(Job("pair-same-half", 0))
    return folder, runs


def test_a_real_run_is_replayed_as_it_was_paid(one_run):
    folder, _ = one_run
    run = economics.Runs(folder, ["pair"], seeds=1, rounds=ROUNDS).of("pair-same-half")[0]
    assert run.rank.shape == (ROUNDS, 2 + cases.HONEST_PEERS)
    judged = cases.settings(ROUNDS)
    paid = run.payout.sum(axis=0) / run.payout.sum()
    assert run.payout.sum() > 0
    # Units, and weights of 16 bits where validators agree on them: no closer than that.
    assert shares(run, PayRule(), judged) == pytest.approx(paid, abs=2e-3)
    # Rating, gate and payability anew from the matches give the same.
    again = shares(run, PayRule(rating_beta=judged.rating_beta, proof_gate=judged.proof_gate), judged)
    assert again == pytest.approx(paid, abs=2e-3)
    # The overlap rule saw the second of the pair, and nobody else.
    assert run.slashed[:, 1].sum() == ROUNDS - 1
    assert run.slashed.sum() == ROUNDS - 1


def fill(runs, example, monkeypatch):
    """Every run is the example's columns, so that a command takes seconds."""

    def copied(self, job):
        self_made = {"config": self._digest(job), "run": example["run"]}
        write_journal(self._path(job), self_made)

    monkeypatch.setattr(runs, "run_one", copied)


PAIR_STUDY = ("lab", "economics", "--seeds", "2", "--rounds", "8", "--studies", "pair")


def test_the_command_runs_what_is_missing_and_says_what_it_found(one_run, tmp_path, monkeypatch, capsys):
    _, runs = one_run
    example = read_journal(runs._path(Job("pair-same-half", 0)))
    fill(Runs, example, monkeypatch)
    arguments = [*PAIR_STUDY, "--out", str(tmp_path)]
    with monkeypatch.context() as without:  # nothing to draw with, and nothing to be drawn
        without.setitem(sys.modules, "matplotlib", None)
        assert cli.main([*arguments, "--processes", "1", "--no-picture"]) == 0
    said = capsys.readouterr().out
    assert "14 runs of 8 rounds, 1 side by side: about 1 min" in said
    assert "coefficients dealt out" in said
    document = json.loads((tmp_path / command.JSON).read_text())
    assert (document["schema"], document["seeds"], document["rounds"]) == (1, 2, 8)
    share = document["studies"]["pair"][0]["rows"][1][2]
    assert share["low"] <= share["mean"] <= share["high"]
    assert not (tmp_path / command.PICTURE).exists()

    # A second time there is nothing to run; a damaged run alone is made again, and the picture is drawn.
    assert cli.main([*arguments, "--processes", "1"]) == 0
    assert "side by side" not in capsys.readouterr().out
    assert (tmp_path / command.PICTURE).read_bytes().startswith(b"\x89PNG")
    damaged = tmp_path / command.RUNS / "pair-none-seed1.json"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    assert cli.main([*arguments, "--processes", "1"]) == 0
    assert "1 runs of 8 rounds, 1 side by side: about 1 min (13 are there already)" in capsys.readouterr().out


def test_ctrl_c_keeps_what_is_finished(one_run, tmp_path, monkeypatch, capsys):
    _, runs = one_run
    example = read_journal(runs._path(Job("pair-same-half", 0)))
    fill(Runs, example, monkeypatch)
    made, copied = [], Runs.run_one

    def stopped(self, job):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(job)
        copied(self, job)

    monkeypatch.setattr(Runs, "run_one", stopped)
    arguments = [*PAIR_STUDY, "--out", str(tmp_path)]
    assert cli.main([*arguments, "--processes", "1", "--no-picture"]) == 130
    assert "stopped after 3 of 14 runs" in capsys.readouterr().out
    kept = Runs(tmp_path / command.RUNS, ["pair"], seeds=2, rounds=8)
    assert kept.missing() == kept.jobs[3:]


def test_runs_side_by_side_are_kept_too(tmp_path):
    runs = Runs(tmp_path, ["pair"], seeds=1, rounds=1)
    done = []
    runs.run(runs.jobs[:1], processes=2, prepare=libraries.quiet, done=done.append)
    assert done == runs.jobs[:1]
    assert runs.missing() == runs.jobs[1:]


def test_a_run_of_another_config_is_made_again(one_run):
    folder, _ = one_run
    assert Job("pair-same-half", 0) in Runs(folder, ["pair"], seeds=1, rounds=ROUNDS + 1).missing()
    with pytest.raises(ValueError, match="lacks runs"):
        Runs(folder, ["pair"], seeds=2, rounds=ROUNDS).of("pair-same-half")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "needs a study"),
        (["figure"], "there is no study 'figure'"),
        (["economics", "--seeds", "1"], "--seeds: 1, at least 2"),
        (["economics", "--rounds", "7"], "--rounds: 7, at least 8"),
        (["economics", "--processes", "0"], "--processes: 0, at least 1"),
        (
            ["economics", "--studies", "split,spilt"],
            "there is no study 'spilt': split, pair, designed-to-lose",
        ),
        (["economics", "--seed", "3"], "the nearest is --seeds"),
    ],
)
def test_wrong_use_is_one_line(arguments, said, capsys):
    assert cli.main(["lab", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_without_matplotlib_nothing_is_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["lab", "economics", "--out", str(tmp_path / "x")]) == 2
    assert "pip install gauntlet-jax[lab]" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_every_case_is_a_run_that_can_be_had():
    found = cases.cases_of(economics.STUDIES, rounds=40)
    for case in found.values():
        check(cases.config_of(case, seed=0, rounds=40))
    assert sum(behavior.batches for behavior in found["split-3"].own) == cases.TOTAL_BATCHES
    assert len(found["lose-4-noise"].own) == 5
    assert cases.config_of(found["lose-4-noise-sample5"], seed=0, rounds=40).validator.sample_size == 5
    assert cases.config_of(found["pair-same-half-free"], seed=0, rounds=40).validator.overlap_floor > 1
    assert cases.config_of(found["split-2-top2"], seed=0, rounds=40).validator.top_g == 2
    assert cases.config_of(found["split-2"], seed=0, rounds=40).validator.sample_batches == 1
    for name in ("split-2-wide", "boast-wide"):
        assert cases.config_of(found[name], seed=0, rounds=40).validator.sample_batches == 4
    assert found["split-2-wide"].own == found["split-2"].own


def test_splitting_that_pays_is_named_and_its_cost_found():
    def runs(name):
        k = 1 if name.startswith("boast") else int(name.split("-")[1])
        # One identity has half of the payouts; k have as much each as all five honest peers together.
        # Where more data is checked, k identities together have as much as those.
        own = [5**0.5] * k if not name.endswith("-wide") else [(5 / k) ** 0.5] * k
        score = own + [1.0] * 5
        columns = {"proof_of_computation": [[0.05] * len(score)], "rank": [list(range(len(score)))]}
        return [recorded([score], own=k, **columns)] * 2

    found = split.study(runs, SETTINGS)
    by_power, tops, mends, _, wide, priced, few, boast = found.tables
    assert [row[3].mean for row in by_power.rows[:3]] == pytest.approx([50.0, 200 / 3, 75.0])
    assert by_power.rows[0][-1] == "0.6x"  # 50 / 8 against 50 / 5
    assert mends.rows[0][1].mean == pytest.approx(50 / 3)
    assert mends.reading.splitlines()[0] == "as run: pays at k = 2, 3, 4, 5, 6, 7, 8"
    assert "top 1" in tops.columns
    # Without a cost the most identities earn most; the first of them gains most, 16.7 points for one more.
    assert priced.rows[0][1] == "k=8, +38.9"
    assert priced.rows[0][-1] == pytest.approx(50 / 3 / (100 / 13))
    assert few.rows[0][3] == (0.0, 0.0)
    assert boast.rows[0][2] == "pays"
    # With more data checked nothing is gained, and no cost is needed.
    assert wide.rows[0][2:4] == ("-", "-")
    assert [row[1].mean for row in wide.rows] == pytest.approx([50.0] * 8)
    assert wide.rows[2][2] == pytest.approx((0.0, 0.0), abs=1e-9)
    assert "0.00 (gate .5)" in wide.reading
    assert priced.rows[-2][0] == "data x4, gate .5"
    assert priced.rows[-2][-1] == pytest.approx(0.0, abs=1e-9)
    assert {len(places) for places in found.panel.series.values()} == {8}
    assert boast.columns[3] == "data checked x4"


def test_the_cost_that_ends_splitting_by_hand():
    # Gains over one identity: 6 and then 8 points, every seed alike; of 4 points a batch that is 1.5 for one more, 1 for two.
    by_k = [[50.0, 60.0], [56.0, 66.0], [58.0, 68.0]]
    assert costs.ending(by_k, one=4.0) == pytest.approx(1.5)
    assert costs.ending(by_k[::-1], one=4.0) == 0.0
    # The upper end of the interval: 1 +- 12.706 points.
    assert costs.ending([[0.0, 0.0], [0.0, 2.0]], one=1.0) == pytest.approx(13.706)
    (row,) = costs.table({"rule": by_k}, one=4.0).rows
    assert row == ("rule", "k=3, +8.0", "k=3, +6.0", "k=2, +4.0", "k=2, +2.0", 1.5)


def test_an_even_field_says_that_nothing_is_gained():
    def runs(name):
        own = 1 if name == "pair-none" else 2
        return [recorded([[1.0] * (own + 5)], own=own)] * 2

    (table,) = pair.study(runs, SETTINGS).tables
    for row in table.rows[1:]:
        assert row[2].mean == pytest.approx(200 / 7)
        assert row[3:5] == ("171%", "100%")
    # At the compute of one batch that is more than honest.
    assert [row[5] for row in table.rows[1:3]] == ["pays", "pays"]


def test_a_main_identity_gains_what_its_sybils_matches_add():
    def runs(name):
        own = 1 + int(name.split("-")[1])
        places = np.array([0, *range(own + 4, 5, -1), 1, 2, 3, 4, 5][: own + 5])
        ranks = np.tile(places, (6, 1))
        shape = (6, own + 5)
        run = recorded(np.ones(shape), own=own, rank=ranks, proof_of_computation=np.full(shape, 0.5))
        return [run] * 2

    plain, sampled = losers.study(runs, SETTINGS, rounds=6).tables
    assert plain.rows[0][0] == "0"
    assert [row[0] for row in plain.rows[1:5]] == [f"{m} sign_flip" for m in (1, 2, 3, 4)]
    assert len(sampled.rows) == 4
    share, gained, together, rating, *_, slashed = plain.rows[4][1:]
    assert slashed == "0.0"
    assert share.mean == pytest.approx(10.0)
    assert together.mean == pytest.approx(50.0)
    assert gained.half == 0.0
    assert rating.half == 0.0


def test_a_table_as_text_and_as_json():
    table = Table("T", ("a", "b"), (("x", Interval(1.0, 0.25)), ("long", 2.0)), "So.")
    assert as_text(table) == "T\n  a             b\n  x     1.0 ± 0.2\n  long       2.00\nSo."
    assert as_json(table)["rows"] == [["x", {"mean": 1.0, "low": 0.75, "high": 1.25}], ["long", 2.0]]
