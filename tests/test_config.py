import dataclasses
import functools
import json
import math

import pytest

from gauntlet_jax import scoring
from gauntlet_jax.config import (
    CompressionConfig,
    Config,
    DataConfig,
    MeshConfig,
    PeerConfig,
    ScheduleConfig,
    to_json,
)
from gauntlet_jax.config_check import check
from gauntlet_jax.nodes.attacks import STALE
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.rewards.rules import RewardRules

PLAIN = Config(name="plain", peers=(PeerConfig("ada"),))

WRONG = {
    "rounds": {"rounds": 0},
    "heldout_every": {"heldout_every": 0},
    "checkpoint_every": {"checkpoint_every": 0},
    "checkpoints_kept": {"checkpoints_kept": 0},
    "baseline_learning_rate": {"baseline_learning_rate": math.inf},
    "data.length": {"data": DataConfig(length=0)},
    "data.batch": {"data": DataConfig(batch=0)},
    "data.capacity": {"data": DataConfig(capacity=0)},
    "data.max_bytes": {"data": DataConfig(max_bytes=0)},
    "data.heldout": {"data": DataConfig(batch=32, heldout=48)},
    "data.batch: 32 sequences cannot be split": {"mesh": MeshConfig(fsdp=3)},
    "compression.k": {"compression": CompressionConfig(k=0)},
    "compression.beta": {"compression": CompressionConfig(beta=1.0)},
    "compression.inner_steps": {"compression": CompressionConfig(inner_steps=0)},
    "learning_rate.peak": {"learning_rate": ScheduleConfig(peak=math.nan)},
    "learning_rate.warmup_rounds": {"learning_rate": ScheduleConfig(warmup_rounds=5, schedule_rounds=5)},
    "learning_rate.schedule_rounds": {"learning_rate": ScheduleConfig(schedule_rounds=0)},
    "mesh.tensor": {"mesh": MeshConfig(tensor=0)},
    "rewards.emission": {"rewards": RewardRules(emission=2**63)},
    "rewards.power": {"rewards": RewardRules(power=0.0)},
    "rewards.top": {"rewards": RewardRules(top=0)},
    "validator.sample_size": {"validator": ValidatorRules(sample_size=0)},
    "validator.step_fraction": {"validator": ValidatorRules(step_fraction=-0.2)},
    "validator.max_sync_score": {"validator": ValidatorRules(max_sync_score=math.nan)},
    "validator.slash_factor": {"validator": ValidatorRules(slash_factor=1.5)},
    "validator.proof_decay": {"validator": ValidatorRules(proof_decay=1.0)},
    "validator.forgiven_after": {"validator": ValidatorRules(forgiven_after=0)},
    "validator.negative_scores_exclude": {"validator": ValidatorRules(negative_scores_exclude=0)},
}


@pytest.mark.parametrize("field", WRONG)
def test_a_setting_out_of_range_is_named_in_one_line(field: str):
    with pytest.raises(ValueError) as raised:
        check(dataclasses.replace(PLAIN, **WRONG[field]))
    line = str(raised.value)
    assert line.startswith(field)
    assert "\n" not in line and len(line) < 150


def test_the_defaults_are_in_range():
    check(PLAIN)
    check(
        dataclasses.replace(
            PLAIN, validator=ValidatorRules(sample_size=5), rewards=RewardRules(top=3, emission=0)
        )
    )


def test_the_schedule_is_a_warm_up_and_a_cosine():
    schedule = ScheduleConfig(peak=1.0, warmup_rounds=4, schedule_rounds=12, final_fraction=0.2)
    rates = [float(schedule.schedule()(round)) for round in (0, 2, 4, 8, 12, 99)]
    assert rates == pytest.approx([0.1, 0.55, 1.0, 0.6, 0.2, 0.2])
    assert float(schedule.schedule(3.0)(4)) == pytest.approx(3.0)


def own_score(inputs):
    return inputs.random_loss


class Own:
    def __call__(self, scores, history):
        return 0.0


def test_a_config_is_strict_json_and_functions_stand_by_their_names():
    config = dataclasses.replace(
        PLAIN,
        peers=(PeerConfig("ada"), PeerConfig("kim", STALE)),
        build_model=functools.partial(own_score, 3, width=8),
        scores={"own": own_score},
        peer_score=Own(),
    )
    raw = json.loads(to_json(config))
    assert raw["peers"][0] == {"name": "ada", "behavior": "honest"}
    assert raw["peers"][1]["behavior"]["view"] == "gauntlet_jax.nodes.attacks:past_round"
    here = __name__
    assert raw["scores"] == {"own": f"{here}:own_score"}
    assert raw["build_model"] == {"function": f"{here}:own_score", "arguments": [3], "keywords": {"width": 8}}
    assert raw["peer_score"] == f"{here}:Own"
    assert (
        json.loads(to_json(PLAIN))["peer_score"] == f"{scoring.paper_peer_score.__module__}:paper_peer_score"
    )
    assert raw["learning_rate"]["peak"] == 4e-3
    assert to_json(config) == to_json(dataclasses.replace(config))


def test_configs_that_differ_give_other_json():
    assert to_json(PLAIN) != to_json(dataclasses.replace(PLAIN, data=DataConfig(batch=64)))


@pytest.mark.parametrize("field", ["name", "peers"])
def test_what_has_no_default_must_be_given(field: str):
    given = {"name": "x", "peers": ()}
    del given[field]
    with pytest.raises(TypeError, match=field):
        Config(**given)
