"""Two validators and six peers for hours in little: killed, cut off, slowed and joined, they lose no round and stay equal.

10 rounds and 3 kills over a real S3 server, or with --full 60 rounds and 15 kills, over a folder too.
"""

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fleet import Fleet, Home
from gate import Gate
from s3_server import s3_server

from gauntlet_jax.cli.main import main
from gauntlet_jax.nodes.public_run import PublicRun
from gauntlet_jax.nodes.record import RoundRecord
from gauntlet_jax.rewards.ledger import Posting
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.storage.endpoints import EndpointPolicy
from gauntlet_jax.storage.public_bucket import PublicReader

VALIDATORS = ("V1", "V2")
PEERS = tuple(f"P{number}" for number in range(1, 7))
STRANGERS = ("S1", "S2")
CUT, SLOW = "P3", "P4"
SECONDS = 13

CONFIG = """
import dataclasses
from small import get_config as small
from gauntlet_jax.config import FinalityConfig, PeerConfig
from gauntlet_jax.nodes.clock import RoundTimes

def get_config():
    return dataclasses.replace(
        small(),
        name="soak",
        rounds={rounds},
        slots=8,
        peers=tuple(PeerConfig(name) for name in {peers}),
        beacon="ledger",
        times=RoundTimes(seconds={seconds}, commit_closes=3, opens=4, closes=7),
        finality=FinalityConfig(weights_seconds=2, succession_seconds=2, veto_seconds=2),
        checkpoint_every=4,
    )
"""


class Storage(NamedTuple):
    """Where the nodes' buckets are, who may read them, and how one is cut off or slowed."""

    policy: EndpointPolicy
    home: Callable[[str], Home]
    cut: Callable[[bool], None]
    slow: Callable[[bool], None]


@contextlib.contextmanager
def a_folder(tmp_path: Path) -> Iterator[Storage]:
    """Buckets in one folder: one is cut off by taking it away. (A folder cannot be slow.)"""
    store, aside = tmp_path / "store", tmp_path / "aside"
    store.mkdir()

    def home(name: str) -> Home:
        return Home((store / name).as_uri(), ["--allow-folder", str(store)])

    def cut(now: bool) -> None:
        if now:
            (store / CUT).rename(aside)
            (store / CUT).write_text("in the way: its owner cannot write either")
        else:
            (store / CUT).unlink()
            aside.rename(store / CUT)

    yield Storage(EndpointPolicy(folders=(store,)), home, cut, lambda now: None)


@contextlib.contextmanager
def an_s3_server(tmp_path: Path) -> Iterator[Storage]:
    """A user and a bucket a node, two of them behind gates."""
    with s3_server() as server:
        gates = {name: Gate(server.port) for name in (CUT, SLOW)}
        allowed = [f"127.0.0.1:{port}" for port in (server.port, *(gate.port for gate in gates.values()))]
        flags = list(itertools.chain.from_iterable(("--allow-endpoint", place) for place in allowed))

        def home(name: str) -> Home:
            account = server.account(name)
            gate = gates.get(name)
            endpoint = f"http://127.0.0.1:{server.port if gate is None else gate.port}"
            return Home(
                server.url(account, endpoint=endpoint),
                flags,
                {"AWS_ACCESS_KEY_ID": account.access_key, "AWS_SECRET_ACCESS_KEY": account.secret_key},
            )

        def cut(now: bool) -> None:
            gates[CUT].open = not now

        def slow(now: bool) -> None:
            gates[SLOW].delay = 1.5 if now else 0.0

        try:
            yield Storage(EndpointPolicy(frozenset(allowed)), home, cut, slow)
        finally:
            for gate in gates.values():
                gate.close()


class Plan(NamedTuple):
    """What happens when, by round."""

    kills: dict[int, str]
    joins: dict[int, str]
    cut: range
    slow: range


