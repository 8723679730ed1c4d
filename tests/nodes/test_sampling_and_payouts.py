import hashlib
import json
from collections import Counter
from contextlib import closing

import numpy as np
import pytest

from gauntlet_jax.build import build_simulation
from gauntlet_jax.config import PeerConfig
from gauntlet_jax.nodes.record import to_json
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.nodes.settlement import weights_in
from gauntlet_jax.rewards.ledger import REMAINDER, RESERVE
from gauntlet_jax.rewards.rules import RewardRules


@pytest.fixture(scope="module")
def sampled(tiny, tmp_path_factory):
    """Six peers of whom two are evaluated a round and two are aggregated."""
    config = tiny(
        peers=tuple(map(PeerConfig, ("ada", "ben", "cleo", "dov", "eva", "fay"))),
        validator=ValidatorRules(top_g=2, sample_size=2),
        rewards=RewardRules(emission=1_000_003, payable_after=2),
    )
    with closing(build_simulation(config, tmp_path_factory.mktemp("sampled"))) as simulation:
        yield simulation, [simulation.run_round() for _ in range(12)]


def test_two_are_evaluated_a_round_and_the_others_keep_their_rating(sampled):
    _, records = sampled
    last = {}
    for record in records:
        evaluated = [peer for peer in record.peers if peer.scores]
        assert len(evaluated) == 2
        assert {peer.rank for peer in evaluated} == {0, 1}
        for peer in record.peers:
            assert peer.refusal is None
            before = last.get(peer.name)
            kept = before is not None and (
                before.rating_mu,
                before.rating_sigma,
                before.proof_of_computation,
            ) == (
                peer.rating_mu,
                peer.rating_sigma,
                peer.proof_of_computation,
            )
            assert kept or peer.scores or before is None
            assert peer.evaluations == (before.evaluations if before else 0) + bool(peer.scores)
            last[peer.name] = peer


def test_the_draw_differs_by_round_and_reaches_everyone(sampled):
    _, records = sampled
    drawn = [frozenset(peer.name for peer in record.peers if peer.scores) for record in records]
    assert len(set(drawn)) > 3
    assert len(Counter(name for pair in drawn for name in pair)) == 6


def test_the_draw_hangs_on_the_closing_beacon_and_the_validators_name(sampled):
    validator = sampled[0]._panel.seats[0].validator

    def draw(beacon: bytes, name: str) -> tuple[int, ...]:
        validator.name, own = name, validator.name
        drawn = validator._draw(12, beacon, np.ones(6, bool))
        validator.name = own
        return tuple(np.flatnonzero(drawn))

    beacons = [bytes([number]) * 32 for number in range(8)]
    assert len({draw(beacon, "validator") for beacon in beacons}) > 2
    assert len({draw(beacons[0], f"validator {number}") for number in range(8)}) > 2
    assert draw(beacons[0], "validator") == draw(beacons[0], "validator")


def test_the_validator_knows_when_each_was_evaluated(sampled):
    simulation, records = sampled
    state = json.loads(json.dumps(simulation._panel.seats[0].validator.state()))
    simulation._panel.seats[0].validator._memory.evaluated_at[:] = -1
    simulation._panel.seats[0].validator.restore(state)
    expected = [max(record.round for record in records if record.peers[slot].scores) for slot in range(6)]
    assert simulation._panel.seats[0].validator._memory.evaluated_at.tolist() == expected


def test_no_more_than_g_are_aggregated(sampled, finished):
    for record in sampled[1]:
        assert sum(peer.aggregated for peer in record.peers) <= 2
    for record in finished.records:
        accepted = sum(peer.refusal is None for peer in record.peers)
        chosen = [peer for peer in record.peers if peer.aggregated]
        assert accepted > 3 >= len(chosen) > 0
        least = min(peer.peer_score for peer in chosen)
        assert all(
            peer.peer_score <= least for peer in record.peers if peer.refusal is None and not peer.aggregated
        )


def test_every_unit_of_an_emission_goes_somewhere(sampled, finished):
    for emission, records in ((1_000_003, sampled[1]), (1_000_000, finished.records)):
        for record in records:
            assert record.emission == emission
            units = [*record.peers, *record.validators]
            assert sum(one.payout for one in units) + record.reserve + record.remainder == emission
            assert record.validators[0].payout in (
                emission // 2 - 1,
                emission // 2,
            )  # half is the validators'
            assert all(peer.payout == 0 for peer in record.peers if not peer.payable or peer.incentive == 0)
            assert sum(peer.incentive for peer in record.peers) == pytest.approx(1)


