"""The arithmetic of a plan: what lies on a device, what fits, how long a round takes, and what is advised."""

import dataclasses
import json

import pytest

from gauntlet_jax.config import CompressionConfig, Config, DataConfig, MeshConfig, PeerConfig
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.planning.advice import Advice, advise, candidates, expected
from gauntlet_jax.planning.chips import GIB, Chip
from gauntlet_jax.planning.compilation import Outcome
from gauntlet_jax.planning.compiled_program import Analysis, Memory, bytes_wanted
from gauntlet_jax.planning.notes import notes_of
from gauntlet_jax.planning.plan import Assumptions, make_plan, seconds_of
from gauntlet_jax.planning.plan_record import as_json
from gauntlet_jax.planning.round_steps import Resident, runs_in_round
from gauntlet_jax.planning.topology import Topology
from gauntlet_jax.training.model import DecoderConfig

CHIP = Chip("toy", "tpu", 1000, flops=100.0, bandwidth=10.0, links=2.0, axes=2)
TOPOLOGY = Topology("toy:2x2", CHIP, (2, 2))
ASSUMED = Assumptions(efficiency=0.5, bandwidth_efficiency=0.5, uplink=10.0, downlink=20.0)
KEPT = {"peer": Resident(100, 50, 200), "validator": Resident(100, 0, 0)}
RUNS = {
    "peer": {"inner steps": 1, "encode": 1, "add": 3, "apply": 1},
    "validator": {"evaluate": 4, "add": 3, "apply": 1},
}


def compiled(name, peak, *, flops=0, moved=0, sent=0, loops=()):
    memory = Memory(arguments=peak // 2, outputs=30, temporaries=peak - peak // 2 - 20, aliased=10, code=0)
    assert memory.peak == peak
    return Outcome(
        name, Analysis(memory, flops, moved, {"all-reduce": sent} if sent else {}, loops), "", None, 2.0
    )


def plan(*outcomes, **changes):
    given = {
        "devices": 4,
        "resident": KEPT,
        "runs": RUNS,
        "parameters": 7,
        "artifact": 40,
        "slots": 6,
        "places": 3,
        "assumptions": ASSUMED,
    }
    return make_plan(TOPOLOGY, outcomes, **{**given, **changes})


def test_what_lies_beside_a_step_is_what_it_does_not_take():
    made = plan(
        compiled("inner steps", 700),
        compiled("encode", 400),
        compiled("add", 200),
        compiled("evaluate", 500),
        compiled("a step of tomorrow", 100),
    )
    beside = {step.name: step.beside for step in made.steps}
    # A peer holds 350: inner steps take parameters and optimizer, encoding the residual; a validator holds parameters alone.
    assert beside == {
        "inner steps": 50,
        "encode": 300,
        "add": 350,
        "evaluate": 0,
        "a step of tomorrow": 350,
    }
    assert made.peak == 750 and made.fits and made.short == 0


@pytest.mark.parametrize(("peak", "fits", "short"), [(950, True, 0), (951, False, 1)])
def test_it_fits_up_to_the_last_byte(peak, fits, short):
    made = plan(compiled("inner steps", peak), compiled("add", 100))
    assert (made.fits, made.short) == (fits, short)
    assert [step.name for step in made.refused] == ([] if fits else ["inner steps"])


def test_what_the_compiler_refuses_does_not_fit_by_what_it_says():
    refused = Outcome("inner steps", None, "Ran out of memory", 1500, 1.0)
    made = plan(refused, compiled("encode", 800))
    assert [step.name for step in made.refused] == ["inner steps", "encode"]
    assert made.peak == 1550 and made.short == 550 and made.rounds == {}
    silent = plan(refused._replace(wanted=None))
    assert silent.peak is None and silent.short is None and not silent.fits


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 25.50G of 15.75G hbm.",
            int(25.5 * GIB),
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (372.53G)"
            " exceeds available HBM (15.75G).",
            int(372.53 * GIB),
        ),
        ("RESOURCE_EXHAUSTED: too much", None),
        ("INVALID_ARGUMENT: Used 25.50G of 15.75G hbm.", None),
    ],
)
def test_messages_of_compilers(message, wanted):
    assert bytes_wanted(message) == wanted


