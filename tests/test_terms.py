"""A run's terms: what a ledger hands out is enough to take part, and whoever has another config is told what differs."""

import copy
import dataclasses
import json

import jax.numpy as jnp
import pytest

from gauntlet_jax.cli.overrides import load_config
from gauntlet_jax.config import Config, DataConfig, PeerConfig
from gauntlet_jax.terms import check_terms, config_of, terms_of

LOCAL = load_config("configs/local.py", Config)


def test_a_stranger_gets_the_founders_config_from_the_terms_alone():
    terms = json.loads(json.dumps(terms_of(LOCAL)))
    found = config_of(terms)
    for name in (
        "model",
        "data",
        "compression",
        "learning_rate",
        "times",
        "finality",
        "validator",
        "rewards",
    ):
        assert getattr(found, name) == getattr(LOCAL, name)
    assert [peer.name for peer in found.peers] == ["P1", "P2", "P3", "P4", "P5", "P6"]
    assert (found.name, found.slots, found.commit_reveal, found.beacon) == ("local", 8, True, "ledger")
    check_terms(LOCAL, terms)


def test_where_a_node_keeps_its_text_and_its_devices_are_its_own_business():
    moved = dataclasses.replace(
        LOCAL, data=dataclasses.replace(LOCAL.data, path="/elsewhere"), store="memory", checkpoints_kept=9
    )
    assert terms_of(moved) == terms_of(LOCAL)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"seed": 7}, r"seed is 7 here and 0 in the run's terms"),
        ({"name": "other"}, r"run is 'other' here and 'local' there" + "|run is 'other' here and 'local' in"),
        ({"data": DataConfig(length=32, heldout=256)}, r"config\.data\.length is 32 here and 64 in"),
        ({"peers": (PeerConfig("ada"),)}, r"peers is \['ada'\] here"),
        ({"peer_score": max}, r"config\.functions\.peer_score is .* here"),
    ],
)
def test_the_first_difference_is_named(changes, line):
    with pytest.raises(ValueError, match=line):
        check_terms(dataclasses.replace(LOCAL, **changes), terms_of(LOCAL))


def test_a_model_made_by_code_needs_its_config():
    def build(key):
        return {"w": jnp.zeros(3)}, lambda params, batch: jnp.sum(params["w"])

    terms = terms_of(dataclasses.replace(LOCAL, build_model=build))
    with pytest.raises(ValueError, match=r"the run's model is made by .*build: give the config file"):
        config_of(json.loads(json.dumps(terms)))


def test_a_veto_that_outlasts_the_round_is_refused():
    slow = dataclasses.replace(LOCAL, finality=dataclasses.replace(LOCAL.finality, veto_seconds=7.0))
    with pytest.raises(
        ValueError, match=r"finality: weights_seconds \+ veto_seconds, 9\.0, is more than a round has left"
    ):
        terms_of(slow)


def test_another_protocol_is_told_before_anything_else():
    with pytest.raises(ValueError, match="follows version 99 of the protocol"):
        config_of({"protocol": 99})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["run"], 3),
        (["peers"], "P1"),
        (["peers"], [1]),
        (["validators"], [{"name": "V1", "stake": "much", "key": None}]),
        (["beacon"], "moon"),
        (["config", "rounds"], 1.5),
        (["config", "rounds"], 10**400),
        (["config", "model"], {"width": -3}),
        (["config", "model", "width"], "wide"),
        (["config", "data", "batch"], 0),
        (["config", "times", "closes"], -1.0),
        (["config", "functions"], None),
        (["config"], None),
    ],
)
def test_terms_that_no_run_has_are_refused_in_one_line(path, value):
    terms = copy.deepcopy(terms_of(LOCAL))
    place = terms
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ValueError) as error:
        config_of(terms)
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)