def test_nobody_is_paid_before_enough_evaluations(sampled):
    _, records = sampled
    assert records[0].reserve == 500_001 and records[0].remainder == 1
    assert any(peer.payout for peer in records[-1].peers)
    for record in records:
        for peer in record.peers:
            assert not peer.payable or peer.evaluations >= 2
            assert peer.payout == 0 or peer.payable


def test_the_ledger_says_what_the_records_say(sampled, finished):
    for simulation, records in (sampled, (finished.simulation, finished.records)):
        ledger = simulation._ledger
        balances = ledger.balances()
        assert balances.pop(RESERVE) == sum(record.reserve for record in records)
        assert balances.pop(REMAINDER) == sum(record.remainder for record in records)
        for name, units in balances.items():
            paid = {
                record.round: one.payout
                for record in records
                for one in (*record.peers, *record.validators)
                if one.name == name and one.payout
            }
            assert ledger.history(name) == paid
            assert units == sum(paid.values())
        for record in records:
            assert ledger.weights(record.round) == {"validator": pytest.approx(weights_in(record.peers))}
        # What it is made of, registrations, and then commit, record, weights, epoch and emission of each round.
        assert ledger.verify() == 1 + len(balances) + 5 * len(records)


def test_the_ledger_holds_the_digest_of_each_line(finished):

    for record in finished.records:
        line = json.loads(to_json(record))
        line |= {"emission": 0, "reserve": 0, "remainder": 0, "validators": []}
        line["peers"] = [{**peer, "payout": 0, "consensus": None} for peer in line["peers"]]
        judged = json.dumps(line, separators=(",", ":")).encode()
        assert finished.simulation._ledger.record(record.round) == hashlib.sha256(judged).hexdigest()


def test_the_summary_adds_up(sampled, finished):
    for simulation, records in (sampled, (finished.simulation, finished.records)):
        summary = simulation.summary(records, 100.0)
        assert set(summary) == {
            "schema", "config", "seed", "rounds", "parameters", "params_digest", "wall_seconds", "seconds",
            "loss", "baseline", "bytes", "payout_total", "reserve", "remainder", "validators", "peers",
        }  # fmt: skip
        assert set(summary["seconds"]) >= {"compile", "train", "encode", "evaluate", "aggregate", "other"}
        assert sum(summary["seconds"].values()) == pytest.approx(100.0)
        assert set(summary["loss"]) == {"initial", "final"}
        assert summary["loss"]["final"] == records[-1].heldout_loss < summary["loss"]["initial"]
        assert set(summary["bytes"]) == {"per_peer_round", "bits_per_value", "compression"}
        validator = summary["validators"][0]
        assert set(validator) >= {"name", "stake", "trust", "dividends"}
        assert (validator["trust"], validator["dividends"]) == (pytest.approx(1), pytest.approx(1))
        assert (summary["schema"], summary["config"], summary["rounds"]) == (1, "tiny", len(records))
        assert summary["params_digest"] == records[-1].params_digest
        peers = summary["peers"]
        for peer in peers:
            assert set(peer) >= {
                "name", "behavior", "rating_mu", "rating_sigma", "loss_rating", "proof_of_computation",
                "peer_score", "incentive", "payout", "payout_share", "payout_share_second_half",
                "rounds_aggregated", "slashes", "refusals",
            }  # fmt: skip
        for share in ("payout_share", "payout_share_second_half"):
            assert sum(peer[share] for peer in peers) == pytest.approx(1)
        assert sum(peer["payout"] for peer in peers) == summary["payout_total"]
        units = summary["payout_total"] + summary["reserve"] + summary["remainder"] + validator["payout"]
        assert units == sum(record.emission for record in records)
    baseline = finished.simulation.summary(finished.records, 100.0)["baseline"]
    assert baseline == {"name": "adamw", "learning_rate": 1e-2, "final": finished.records[-1].baseline_loss}
    late = next(peer for peer in peers if peer["name"] == "late")
    assert (late["refusals"], late["slashes"], late["payout_share"]) == ({"late": 10}, {"late": 10}, 0.0)


def test_where_nobody_has_a_score_all_goes_to_the_reserve_and_nothing_moves(tiny, started):
    simulation = started(tiny(peer_score=lambda scores, history: 0.0))
    record = simulation.run_round()
    assert (record.reserve, record.emission, record.validators[0].payout) == (500_000, 1_000_000, 500_000)
    assert not any(peer.aggregated or peer.payout or peer.incentive for peer in record.peers)
    before = record.params_digest
    second = simulation.run_round()
    assert second.params_digest == before
    summary = simulation.summary([record, second], 1.0)
    assert summary["payout_total"] == 0
    assert [peer["payout_share"] for peer in summary["peers"]] == [0.0] * 4
