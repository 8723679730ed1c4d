"""What is wrong with a config is said in one line, before anything is compiled."""

import dataclasses
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from gauntlet_jax.build import build_simulation
from gauntlet_jax.config import CompressionConfig, Config, DataConfig, MeshConfig, PeerConfig
from gauntlet_jax.nodes.attacks import HONEST
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.training.model import DecoderConfig

TINY = Config(
    name="tiny",
    peers=(PeerConfig("ada"), PeerConfig("fay", "double_data")),
    model=DecoderConfig(width=8, layers=1, heads=1, kv_heads=1, intermediate=8),
    data=DataConfig(max_bytes=200_000, length=8, batch=4, heldout=8),
    validator=ValidatorRules(top_g=2),
    store="memory",
)

# A piece of the line -> what is changed. None of these needs the corpus.
WRONG = {
    "peers: a run needs at least one": {"peers": ()},
    "peers, validators: names must differ": {"peers": (PeerConfig("ada"), PeerConfig("ada"))},
    "peers: ada has the unknown behavior 'greedy'; known are honest": {
        "peers": (PeerConfig("ada", "greedy"),)
    },
    "peers: the name '../ada'": {"peers": (PeerConfig("../ada"),)},
    "peers: the name 'a/b'": {"peers": (PeerConfig("a/b"),)},
    "peers: the name ''": {"peers": (PeerConfig(""),)},
    "peers: the name 'reserve'": {"peers": (PeerConfig("reserve"),)},
    "data.capacity: fay trains on 2 batches, 1 may be declared": {"data": DataConfig(capacity=1)},
    "data.heldout: 9 sequences are no multiple of data.batch, 4": {"data": DataConfig(batch=4, heldout=9)},
    "times: ada uploads at 3.0 of the put window": {
        "peers": (PeerConfig("ada", dataclasses.replace(HONEST, uploads_at=3.0)),)
    },
    "times: lea uploads at 1.15 of the put window": {
        "peers": (PeerConfig("lea", "late"),),
        "times": RoundTimes(seconds=101.0, opens=0.0, closes=100.0),
    },
    "times: ada uploads at -2.0 of the put window": {
        "peers": (PeerConfig("ada", dataclasses.replace(HONEST, uploads_at=-2.0)),)
    },
}


def line_of(config: Config, folder: Path, error: type[Exception] = ValueError) -> str:
    with pytest.raises(error) as raised:
        build_simulation(config, folder)
    line = str(raised.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_config_is_told_before_anything_is_written(line: str, tmp_path: Path):
    assert line_of(dataclasses.replace(TINY, **WRONG[line]), tmp_path).startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_empty_corpus(tmp_path: Path):
    folder = tmp_path / "run"
    nowhere = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, path=str(tmp_path / "nowhere")))
    assert "nowhere" in line_of(nowhere, folder, OSError)
    (tmp_path / "empty").mkdir()
    empty = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, path=str(tmp_path / "empty")))
    assert "empty" in line_of(empty, folder, ValueError)
    assert not folder.exists()


def test_a_corpus_too_small_for_its_peers(tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {number} says {number**2}\n" for number in range(600)), encoding="utf-8")
    small = dataclasses.replace(
        TINY,
        data=dataclasses.replace(TINY.data, path=str(text), capacity=400),
    )
    assert line_of(small, tmp_path / "run").startswith("the corpus is too small")


def test_what_depends_on_the_corpus_or_the_machine(tmp_path: Path):
    model = dataclasses.replace(TINY.model, vocabulary=255)
    line = line_of(dataclasses.replace(TINY, model=model), tmp_path)
    assert line == "model.vocabulary: 255 is too small, the corpus has 256 tokens"
    line = line_of(dataclasses.replace(TINY, mesh=MeshConfig(tensor=64)), tmp_path)
    assert line.startswith("mesh: 1x1x64 (data x fsdp x tensor) needs 64 devices")
    line = line_of(
        dataclasses.replace(TINY, compression=CompressionConfig(method="sparseloco", inner_steps=3)), tmp_path
    )
    assert line == "compression.inner_steps: H = 3 must divide data.batch, 4"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("g", "why"), [(3, "larger than the number of peers, 2"), (0, "at least 1")])
def test_g_must_fit_the_peers(g: int, why: str, tmp_path: Path):
    line = line_of(dataclasses.replace(TINY, validator=ValidatorRules(top_g=g)), tmp_path)
    assert line.startswith(f"validator.top_g: G = {g}") and why in line


def test_a_baseline_needs_an_honest_peer(tmp_path: Path):
    config = dataclasses.replace(
        TINY, peers=(PeerConfig("ivy", "noise"),), validator=ValidatorRules(top_g=1), baseline="adamw"
    )
    assert line_of(config, tmp_path).startswith("baseline: ")


def test_a_run_folder_holds_ledger_store_and_checkpoints(tmp_path: Path):
    folder = tmp_path / "a run # 100%"
    folder.mkdir()
    with closing(build_simulation(dataclasses.replace(TINY, store="file"), folder)) as simulation:
        simulation.run_round()
    assert {path.name for path in folder.iterdir()} >= {"ledger.sqlite", "store", "checkpoints"}
    for name in ("ada", "fay"):
        assert (folder / "store" / name / "rounds" / "00000000" / "manifest.json").is_file()


def test_the_baseline_reads_all_that_the_honest_are_assigned(tmp_path: Path):
    with closing(build_simulation(dataclasses.replace(TINY, baseline="adamw"), tmp_path)) as simulation:
        batches = simulation._baseline.data(5)
        assignment = simulation._panel.seats[0].validator._primary_evaluation._assignment
        windows = np.concatenate([assignment.assigned(5, 0, 4), assignment.assigned(5, 1, 8)])
        np.testing.assert_array_equal(
            np.concatenate(batches),
            simulation._panel.seats[0].validator._primary_evaluation._batch_of(windows),
        )


def test_a_gradient_that_lies_elsewhere_is_encoded_under_a_mesh(tmp_path):
    peers = (PeerConfig("ada", "honest"), PeerConfig("ben", "noise"))
    config = dataclasses.replace(
        TINY,
        peers=peers,
        mesh=MeshConfig(fsdp=2, tensor=2),
        validator=dataclasses.replace(TINY.validator, top_g=1),
    )
    simulation = build_simulation(config, tmp_path)
    simulation.compile()
    record = simulation.run_round()
    simulation.close()
    assert [peer.refusal for peer in record.peers] == [None, None]


def test_blocks_cannot_be_sent_whole(tmp_path):
    whole = dataclasses.replace(TINY.compression, k=4096)
    with pytest.raises(ValueError, match=r"compression\.k: 4096 must be below"):
        build_simulation(dataclasses.replace(TINY, compression=whole), tmp_path)
    assert list(tmp_path.iterdir()) == []