def test_the_slowest_unit_decides():
    analysis = Analysis(
        Memory(0, 0, 0, 0, 0), flops=500, moved=40, sent={"all-reduce": 3, "all-gather": 4}, unknown_loops=()
    )
    assert seconds_of(analysis, CHIP, ASSUMED) == {"compute": 10.0, "memory": 8.0, "links": 7.0}
    step = plan(compiled("encode", 100, flops=500, moved=100, sent=7)).steps[0]
    assert (step.seconds, step.bound) == (20.0, "memory")


def test_a_round_by_hand():
    made = plan(
        compiled("inner steps", 100, flops=500),
        compiled("encode", 100, moved=5),
        compiled("add", 100, sent=2),
        compiled("apply", 100, flops=50),
        compiled("evaluate", 100, flops=300),
    )
    peer, validator = made.rounds["peer"], made.rounds["validator"]
    assert (peer.training, peer.compute) == (10.0, 10 + 1 + 3 * 2 + 1)
    assert (peer.upload, peer.download) == (4.0, 3 * 2.0)
    assert peer.seconds == 28.0 and peer.utilisation == 18 / 28
    assert (validator.training, validator.compute, validator.upload) == (0.0, 4 * 6 + 3 * 2 + 1, 0.0)
    assert validator.download == 6 * 2.0  # everybody's


CONFIG = Config(
    name="toy",
    peers=tuple(PeerConfig(f"P{number}") for number in range(6)),
    model=DecoderConfig(),
    data=DataConfig(batch=64, heldout=128),
    mesh=MeshConfig(data=2, fsdp=2),
    validator=ValidatorRules(sample_size=4, top_g=3),
    heldout_every=2,
    times=RoundTimes(seconds=40, opens=10, closes=30),
)


def test_how_often_steps_run():
    runs = runs_in_round(CONFIG)
    assert runs["peer"]["gradient"] == runs["peer"]["apply"] == 1 and runs["peer"]["add"] == 3
    assert runs["validator"]["evaluate"] == 4 and runs["validator"]["inspect"] == 6
    assert (
        runs["validator"]["loss"] == 1 + 2 / 2
    )  # the random batch, and two held-out batches every other round
    sampled = dataclasses.replace(CONFIG, validator=ValidatorRules(sample_batches=2))
    runs = runs_in_round(sampled)
    assert runs["validator"]["loss of a sample"] == 1 and runs["validator"]["loss"] == 1
    assert runs["validator"]["evaluate"] == 6


def test_notes_name_what_a_number_does_not_tell():
    fine = plan(compiled("encode", 100, flops=50), compiled("evaluate", 10))
    assert notes_of(CONFIG, fine) == [
        "a validator reads and judges for 12 s, after the put window it has 10: times.seconds is too short"
    ]
    slow = plan(
        compiled("inner steps", 100, flops=2000, loops=("while.1",)),
        devices=2,
        assumptions=ASSUMED._replace(uplink=1.0),
    )
    told = notes_of(CONFIG, slow)
    assert told[0] == "mesh takes 2 of 4 chips: the others would idle"
    assert told[1] == "1 loops do not tell how often they turn, and count once"
    assert told[2].startswith("an upload takes 40 s, the put window has 20")
    assert told[3].startswith("a peer computes and uploads for 80 s, its put window closes after 30")


def test_stand_ins_are_said_to_be_so():
    card = Topology("h100:4", CHIP._replace(kind="gpu"), (4,))
    made = plan(compiled("encode", 100))._replace(topology=card)
    assert "in place of toy" in notes_of(CONFIG, made)[0]


def large(peak):
    """Inner steps of this peak, almost all of it temporaries."""
    return Outcome("inner steps", Analysis(Memory(10, 0, peak - 10, 0, 0), 0, 0, {}, ()), "", None, 2.0)


def advised(config, fits):
    """Advice where ``fits`` says what fits; and what was tried."""
    tried = []

    def judge(changed, names):
        assert names == {"inner steps"}
        tried.append(changed)
        return plan(large(100 if fits(changed) else 1950))

    return advise(config, plan(large(1950), compiled("add", 100)), judge), tried


def test_recomputing_is_tried_first():
    advice, tried = advised(CONFIG, lambda config: config.model.remat)
    assert advice == Advice("--model.remat", (("--model.remat", 150),), None) and len(tried) == 1


def test_then_fewer_sequences_at_a_time_from_what_is_expected_to_fit():
    advice, tried = advised(CONFIG, lambda config: config.model.microbatch == 16)
    assert advice.flags == "--model.microbatch 16" and tried[-1].data == CONFIG.data
    # Of 1940 bytes of temporaries beside 60 others 940 have room: 31 of 64 sequences, so 32 is not tried.
    assert [config.model.microbatch for config in tried] == [None, 16]


