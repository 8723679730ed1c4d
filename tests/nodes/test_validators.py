"""Validators that misbehave in a simulation: what they are paid, and what they do to others."""

import dataclasses
from contextlib import closing

import pytest

from gauntlet_jax import scoring
from gauntlet_jax.build import build_simulation
from gauntlet_jax.config import PeerConfig, ValidatorConfig
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.nodes.summary import validator_summary
from gauntlet_jax.rewards.epoch import epoch_of
from gauntlet_jax.rewards.ledger import RESERVE

PEERS = ("ada", "ben", "cleo", "dov", "eva", "fay")
HONEST = (ValidatorConfig("uma", 3), ValidatorConfig("vic", 2), ValidatorConfig("wyn", 2))


@pytest.fixture(scope="module")
def judged(tiny, tmp_path_factory):
    """``(validators, **changes) -> (simulation, records)``; runs of other lengths and rules share compiled steps on disk."""
    opened = []

    def play(validators, *, rounds, sample_size=None, seed=0, peers=PEERS):
        config = tiny(
            seed=seed,
            rounds=rounds,
            peers=tuple(one if isinstance(one, PeerConfig) else PeerConfig(one) for one in peers),
            validators=validators,
            validator=ValidatorRules(top_g=3, max_sync_score=1.5, sample_size=sample_size),
            peer_score=scoring.gated_peer_score(threshold=0.5),
            heldout_every=100,
        )
        simulation = build_simulation(config, tmp_path_factory.mktemp("judged"))
        opened.append(simulation)
        return simulation, [simulation.run_round() for _ in range(rounds)]

    yield play
    for simulation in opened:
        simulation.close()


def per_stake(records) -> dict[str, float]:
    """Each validator's dividends for its stake; 1 is an equal share."""
    rows = [validator_summary(one.name, records) for one in records[-1].validators]
    whole = sum(row["stake"] for row in rows)
    return {row["name"]: row["dividends"] / row["stake"] * whole for row in rows}


def test_every_validator_draws_its_own_sample(judged):
    simulation, _ = judged(HONEST, rounds=6, sample_size=2)
    evaluated = [
        [history.evaluations for history in seat.validator._memory.histories]
        for seat in simulation._panel.seats
    ]
    assert all(sum(counts) == 12 for counts in evaluated)
    assert len({tuple(counts) for counts in evaluated}) > 1


def test_a_silent_lead_is_succeeded_and_earns_nothing(judged):
    silent = (ValidatorConfig("zoe", 9, behavior="silent"), *HONEST)
    _, records = judged(silent, rounds=3)
    assert {record.validator for record in records} == {"uma"}
    assert per_stake(records)["zoe"] == 0
    assert records[-1].validators[0].trust is None
    assert sum(per_stake(records).values()) > 3


def test_a_lead_that_lies_is_vetoed_unless_it_has_half_of_the_stake(judged):
    def lead(stake):
        return (ValidatorConfig("lex", stake, behavior="lying_lead", friend="fay"), *HONEST)

    honest = judged(HONEST, rounds=3)[1]
    _, records = judged(lead(6), rounds=3)
    assert {record.validator for record in records} == {"uma"}
    for record, expected in zip(records, honest, strict=True):
        assert record.validators[0].vetoed == "its parameters do not follow from its artifacts"
        assert record.params_digest == expected.params_digest
    # Its own weights are honest; who lies in its record has no say for that round all the same.
    assert per_stake(records)["lex"] == 0 and records[-1].validators[0].trust is None
    _, records = judged(lead(7), rounds=3)  # exactly half cannot be overruled
    assert {record.validator for record in records} == {"lex"}
    assert records[-1].params_digest != honest[-1].params_digest
    assert per_stake(records)["lex"] == pytest.approx(1, rel=1e-3)


def test_a_liar_lifts_nobody_above_what_the_others_give_and_loses_its_dividends(judged):
    liar = ValidatorConfig("yan", 6, behavior="liar", friend="fay")
    honest = judged(HONEST, rounds=6)[1]
    simulation, records = judged((liar, *HONEST), rounds=6)
    for record, expected in zip(records, honest, strict=True):
        given = {peer.name: peer.consensus for peer in record.peers}
        assert given == pytest.approx({peer.name: peer.consensus for peer in expected.peers})
        epoch = simulation._ledger.epoch(record.round)
        assert epoch.trust["yan"] == pytest.approx(given["fay"])
    paid = [sum(record.peers[5].payout for record in run) for run in (honest, records)]
    assert paid[1] <= 1.9 * paid[0]  # its stake counts, up to the consensus
    assert per_stake(records)["yan"] < 0.5 * min(per_stake(records)[name] for name in ("uma", "vic", "wyn"))


