"""A run of processes without faults is the simulation: the same parameters to the bit, and the same payouts."""

import dataclasses
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from fleet import Fleet, Home

from gauntlet_jax.build import build_simulation
from gauntlet_jax.cli.main import main
from gauntlet_jax.cli.overrides import load_config
from gauntlet_jax.config import Config

CONFIG = Path(__file__).parent / "small.py"
NODES = ("V1", "V2", "P1", "P2", "P3", "P4")


# In `make test` the simulation's digest is asked of processes in test_several_hosts.py, and an audit of them in test_soak.py.
@pytest.mark.slow(full_only=True)
def test_processes_give_the_simulation_digest_and_payouts_and_stand_an_audit(tmp_path, capsys):
    config = load_config(str(CONFIG), Config)
    (tmp_path / "simulation").mkdir()
    # The simulation has the same validators, on the same beacon and with the same slots.
    with closing(
        build_simulation(dataclasses.replace(config, store="memory"), tmp_path / "simulation")
    ) as simulation:
        records = [simulation.run_round() for _ in range(config.rounds)]
    expected = Counter()
    for record in records:
        expected.update({"reserve": record.reserve, "remainder": record.remainder})
        expected.update({one.name: one.payout for one in (*record.peers, *record.validators)})

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
        sound, altered = _audits(fleet.url, store, capsys)

    assert set(digests.values()) == {records[-1].params_digest}
    assert paid == dict(expected)
    assert "everything follows: 4 rounds, " in sound
    assert "differs: round 1, P2" in altered
    assert len({peer.behavior for peer in config.peers}) > 2  # cheats too


def _audits(url: str, store: Path, capsys) -> tuple[str, str]:
    """What an audit says of the run as anybody may read it, and what of one in which a bit was changed afterwards."""
    capsys.readouterr()
    audit = ["audit", url, "--allow-folder", str(store)]
    code = main(audit)
    sound = capsys.readouterr()
    assert code == 0, sound
    payload = next(
        path for path in (store / "P2" / "rounds" / "00000001").rglob("*") if path.parent.name == "c"
    )
    data = payload.read_bytes()
    payload.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert main(audit) == 1
    return sound.out, capsys.readouterr().out
