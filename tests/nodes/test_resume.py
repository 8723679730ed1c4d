import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gauntlet_jax.build import build_simulation
from gauntlet_jax.config import PeerConfig
from gauntlet_jax.nodes.record import to_json


def _run_to(simulation, rounds: int) -> list[str]:
    lines = []
    while simulation.round < rounds:
        lines.append(to_json(simulation.run_round()))
    return lines


def test_a_run_goes_on_to_the_same_bits(finished, tmp_path: Path):
    """Also the test that a seed gives the same run twice: these processes share nothing with ``finished``."""
    whole = [to_json(record) for record in finished.records]

    # The first process does not know how far the run will go, and dies after rounds that no checkpoint holds.
    with closing(build_simulation(dataclasses.replace(finished.config, rounds=6), tmp_path)) as first:
        assert _run_to(first, 2) == whole[:2]
        first.save_checkpoint()
        assert _run_to(first, 4) == whole[2:4]
        first.save_checkpoint()
        assert _run_to(first, 6) == whole[4:6]
        assert first._ledger.head() == finished.heads[5]

    with closing(build_simulation(dataclasses.replace(finished.config, rounds=8), tmp_path)) as second:
        assert second.restore() == []
        assert second.round == 4
        assert second._clock.time == 4 * 60.0
        assert _run_to(second, 8) == whole[4:8]
        assert second._ledger.head() == finished.heads[7]
        second.save_checkpoint()

    newest = sorted(path for path in (tmp_path / "checkpoints" / "8").rglob("*") if path.is_file())
    largest = max(newest, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"?")
    with closing(build_simulation(finished.config, tmp_path)) as third:
        (line,) = third.restore()
        assert line.startswith("checkpoint of round 8 is corrupt") and line.endswith(
            "using the one of round 4"
        )
        assert third.round == 4
        assert _run_to(third, 10) == whole[4:]
        assert third._ledger.head() == finished.heads[-1]
        third._ledger.verify()
        before = third.summary(finished.records, 1.0)
    after = finished.simulation.summary(finished.records, 1.0)
    assert before.pop("seconds") != after.pop("seconds")
    assert before == after


def test_another_seed_is_another_run(finished, tmp_path: Path):
    config = dataclasses.replace(finished.config, seed=1, store="memory")
    with closing(build_simulation(config, tmp_path)) as other:
        record = other.run_round()
    first = finished.records[0]
    assert record.params_digest != first.params_digest
    assert all(
        ours.scores != theirs.scores
        for ours, theirs in zip(record.peers, first.peers, strict=True)
        if ours.scores
    )


def test_a_replayed_round_sees_no_upload_of_its_own_future(tiny, tmp_path: Path):
    """A copycat comes before the late peer, and must not find what the killed process left in its bucket."""
    config = tiny(
        peers=(PeerConfig("lea", "late"), PeerConfig("ada"), PeerConfig("gus", "copycat")),
        peer_score=lambda scores, history: 0.0,  # nobody is paid, so the copycat goes by the order of names
        store="file",
    )
    with closing(build_simulation(config, tmp_path)) as first:
        first.run_round()
        first.save_checkpoint()
        before = first.run_round()
    with closing(build_simulation(config, tmp_path)) as second:
        second.restore()
        assert second.run_round() == before
    assert [peer.detail for peer in before.peers][2] == "same payload as ada"


def test_the_ledger_is_on_disk_before_a_checkpoint_relies_on_it(tiny, started, monkeypatch):
    simulation = started(tiny())
    done = []
    monkeypatch.setattr(simulation._ledger, "flush", lambda: done.append("ledger"))
    monkeypatch.setattr(simulation._checkpoints, "save", lambda *_: done.append("checkpoint"))
    simulation.save_checkpoint()
    assert done == ["ledger", "checkpoint"]


def test_without_a_checkpoint_a_run_starts_at_its_beginning(tiny, started):
    simulation = started(tiny())
    assert simulation.restore() == []
    assert simulation.round == 0


def test_a_run_does_not_go_on_over_an_edited_ledger(tiny, tmp_path: Path):
    config = tiny(store="file")
    with closing(build_simulation(config, tmp_path)) as simulation:
        simulation.run_round()
        simulation.save_checkpoint()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as database:
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        triggers = database.execute(query).fetchall()
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        database.execute(
            "UPDATE entries SET body = replace(body, '1', '2') WHERE seq = (SELECT max(seq) FROM entries)"
        )
        for _, statement in triggers:
            database.execute(statement)
        database.commit()
    with pytest.raises(ValueError, match="entry"), closing(build_simulation(config, tmp_path)) as resumed:
        resumed.restore()