def test_a_copier_is_a_round_late(judged):
    simulation, records = judged((*HONEST, ValidatorConfig("xia", 2, behavior="copier")), rounds=5)
    ledger = simulation._ledger
    assert "xia" not in ledger.weights(0)  # there was nothing to copy yet
    for t in range(1, 5):
        assert ledger.weights(t)["xia"] == pytest.approx(ledger.weights(t - 1)["uma"])
        assert ledger.weights(t)["xia"] != pytest.approx(ledger.weights(t)["uma"])
    assert records[-1].validators[3].trust < 1


@pytest.mark.slow(full_only=True)
def test_what_a_copier_earns(judged, full, capsys):
    """Where honest validators evaluate everybody, far less than those it copies. Where each evaluates a few, they disagree with
    each other more than with a mean of theirs a round ago: then it takes a longer time between commit and reveal."""
    validators = (*HONEST, ValidatorConfig("xia", 2, behavior="copier"))
    seeds, rounds = (range(3), 40) if full else (range(1), 24)
    for seed in seeds:
        _, records = judged(validators, rounds=rounds, seed=seed)
        paid = per_stake(records)
        print(f"\nall evaluated, seed {seed}: { ({name: round(part, 2) for name, part in paid.items()}) }")
        assert paid["xia"] < 0.7 * min(paid[name] for name in ("uma", "vic", "wyn"))
    late: dict[int, list[float]] = {}
    for seed in seeds:
        simulation, records = judged(validators, rounds=rounds, sample_size=2, seed=seed)
        for delay in (0, 1, 3, 5, 8):
            late.setdefault(delay, []).append(_copied(simulation._ledger, rounds, delay))
    with capsys.disabled():
        for delay, ratios in late.items():
            told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(
                f"\n2 of 6 evaluated, copied {delay} rounds late: {told} of what those it copies earn", end=""
            )
    mean = {delay: sum(ratios) / len(ratios) for delay, ratios in late.items()}
    assert mean[8] < mean[3] < mean[0]
    assert mean[8] < 0.85 and mean[0] > 1


def _copied(ledger, rounds: int, delay: int) -> float:
    """What a copier of the honest validators' weights of ``delay`` rounds ago earns, as a part of what they do, for its stake."""
    stakes = {one.name: float(one.stake) for one in HONEST}
    whole, copier = sum(stakes.values()), 2.0
    bonds, paid = {}, dict.fromkeys([*stakes, "copier"], 0)
    for t in range(rounds):
        weights = {name: ledger.weights(t)[name] for name in stakes}
        if t >= delay:
            past = ledger.weights(t - delay)
            weights["copier"] = {
                peer: sum(stake * past[name].get(peer, 0.0) for name, stake in stakes.items()) / whole
                for peer in (*PEERS, RESERVE)
            }
        epoch = epoch_of(
            t, weights, stakes={**stakes, "copier": copier}, peers=PEERS, bonds=bonds, emission=10**9
        )
        bonds = epoch.bonds
        for name in paid:
            paid[name] += epoch.payouts.get(name, 0)
    return (paid["copier"] / copier) / (sum(paid[name] for name in stakes) / whole)


def test_a_panel_without_a_judge_is_refused(tiny, tmp_path):
    nobody = (ValidatorConfig("xia", 1, behavior="copier"), ValidatorConfig("zoe", 1, behavior="silent"))
    with pytest.raises(ValueError, match="none of them judges"):
        build_simulation(tiny(validators=nobody), tmp_path)


@pytest.mark.parametrize(
    ("validator", "line"),
    [
        (ValidatorConfig(behavior="lier"), "the unknown behavior 'lier'; known are honest, copier"),
        (ValidatorConfig(behavior="liar"), "is a liar and needs a friend"),
        (ValidatorConfig(behavior="liar", friend="nobody"), "friend 'nobody' is none of"),
    ],
)
def test_a_validator_that_cannot_be(tiny, tmp_path, validator, line):
    with pytest.raises(ValueError, match=line):
        build_simulation(tiny(validators=(validator,)), tmp_path)


def test_a_run_with_several_validators_goes_on_to_the_same_bits(tiny, tmp_path):
    config = tiny(
        peers=tuple(map(PeerConfig, PEERS)),
        validators=(*HONEST, ValidatorConfig("xia", 2, behavior="copier")),
        validator=ValidatorRules(top_g=3, sample_size=2),
        rounds=6,
    )
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    with closing(build_simulation(config, tmp_path / "whole")) as whole:
        expected = [whole.run_round() for _ in range(6)]
        head = whole._ledger.head()
    with closing(build_simulation(config, tmp_path / "parts")) as first:
        records = [first.run_round() for _ in range(4)]
        first.save_checkpoint()
    with closing(build_simulation(dataclasses.replace(config), tmp_path / "parts")) as second:
        second.restore()
        records += [second.run_round() for _ in range(2)]
        assert records == expected and second._ledger.head() == head
