import dataclasses

import pytest
import synthetic_run

from gauntlet_jax import scoring
from gauntlet_jax.cli import explain, main, reasons

MADE = synthetic_run.records()
CONFIG = synthetic_run.config()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic_run.write_run(tmp_path_factory.mktemp("run"), MADE)


def said(capsys, *arguments):
    code = main.main(["explain", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def of(t, name):
    return next(peer for peer in MADE[t].peers if peer.name == name)


def test_one_round_takes_every_factor_apart(run, capsys):
    code, text, _ = said(capsys, run, "--peer", "fola", "--round", 40)
    peer = of(40, "fola")
    assert code == 0
    for value in (
        f"{peer.scores['assigned']:+.5f}",
        f"{peer.scores['random']:+.5f}",
        f"{peer.loss_rating:.2f} = mu {peer.rating_mu:.2f} - 3 x sigma {peer.rating_sigma:.2f}",
        f"{peer.proof_of_computation:+.3f}",
        f"{peer.standing:.3f}",
        f"{peer.peer_score:.4f}",
        f"{peer.incentive:.2%}",
        f"{peer.payout:,} of 1,000,000",
        "In round 40 fola was paid",
    ):
        assert value in text


def test_a_refusal_has_reason_detail_and_what_it_cost(run, capsys):
    text = said(capsys, run, "--peer", "lars", "--round", 0)[1]
    assert (
        "late: its upload came after the put window closed (uploaded 3.0 s after the window closed)" in text
    )
    assert "its standing fell from 1.00 to 0.75" in text
    assert "was paid nothing: it has not been evaluated yet" in text


def test_the_story_of_a_cheat(run, capsys):
    code, text, _ = said(capsys, run, "--peer", "lars")
    assert code == 0
    assert (
        "lars got nothing (an equal share would be 8.33%): all its 60 artifacts were refused (late x60)"
        in text
    )
    assert "rounds 0-59    refused as late" in text
    assert "slashed     late x60" in text


def test_the_story_of_an_honest_peer(run, capsys):
    text = said(capsys, run, "--peer", "ada")[1]
    paid = [t for t in range(60) if of(t, "ada").payout]
    assert f"round {paid[0]:<8} first paid".strip() in " ".join(text.split()) or f"round {paid[0]}" in text
    assert f"in {len(paid)} rounds" in text
    assert "its updates lowered the loss" in text


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"payable": False, "evaluations": 3}, "in its warm-up (3 evaluations so far, 15 needed)"),
        ({"payable": False, "proof_of_computation": 0.1}, "is not above the gate 0.2"),
        ({"payable": False, "proof_of_computation": 0.9}, "was refused or overlaps with another's"),
        ({"peer_score": 0.0, "loss_rating": -1.0}, "its LossRating -1.00 is not above 0"),
        ({"peer_score": 0.0, "proof_of_computation": -0.5}, "its proof -0.50 is not above 0"),
        ({"incentive": 1e-9}, "less than one unit"),
    ],
)
def test_every_way_to_get_nothing_has_its_reason(change, because):
    peer = dataclasses.replace(of(40, "ada"), payout=0, **change)
    assert because in reasons.why(peer, MADE[40], of(39, "ada"), CONFIG)


def test_the_gate_is_held_against_the_corrected_proof():
    rule = reasons.pay_rule(CONFIG)
    assert rule is not None
    for t in (0, 5, 59):
        peer = of(t, "ada")
        expected = scoring.bias_corrected(peer.proof_of_computation, peer.evaluations, gamma=0.95)
        assert rule.corrected(peer) == pytest.approx(float(expected), abs=1e-12)
    assert reasons.pay_rule({"rewards": {}}) is None


def test_many_stretches_become_one_event():
    events = reasons.timeline(MADE, "kira")
    assert [e.what for e in events if "out_of_sync" in e.what] == [
        "refused as out_of_sync in 10 of these rounds"
    ]
    few = reasons.timeline(MADE[:12], "kira")
    assert [(e.first, e.last) for e in few if "out_of_sync" in e.what] == [(5, 5), (11, 11)]


def test_an_unknown_peer_names_the_nearest(run, capsys):
    code, out, err = said(capsys, run, "--peer", "adda")
    assert (code, out) == (2, "")
    assert "no peer adda in this run; the nearest is ada" in err


@pytest.mark.parametrize("number", [60, -1])
def test_a_round_out_of_range(run, capsys, number):
    code, _, err = said(capsys, run, "--peer", "ada", "--round", number)
    assert code == 2
    assert f"no round {number} in this run: it has rounds 0 to 59" in err


def test_find_peer_prefers_the_exact_name():
    assert explain.find_peer(MADE, "ada") == "ada"