def test_then_the_mesh():
    advice, _ = advised(CONFIG, lambda config: config.mesh.fsdp == 4)
    assert advice.flags == "--mesh.data 1 --mesh.fsdp 4"
    advice, _ = advised(CONFIG, lambda config: config.mesh.tensor == 2)
    assert advice.flags == "--mesh.data 1 --mesh.tensor 2"


def test_a_model_of_ones_own_gets_a_smaller_batch():
    own = dataclasses.replace(CONFIG, build_model=lambda key: ({}, lambda params, batch: 0.0))
    advice, _ = advised(own, lambda config: config.data.batch <= 8)
    assert advice.flags == "--data.batch 8"
    assert not [each.flags for each in candidates(own, TOPOLOGY, sequences=64) if "--model" in each.flags]


def test_and_the_settings_together():
    advice, _ = advised(CONFIG, lambda config: config.model.remat and config.mesh.fsdp == 4)
    assert advice.flags == "--model.remat --mesh.data 1 --mesh.fsdp 4 --model.microbatch 16"


def test_where_nothing_helps_it_says_how_many_chips_would():
    advice, tried = advised(CONFIG, lambda config: False)
    assert advice.flags == "" and advice.chips == 4 * 2  # 2000 bytes on each of 4 devices of 1000
    assert 0 < len(tried) <= 8 and len(advice.tried) == len(tried)


def test_batches_are_left_alone_where_a_step_without_one_does_not_fit():
    made = plan(compiled("encode", 900))
    assert not made.fits and expected(CONFIG, made) == 0.0
    flags = [each.flags for each in candidates(CONFIG, TOPOLOGY, sequences=0.0)]
    assert flags and not [each for each in flags if "batch" in each]


def test_candidates_are_configs_that_can_run():
    sparse = dataclasses.replace(
        CONFIG,
        data=dataclasses.replace(CONFIG.data, batch=96, heldout=96),
        compression=CompressionConfig(method="sparseloco", inner_steps=12),
    )
    flags = [each.flags for each in candidates(sparse, TOPOLOGY, sequences=96)]
    # A step has 8 sequences, its half is the 4 shares of the mesh.
    assert {"--model.microbatch 8", "--model.microbatch 4", "--data.batch 48"} <= set(flags)
    assert not {"--model.microbatch 2", "--data.batch 24"} & set(flags) and len(set(flags)) == len(flags)
    assert all(each.config != sparse for each in candidates(sparse, TOPOLOGY, sequences=96))


def test_the_record_keeps_its_schema():
    made = plan(
        compiled("inner steps", 990, flops=500, sent=2), Outcome("encode", None, "too much", None, 1.0)
    )
    record = json.loads(
        json.dumps(as_json(CONFIG, made, ["a note"], Advice("", (("--model.remat", None),), 9)))
    )
    assert set(record) == {
        *(
            "schema",
            "config",
            "topology",
            "chip",
            "chips",
            "devices",
            "mesh",
            "stand_in",
            "fits",
            "memory",
            "peak",
        ),
        *(
            "short",
            "parameters",
            "artifact_bytes",
            "resident",
            "steps",
            "rounds",
            "assumptions",
            "notes",
            "advice",
        ),
    }
    assert record["schema"] == 1 and record["fits"] is False and record["peak"] is None
    assert record["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1} and record["chips"] == 4
    first, second = record["steps"]
    assert (
        set(first)
        == set(second)
        == {
            *(
                "name",
                "fits",
                "peak",
                "beside",
                "refusal",
                "memory",
                "flops",
                "moved_bytes",
                "sent_bytes",
                "runs",
            ),
            *("seconds", "bound", "unknown_loops", "compile_seconds"),
        }
    )
    assert first["memory"] == {"arguments": 495, "outputs": 30, "temporaries": 475, "aliased": 10, "code": 0}
    assert first["sent_bytes"] == {"all-reduce": 2} and first["runs"] == {"peer": 1} and first["peak"] == 1040
    assert second["memory"] is None and second["refusal"] == "too much"
    assert record["advice"] == {"flags": "", "tried": [{"flags": "--model.remat", "peak": None}], "chips": 9}
    assert record["resident"]["peer"] == {"params": 100, "residual": 50, "optimizer": 200}
