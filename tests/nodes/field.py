"""A shared run in one process, on a clock that is moved by hand: the nodes of the field, its ledger and their buckets."""

import dataclasses
from pathlib import Path
from typing import Any

from local_ledger import LocalLedger

from gauntlet_jax.build import processes
from gauntlet_jax.build.parts import read_corpus
from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import make_task
from gauntlet_jax.config import Config
from gauntlet_jax.nodes.beacon import derive
from gauntlet_jax.nodes.clock import ManualClock
from gauntlet_jax.nodes.peer_process import PeerProcess
from gauntlet_jax.nodes.public_run import PublicRun
from gauntlet_jax.nodes.record import RoundRecord
from gauntlet_jax.nodes.validator_process import ValidatorProcess
from gauntlet_jax.rewards.beacon_chain import make_chain
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.storage.bucket import BucketUnavailable, MemoryBucket
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.terms import terms_of

SECRET = bytes(32)


class Stop:
    """In place of an event: waiting moves the clock."""

    def __init__(self, clock: ManualClock):
        self._clock = clock

    def is_set(self) -> bool:
        return False

    def wait(self, seconds: float) -> bool:
        self._clock.move_to(self._clock.time + seconds)
        return False


class CutBucket:
    """A bucket that fails while its name is among those that are cut off."""

    def __init__(self, bucket: MemoryBucket, name: str, cut: set[str]):
        self._bucket, self._name, self._cut = bucket, name, cut

    def __getattr__(self, method: str):
        if self._name in self._cut:
            raise BucketUnavailable(f"bucket {self._name} does not answer")
        return getattr(self._bucket, method)


class Field:
    """A run whose nodes a test drives.

    Attributes:
      clock: of everything.
      peers, validators: the living nodes, by name.
      said: every line of every node.
      cut: names of the buckets that do not answer.
    """

    def __init__(self, config: Config, folder: Path):
        """A run that has a ledger, and no node yet."""
        self.config = config
        self.clock = ManualClock(1000.0)
        self.peers: dict[str, PeerProcess] = {}
        self.validators: dict[str, ValidatorProcess] = {}
        self.said: list[str] = []
        self.cut: set[str] = set()
        self.buckets: dict[str, MemoryBucket] = {}
        self.stop = Stop(self.clock)
        self._folder = folder
        self.ledger = SharedRunLedger(":memory:", lambda: self.clock.time)
        terms = terms_of(config)
        anchor = make_chain(SECRET, 2 * config.rounds + 2)[0] if config.beacon == "ledger" else None
        self.ledger.found(terms, anchor=anchor, start_delay=None)
        self.ledger.begin(SECRET)

    def identity(self, name: str) -> Identity:
        """The keys of a node."""
        return Identity(derive(b"field", name))

    def open(self, address: str):
        """A public bucket by its address."""
        name = address.removeprefix("memory://")
        if name not in self.buckets:
            raise ValueError("there is no such bucket")
        return CutBucket(self.buckets[name], name, self.cut)

    def start_peer(self, name: str, *, fresh: bool = False, behavior="honest") -> PeerProcess:
        """Starts a peer, again if it was there before; ``fresh`` without its folder."""
        node, found = self._node(name, fresh)
        self.peers[name] = processes.build_peer(self.config, node, found, behavior=behavior)
        return self.peers[name]

    def start_validator(self, name: str, *, fresh: bool = False) -> ValidatorProcess:
        """Starts a validator, as ``start_peer``."""
        node, found = self._node(name, fresh)
        self.validators[name] = processes.build_validator(self.config, node, found)
        return self.validators[name]

    def begin(self) -> None:
        """Moves to the beginning of the first round."""
        while self.ledger.status().round is None:
            self.clock.move_to(self.clock.time + 0.25)

    def upload(self, *, by: Any = None) -> None:
        """All peers take up what is final, commit and upload; then the put window closes (see ``judge`` for ``by``)."""
        status = self.ledger.status()
        prepared = {}
        for name, process in self.peers.items():
            process._run.catch_up(process._replica, status.round, stop=self.stop)
            opening = process._run.opening(status)
            prepared[name] = process._peer.prepare(opening, process._replica.params)
            process._peer.commit(prepared[name])
        self.clock.move_to(opening.window.opens - 1.0)
        self.judge(by=by)  # they look at the commits
        self.clock.move_to(opening.window.opens + 0.1)
        for name, contribution in prepared.items():
            self.peers[name]._peer.upload(contribution)
        self.clock.move_to(opening.window.closes)

    def judge(self, *names: str, by: Any = None) -> None:
        """These validators (all of them without a name) judge, post or examine once each; ``by.reader`` is told who reads."""
        for name in names or tuple(self.validators):
            if by is not None:
                by.reader = name
            self.validators[name]._turn(self.ledger.status(), self.stop)

    def finish(self, *names: str, by: Any = None) -> RoundRecord:
        """These validators live on until the next round has begun; returns the final record."""
        t = self.ledger.status().round
        assert t is not None
        for _ in range(400):
            if self.ledger.status().round != t:
                return self.record(t)
            self.judge(*names, by=by)
            self.clock.move_to(self.clock.time + 0.25)
        raise AssertionError(f"round {t} never ended: {self.said[-10:]}")

    def round(self, *names: str) -> RoundRecord:
        """A whole round."""
        self.upload()
        return self.finish(*names)

    def record(self, t: int) -> RoundRecord:
        """The final record of a round."""
        posting = self.ledger.record(t)
        assert posting is not None
        run = PublicRun(
            LocalLedger(self.ledger, "", ""),
            run=self.config.name,
            slots=self.config.slots or len(self.config.peers),
            open_bucket=self.open,
            say=self.said.append,
        )
        return run.posted(posting).record

    def _node(self, name: str, fresh: bool):
        identity = self.identity(name)
        bucket = self.buckets.setdefault(name, MemoryBucket(self.clock))
        folder = self._folder / (f"{name}-{len(self.said)}" if fresh else name)
        node = processes.Node(name, identity, bucket, f"memory://{name}", folder)
        ledger = LocalLedger(self.ledger, name, identity.public_key)
        return node, processes.Surroundings(
            ledger, self.open, lambda line: self.said.append(f"{name}: {line}")
        )


def share_compiled_steps(monkeypatch, config: Config) -> None:
    """All nodes of a test use one set of compiled steps: they would make the same ones."""
    corpus = read_corpus(config)
    task = make_task(config, corpus)
    steps = Steps(config, task)
    copied = dataclasses.replace(config)
    assert copied == config
    monkeypatch.setattr(processes, "read_corpus", lambda _: corpus)
    monkeypatch.setattr(processes, "make_task", lambda *_: task)
    monkeypatch.setattr(processes, "Steps", lambda *_, **__: steps)
    monkeypatch.setattr(processes, "compile_all", lambda *_: None)