def plan(rounds: int) -> Plan:
    """The same for the same number of rounds: kills spread evenly, the ledger and both validators among them."""
    draw = random.Random(0)
    count = 15 if rounds >= 60 else 3
    at = [2 + (rounds - 5) * number // count for number in range(count)]
    others = [*VALIDATORS, "ledger"]
    names = [
        others[number % 3] if count == 3 or number % 2 else draw.choice(PEERS) for number in range(count)
    ]
    third = rounds // 3
    return Plan(
        dict(zip(at, names, strict=True)),
        {third: STRANGERS[0], third + 1: STRANGERS[1]},
        range(third + 1, third + 1 + max(2, rounds // 12)),
        range(2 * third, 2 * third + max(2, rounds // 12)),
    )


@pytest.mark.slow
def pytest_generate_tests(metafunc):
    """Two minutes a storage: the harder one always, the other with --full."""
    if "storage" in metafunc.fixturenames:
        storages = [a_folder, an_s3_server] if metafunc.config.getoption("--full") else [an_s3_server]
        metafunc.parametrize("storage", storages, ids=lambda storage: storage.__name__)


def test_nothing_is_lost(tmp_path, storage, full):
    rounds = 60 if full else 10
    (tmp_path / "small.py").write_text((Path(__file__).parent / "small.py").read_text())
    config = tmp_path / "soak.py"
    config.write_text(CONFIG.format(rounds=rounds, peers=PEERS, seconds=SECONDS))
    planned = plan(rounds)
    began = time.monotonic()
    with (
        storage(tmp_path) as place,
        Fleet(tmp_path, config, place.home, seconds=150 + 2.5 * SECONDS * rounds) as fleet,
    ):
        fleet.ledger()
        for name in VALIDATORS:
            fleet.validator(name)
        for name in PEERS:
            fleet.peer(name)
        for t in fleet.rounds(rounds):
            _disturb(fleet, place, planned, t)
        names = [*VALIDATORS, *PEERS, *STRANGERS]
        digests = {name: fleet.wait_for(name, "the run is over, parameters ") for name in names}
        paid = fleet.client.balances()
        postings = [fleet.client.record(t) for t in range(rounds)]
        assert all(posting is not None and posting.final_at is not None for posting in postings)
        records = _records(fleet, place.policy, postings)
        audited = main(["audit", fleet.url, *place.home(PEERS[0]).flags])

    assert len(planned.kills) >= (15 if full else 3)
    assert {"ledger", *VALIDATORS} <= set(planned.kills.values())
    assert set(digests.values()) == {records[-1].params_digest}, digests
    assert sum(paid.values()) == 1_000_000 * rounds
    assert audited == 0  # every score and payout follows from what is public, kills or not
    ledger = SqliteLedger(tmp_path / "ledger.sqlite", time.time)
    assert ledger.verify() > 3 * rounds
    ledger.close()
    assert _most_slashes_of_an_outage(records) <= 3
    assert any(_refused(record, CUT) for record in records)
    # It did run: those who were not disturbed were accepted nearly always, and the strangers took part.
    accepted = {name: sum(_accepted(record, name) for record in records) for name in (*PEERS, *STRANGERS)}
    assert all(accepted[name] >= rounds // 4 for name in STRANGERS), accepted
    assert sum(accepted[name] for name in PEERS) >= 0.6 * rounds * len(PEERS), accepted
    ticks = round((postings[-1].start - postings[0].start) / SECONDS)
    print(
        f"\nsoak over {storage.__name__}: {rounds} rounds, {len(planned.kills)} kills, 0 lost, {ticks - rounds + 1} ticks waited,"
        f" digest {records[-1].params_digest[:12]} at {len(digests)} nodes, accepted {accepted},"
        f" {time.monotonic() - began:.0f} s"
    )


def _disturb(fleet: Fleet, place: Storage, planned: Plan, t: int) -> None:
    """What the plan has for a round that has just begun."""
    if t in planned.joins:
        fleet.peer(planned.joins[t], config=False)
    if t in (planned.cut.start, planned.cut.stop):
        place.cut(t == planned.cut.start)
    if t in (planned.slow.start, planned.slow.stop):
        place.slow(t == planned.slow.start)
    if t in planned.kills:
        name = planned.kills[t]
        # At another point of the round each time.
        time.sleep(random.Random(t).uniform(0.0, 7.0))
        fleet.kill(name)
        time.sleep(random.Random(-t).uniform(0.0, 2.0))
        fleet.restart(name)


def _records(fleet: Fleet, policy: EndpointPolicy, postings: list[Posting]) -> list[RoundRecord]:
    """The final records, from the validators' public buckets."""
    with contextlib.closing(PublicReader(policy)) as reader:
        run = PublicRun(fleet.client, run="soak", slots=8, open_bucket=reader.open, say=print)
        return [run.posted(posting).record for posting in postings]


def _accepted(record: RoundRecord, name: str) -> bool:
    return any(peer.name == name and peer.refusal is None for peer in record.peers)


def _refused(record: RoundRecord, name: str) -> bool:
    return any(peer.name == name and peer.refusal is not None for peer in record.peers)


def _most_slashes_of_an_outage(records: list[RoundRecord]) -> int:
    """The most times that a standing fell in consecutive rounds that were refused for the same reason."""
    most = 0
    for name in (*PEERS, *STRANGERS):
        falls, before, reason = 0, 1.0, None
        for record in records:
            row = next((peer for peer in record.peers if peer.name == name), None)
            if row is None:
                continue
            if row.refusal is None or row.refusal != reason:
                falls = 0
            falls += row.standing < before
            most, before, reason = max(most, falls), row.standing, row.refusal
    return most
