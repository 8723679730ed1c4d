"""What the tables make of known runs, and of a real one."""

import numpy as np
import pytest
from small_runs import recorded

from gauntlet_jax.config_check import check
from gauntlet_jax.lab.cells import Cell, Cells
from gauntlet_jax.lab.economics import ECONOMICS, ROUNDS, cases, costs, losers, pair, split
from gauntlet_jax.lab.economics.replay import PayRule, Settings, shares
from gauntlet_jax.lab.recorded import from_document
from gauntlet_jax.lab.statistics import Interval
from gauntlet_jax.lab.tables import Table, as_json, as_text

SETTINGS = Settings(payable_after=0, proof_gate=0.5)


def test_a_real_run_is_replayed_as_it_was_paid(tmp_path):
    cells = Cells(tmp_path, ECONOMICS, "quick", seeds=1)
    cells.measure(Cell("pair-same-half", 0))
    run = from_document(cells.of("pair-same-half")[0])
    assert run.rank.shape == (ROUNDS["quick"], 2 + cases.HONEST_PEERS)
    judged = cases.settings(ROUNDS["quick"])
    paid = run.payout.sum(axis=0) / run.payout.sum()
    assert run.payout.sum() > 0
    # Units, and weights of 16 bits where validators agree on them: no closer than that.
    assert shares(run, PayRule(), judged) == pytest.approx(paid, abs=2e-3)
    # Rating, gate and payability anew from the matches give the same.
    again = shares(run, PayRule(rating_beta=judged.rating_beta, proof_gate=judged.proof_gate), judged)
    assert again == pytest.approx(paid, abs=2e-3)
    # The overlap rule saw the second of the pair, and nobody else.
    assert run.slashed[:, 1].sum() == ROUNDS["quick"] - 1
    assert run.slashed.sum() == ROUNDS["quick"] - 1


def test_every_case_is_a_run_that_can_be_had():
    found = cases.all_cases(40)
    for case in found.values():
        check(cases.config_of(case, 0))
    assert sum(behavior.batches for behavior in found["split-3"].own) == cases.TOTAL_BATCHES
    assert len(found["lose-4-noise"].own) == 5
    assert cases.config_of(found["lose-4-noise-sample5"], 0).validator.sample_size == 5
    assert cases.config_of(found["pair-same-half-free"], 0).validator.overlap_floor > 1
    assert cases.config_of(found["split-2-top2"], 0).validator.top_g == 2
    assert cases.config_of(found["split-2"], 0).validator.sample_batches == 1
    for name in ("split-2-wide", "boast-wide"):
        assert cases.config_of(found[name], 0).validator.sample_batches == 4
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
    assert {len(places) for places in found.panels[0].series.values()} == {8}
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
