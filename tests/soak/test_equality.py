"""A run of processes without faults is the simulation: the same parameters to the bit, and the same payouts."""

import dataclasses
from collections import Counter
from contextlib import closing
from pathlib import Path

from fleet import Fleet, Home

from gauntlet_jax.build import build_simulation
from gauntlet_jax.cli.overrides import load_config
from gauntlet_jax.config import Config

CONFIG = Path(__file__).parent / "small.py"
NODES = ("V1", "V2", "P1", "P2", "P3", "P4")


def test_processes_give_the_simulation_digest_and_payouts(tmp_path):
    config = load_config(str(CONFIG), Config)
    (tmp_path / "simulation").mkdir()
    # The simulation judges as the lead does, on the same beacon and with the same slots.
    with closing(
        build_simulation(dataclasses.replace(config, store="memory"), tmp_path / "simulation")
    ) as simulation:
        records = [simulation.run_round() for _ in range(config.rounds)]
    expected = Counter({"reserve": sum(record.reserve for record in records)})
    for record in records:
        expected.update({peer.name: peer.payout for peer in record.peers})

    store = tmp_path / "store"
    store.mkdir()

    def home(name: str) -> Home:
        return Home((store / name).as_uri(), ["--allow-folder", str(store)])

    with Fleet(tmp_path, CONFIG, home, seconds=150) as fleet:
        fleet.ledger()
        fleet.validator("V1")
        fleet.validator("V2")
        for peer in config.peers:
            fleet.peer(peer.name, behavior=peer.behavior)
        digests = {name: fleet.wait_for(name, "the run is over, parameters ") for name in NODES}
        paid = fleet.client.balances()

    assert set(digests.values()) == {records[-1].params_digest}
    assert paid == dict(expected)
    assert len({peer.behavior for peer in config.peers}) > 2  # cheats too
