"""From a config to the nodes of a simulation."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gauntlet_jax import compression
from gauntlet_jax.build.parts import Data, digest_of, make_validator, read_corpus
from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import Task, make_task
from gauntlet_jax.config import Config, config_digest, to_json
from gauntlet_jax.config_check import behaviors_of, check, validator_behaviors_of
from gauntlet_jax.nodes.attacks import BEHAVIORS
from gauntlet_jax.nodes.beacon import SeededBeacon, derive
from gauntlet_jax.nodes.clock import ManualClock
from gauntlet_jax.nodes.inspection import Member
from gauntlet_jax.nodes.panel import Panel, Seat
from gauntlet_jax.nodes.peer import Arrays, Peer
from gauntlet_jax.nodes.public_view import artifacts_of
from gauntlet_jax.nodes.simulation import Baseline, Heldout, Simulation
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.storage.bucket import open_bucket
from gauntlet_jax.storage.checkpoint import Checkpoints
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.training.baselines import AdamW
from gauntlet_jax.training.eval_step import mean_loss
from gauntlet_jax.types import PeerId

_HONEST = ("honest", "double_data")


def build_simulation(config: Config, folder: Path) -> Simulation:
    """Checks a config, loads its corpus and puts a simulation together; nothing is compiled or trained yet.

    Args:
      config: the run.
      folder: the run folder, which gets ``ledger.sqlite``, ``store/`` and ``checkpoints/``.

    Raises:
      ValueError: a setting is wrong; one line says which.
      OSError: corpus or folder cannot be read or written.
    """
    check(config)
    behaviors = behaviors_of(config)
    corpus = read_corpus(config)
    task = make_task(config, corpus)
    data = Data(config, corpus, task.shardings)
    steps = Steps(config, task)
    names = [peer.name for peer in config.peers]
    identities = {name: Identity(derive(b"simulated identity", config.seed, name)) for name in names}

    clock = ManualClock()
    roots = {name: "memory://" if config.store == "memory" else _url(folder, name) for name in names}
    buckets = {name: open_bucket(url, clock=clock) for name, url in roots.items()}
    seats = [
        Seat(
            make_validator(validator.name, config, task, data, steps),
            float(validator.stake),
            validator.behavior if isinstance(validator.behavior, str) else "custom",
            acts,
            validator.friend or "",
        )
        for validator, acts in zip(config.validators, validator_behaviors_of(config), strict=True)
    ]
    members = {
        name: Member(name, slot, buckets[name], identities[name].public_key)
        for slot, name in enumerate(names)
    }
    for seat in seats:
        for member in members.values():
            seat.validator.admit(member)
    baseline = _baseline(config, task, data, steps) if config.baseline == "adamw" else None

    ledger = SqliteLedger(folder / "ledger.sqlite", clock)
    ledger.post_inputs(config_digest(to_json(config)), digest_of(corpus))
    for name in names:
        ledger.register(name, f"store/{name}")
    for seat in seats:
        ledger.register_validator(seat.validator.name, seat.stake)

    def others(reader: PeerId, round: int) -> Iterator[tuple[PeerId, Arrays]]:
        """What the other peers' public buckets hold so far, best paid in the round before first."""
        if round < 0:
            return iter(())
        before = ledger.epoch(round - 1) if round else None
        weights = {} if before is None else before.incentive
        return artifacts_of(
            sorted(
                (member for name, member in members.items() if name != reader),
                key=lambda member: -weights.get(member.name, 0.0),
            ),
            round,
            run=config.name,
            schema=steps.schema,
            max_declared=data.assignment.capacity,
            now=clock(),
        )

    peers = [
        Peer(
            identities[name],
            name,
            slot,
            behaviors[name],
            params=task.params,
            steps=steps.peer,
            batch=config.data.batch,
            batches_of=data.batches_of,
            assignment=data.assignment,
            bucket=buckets[name],
            seed=config.seed,
            others=others,
        )
        for slot, name in enumerate(names)
    ]
    return Simulation(
        name=config.name,
        seed=config.seed,
        rounds=config.rounds,
        params=task.params,
        peers=peers,
        behaviors={
            peer.name: peer.behavior if isinstance(peer.behavior, str) else "custom" for peer in config.peers
        },
        panel=Panel(seats),
        emission=config.rewards.emission,
        salt=functools.partial(derive, b"simulated salt", config.seed),
        apply=steps.apply,
        loss=steps.loss,
        learning_rate=config.learning_rate.schedule(),
        digest=steps.digest,
        beacon=SeededBeacon(config.seed),
        clock=clock,
        times=config.times,
        commit_reveal=config.commit_reveal,
        ledger=ledger,
        checkpoints=Checkpoints(folder / "checkpoints", keep=config.checkpoints_kept),
        heldout=Heldout(data.heldout, config.heldout_every),
        baseline=baseline,
        sizes=compression.sizes(task.compressor.format),
        stopwatch=steps.stopwatch,
        to_compile=steps.work(),
    )


def sweep_baseline(config: Config, rates: Sequence[float]) -> dict[float, float]:
    """AdamW alone at several peak rates, on the data and schedule that a simulation's baseline sees.

    Args:
      config: the run.
      rates: peak learning rates.

    Returns:
      The final held-out loss by rate, in nats/token.
    """
    corpus = read_corpus(config)
    task = make_task(config, corpus)
    data = Data(config, corpus, task.shardings)
    steps = Steps(config, task)

    def final_loss(rate: float) -> float:
        baseline = _baseline(dataclasses.replace(config, baseline_learning_rate=rate), task, data, steps)
        for round in range(config.rounds):
            baseline.optimizer.run_round(baseline.data(round))
        return mean_loss(steps.loss, baseline.optimizer.params, list(data.heldout))

    return {rate: final_loss(rate) for rate in rates}


def _baseline(config: Config, task: Task, data: Data, steps: Steps) -> Baseline:
    """AdamW on all that the G best-behaved peers are assigned: at least the data that the update is made of."""
    honest = [
        (slot, BEHAVIORS[peer.behavior].batches)
        for slot, peer in enumerate(config.peers)
        if isinstance(peer.behavior, str) and peer.behavior in _HONEST
    ][: config.validator.top_g]
    if not honest:
        raise ValueError("baseline: adamw trains on the honest peers' data, and there is no honest peer")

    def batches(round: int) -> Sequence[np.ndarray]:
        return [
            batch
            for slot, count in honest
            for batch in data.batches_of(data.assignment.assigned(round, slot, count * data.batch))
        ]

    optimizer = AdamW(
        task.params,
        config.learning_rate.schedule(config.baseline_learning_rate),
        steps.timed_gradient("baseline"),
        task.shardings,
        compile_step=functools.partial(steps.stopwatch.step, "baseline"),
    )
    return Baseline(optimizer, config.baseline_learning_rate, batches)


def _url(folder: Path, peer: PeerId) -> str:
    return (folder / "store" / peer).absolute().as_uri()
