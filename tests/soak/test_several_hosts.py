"""A peer of two processes with four devices each, in a run with nodes of one process with eight: all hold the same parameters."""

import contextlib
import dataclasses
import socket
from contextlib import closing
from pathlib import Path

import pytest
from fleet import Fleet, Home

from gauntlet_jax.build import build_simulation
from gauntlet_jax.cli.overrides import load_config
from gauntlet_jax.config import Config

CONFIG = Path(__file__).parent / "sharded.py"


@pytest.fixture
def coordinator():
    """Where a peer's first process listens for its second."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def home(tmp_path):
    """Buckets in one folder; the processes of P1 have half of the devices each."""
    store = tmp_path / "store"
    store.mkdir()

    def of(name: str) -> Home:
        devices = "4" if name.startswith("P1") else "8"
        bucket = (store / name.split("-", maxsplit=1)[0]).as_uri()
        return Home(bucket, ["--allow-folder", str(store)], {"JAX_NUM_CPU_DEVICES": devices})

    return of


def _start(fleet: Fleet, coordinator: str) -> None:
    fleet.ledger()
    fleet.validator("V1")
    fleet.peer("P1", hosts=(coordinator, 2))
    fleet.peer("P2")


def test_two_processes_of_four_devices_are_one_of_eight(tmp_path, coordinator, home):
    config = load_config(str(CONFIG), Config)
    (tmp_path / "simulation").mkdir()
    with closing(
        build_simulation(dataclasses.replace(config, store="memory"), tmp_path / "simulation")
    ) as simulation:
        expected = [simulation.run_round() for _ in range(config.rounds)][-1].params_digest
    with Fleet(tmp_path, CONFIG, home, seconds=200) as fleet:
        _start(fleet, coordinator)
        digests = {
            name: fleet.wait_for(name, "the run is over, parameters ") for name in ("V1", "P2", "P1", "P1-1")
        }
        logs = {name: fleet.log(name) for name in digests}
        for name in digests:
            assert fleet.processes[name].wait(timeout=60) == 0, fleet.log(name)

    assert len(set(digests.values())) == 1, digests
    assert set(digests.values()) == {expected}
    for name in ("P1", "P1-1"):
        # From the artifacts themselves, not from anybody's published signs.
        assert "trying the signed update" not in logs[name]
        assert logs[name].count("uploaded") == config.rounds, logs[name]
    # Each host wrote the parts that its devices hold.
    parts = sorted(
        path.name for path in (tmp_path / "store" / "P1" / "rounds" / "00000001").iterdir() if path.is_dir()
    )
    assert parts == ["payload", "payload_0", "payload_1", "payload_2", "payload_3"]


@pytest.mark.slow(full_only=True)
def test_a_host_that_is_killed_ends_its_node_which_goes_on_when_all_are_started_again(
    tmp_path, coordinator, home
):
    config = tmp_path / "longer.py"
    config.write_text(
        f"import dataclasses, sys\nsys.path.insert(0, {str(CONFIG.parent)!r})\nfrom sharded import get_config as shorter\n\n\n"
        "def get_config():\n    return dataclasses.replace(shorter(), rounds=12)\n"
    )
    with Fleet(tmp_path, config, home, seconds=420) as fleet:
        _start(fleet, coordinator)
        for _ in fleet.rounds(3):
            pass
        fleet.kill("P1-1")
        # At once where a step fails without the other, or else when its heartbeat has been missing for long enough.
        assert fleet.processes["P1"].wait(timeout=90) != 0
        fleet.restart("P1")
        fleet.restart("P1-1")
        digests = {
            name: fleet.wait_for(name, "the run is over, parameters ") for name in ("V1", "P2", "P1", "P1-1")
        }
        assert "took up its own checkpoint of round" in fleet.log("P1-1")
    assert len(set(digests.values())) == 1, digests
