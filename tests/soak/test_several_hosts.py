"""A peer of two processes with four devices each, in a run with nodes of one process with eight: all hold the same parameters."""

import contextlib
import dataclasses
import socket
from contextlib import closing
from pathlib import Path

from fleet import Fleet, Home

from gauntlet_jax.build import build_simulation
from gauntlet_jax.cli.overrides import load_config
from gauntlet_jax.config import Config

CONFIG = Path(__file__).parent / "sharded.py"


def test_two_processes_of_four_devices_are_one_of_eight(tmp_path):
    config = load_config(str(CONFIG), Config)
    (tmp_path / "simulation").mkdir()
    with closing(
        build_simulation(dataclasses.replace(config, store="memory"), tmp_path / "simulation")
    ) as simulation:
        expected = [simulation.run_round() for _ in range(config.rounds)][-1].params_digest
    store = tmp_path / "store"
    store.mkdir()
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"

    def home(name: str) -> Home:
        devices = "4" if name.startswith("P1") else "8"
        return Home(
            (store / name.split("-", maxsplit=1)[0]).as_uri(),
            ["--allow-folder", str(store)],
            {"JAX_NUM_CPU_DEVICES": devices},
        )

    with Fleet(tmp_path, CONFIG, home, seconds=200) as fleet:
        fleet.ledger()
        fleet.validator("V1")
        fleet.peer("P1", hosts=(coordinator, 2))
        fleet.peer("P2")
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
    parts = sorted(path.name for path in (store / "P1" / "rounds" / "00000001").iterdir() if path.is_dir())
    assert parts == ["payload", "payload_0", "payload_1", "payload_2", "payload_3"]
