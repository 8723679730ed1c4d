"""From a config and a ledger to one node of a shared run: a peer or a validator that lives in a process of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gauntlet_jax.build.parts import Data, digest_of, make_validator, read_corpus
from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import Task, make_task
from gauntlet_jax.config import Config
from gauntlet_jax.config_check import behaviors_of, check, slots_of
from gauntlet_jax.nodes.attacks import BEHAVIORS
from gauntlet_jax.nodes.beacon import LedgerBeacon, SeededBeacon
from gauntlet_jax.nodes.hosts import SOLE_HOST, Hosts
from gauntlet_jax.nodes.peer import Arrays, Behavior, Opening, Peer
from gauntlet_jax.nodes.peer_process import PeerProcess
from gauntlet_jax.nodes.public_view import artifacts_of
from gauntlet_jax.nodes.publisher import Publishing
from gauntlet_jax.nodes.replica import Replica, ReplicaSteps
from gauntlet_jax.nodes.shared_run import RunRules, SharedRun
from gauntlet_jax.nodes.stopwatch import compile_all
from gauntlet_jax.nodes.validator_process import ValidatorProcess
from gauntlet_jax.rewards.ledger import SharedLedger
from gauntlet_jax.storage.bucket import Bucket, FolderBucket, MemoryBucket, ReadableBucket
from gauntlet_jax.storage.checkpoint import Checkpoints
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.training.eval_step import mean_loss
from gauntlet_jax.types import PeerId

_READERS = 16


class Node(NamedTuple):
    """What a node brings along.

    Attributes:
      name: its public name.
      identity: its keys.
      bucket: its own, to write.
      address: its bucket's public address.
      folder: where it keeps what it goes on from after a crash.
    """

    name: PeerId
    identity: Identity
    bucket: Bucket
    address: str
    folder: Path


class Surroundings(NamedTuple):
    """What a node finds.

    Attributes:
      ledger: of the run.
      open_bucket: a public address to a bucket to read.
      say: takes a line for the node's operator.
      hosts: that the node consists of.
    """

    ledger: SharedLedger
    open_bucket: Callable[[str], ReadableBucket]
    say: Callable[[str], None]
    hosts: Hosts = SOLE_HOST


class _Parts(NamedTuple):
    task: Task
    data: Data
    steps: Steps
    run: SharedRun
    replica: Replica


def build_peer(config: Config, node: Node, found: Surroundings, *, behavior: str | Behavior) -> PeerProcess:
    """A peer that is compiled, registered and ready for its first round.

    Args:
      config: of the run.
      node: what it brings along.
      found: what it finds.
      behavior: how it behaves: "honest", or a name of ``nodes.attacks``, or an object.

    Raises:
      ValueError: a setting is wrong, or the ledger does not take it; one line says why.
      OSError: ledger, corpus or folder cannot be reached.
    """
    if isinstance(behavior, str) and behavior not in BEHAVIORS:
        raise ValueError(f"unknown behavior {behavior!r}; known are {', '.join(BEHAVIORS)}")
    acts = BEHAVIORS[behavior] if isinstance(behavior, str) else behavior
    parts = _parts(config, found, peer=True)
    ledger, run, data, steps = found.ledger, parts.run, parts.data, parts.steps

    def others(reader: PeerId, round: int) -> Iterator[tuple[PeerId, Arrays]]:
        if round < 0:
            return iter(())
        paid = ledger.balances()
        members = [member for name, member in run.members(round).items() if name != reader]
        return artifacts_of(
            sorted(members, key=lambda member: -paid.get(member.name, 0)),
            round,
            run=config.name,
            schema=steps.schema,
            max_declared=data.assignment.capacity,
            now=ledger.now(),
        )

    def peer_in(slot: int, bucket: Bucket) -> Peer:
        return Peer(
            node.identity,
            node.name,
            slot,
            acts,
            params=parts.task.params,
            steps=steps.peer,
            batch=config.data.batch,
            batches_of=data.batches_of,
            assignment=data.assignment,
            bucket=bucket,
            seed=config.seed,
            others=others,
            hosts=found.hosts,
        )

    _rehearse(peer_in(0, MemoryBucket(lambda: 0.0)), config, parts)
    checkpoints = Checkpoints(node.folder / "checkpoints", keep=config.checkpoints_kept)
    # Last, since the run may begin as soon as everybody is registered.
    slot = ledger.register_peer(node.name, node.address).slot
    assert slot is not None
    process = PeerProcess(
        run,
        peer_in(slot, node.bucket),
        parts.replica,
        bucket=node.bucket,
        hosts=found.hosts,
        checkpoints=checkpoints,
        artifacts_kept=config.artifacts_kept,
    )
    process.restore()
    return process


def _rehearse(peer: Peer, config: Config, parts: _Parts) -> None:
    """A round for nobody: what is compiled at its first use is compiled then, and not in the first window."""
    times = config.times
    commits = times.commit_window(0.0) if config.commit_reveal else None
    opening = Opening(config.name, 0, times.window(0.0), commits, bytes(32), 1e-3)
    contribution = peer.prepare(opening, parts.task.params)
    peer.commit(contribution)
    peer.upload(contribution)


def build_validator(config: Config, node: Node, found: Surroundings) -> ValidatorProcess:
    """A validator that is compiled, registered and ready for its first round; arguments and errors as for a peer."""
    parts = _parts(config, found, peer=False)
    data, steps = parts.data, parts.steps
    validator = make_validator(
        node.name,
        config,
        parts.task,
        data,
        steps,
        readers=_READERS,
        # Judged and examined must be within V: half of it is for buckets.
        wait_seconds=config.finality.veto_seconds / 2,
    )
    process = ValidatorProcess(
        parts.run,
        validator,
        parts.replica,
        Publishing(
            identity=node.identity,
            bucket=node.bucket,
            unpublished=FolderBucket(node.folder / "unpublished", lambda: 0.0),
            slots=slots_of(config),
            heldout_loss=lambda params: mean_loss(steps.loss, params, list(data.heldout)),
            heldout_every=config.heldout_every,
            signed=config.compression.method == "demo",
            checkpoints_kept=config.checkpoints_kept,
        ),
        apply=steps.apply,
        journal=node.folder / "journal.json",
    )
    found.ledger.register_validator(node.name, node.address)
    process.restore()
    return process


def _parts(config: Config, found: Surroundings, *, peer: bool) -> _Parts:
    check(config)
    behaviors_of(config)
    corpus = read_corpus(config)
    task = make_task(config, corpus)
    data, steps = Data(config, corpus, task.shardings), Steps(config, task, hosts=found.hosts)
    found.say("compiling")
    compile_all(steps.stopwatch, steps.work(peer=peer, validator=not peer))
    run = SharedRun(
        found.ledger,
        RunRules(
            run=config.name,
            rounds=config.rounds,
            slots=slots_of(config),
            times=config.times,
            commit_reveal=config.commit_reveal,
            learning_rate=config.learning_rate.schedule(),
            stakes={validator.name: validator.stake for validator in config.validators},
            succession_seconds=config.finality.succession_seconds,
            veto_seconds=config.finality.veto_seconds,
            checkpoint_every=config.checkpoint_every,
            corpus=digest_of(corpus),
        ),
        beacon=SeededBeacon(config.seed) if config.beacon == "seeded" else LedgerBeacon(found.ledger),
        open_bucket=found.open_bucket,
        say=found.say,
        hosts=found.hosts,
    )
    replica = Replica(
        task.params,
        run=config.name,
        steps=ReplicaSteps(steps.validator.inspect, steps.validator.combine, steps.apply),
        schema=steps.schema,
        reads=steps.payload.reads,
        digest=steps.digest,
        hosts=found.hosts,
        top_g=config.validator.top_g,
        max_declared=data.assignment.capacity,
        say=found.say,
    )
    return _Parts(task, data, steps, run, replica)
