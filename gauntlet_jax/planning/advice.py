"""Which setting would make a run fit: a few are tried, the mildest first, by compiling the steps that did not fit."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gauntlet_jax.config import Config
from gauntlet_jax.config_check import check
from gauntlet_jax.planning.plan import Plan
from gauntlet_jax.planning.round_steps import TRAINING
from gauntlet_jax.planning.topology import Topology

_MOST_TRIES = 8


class Candidate(NamedTuple):
    """A change of a config.

    Attributes:
      flags: as on the command line, such as "--model.remat".
      config: with it.
    """

    flags: str
    config: Config


class Advice(NamedTuple):
    """What would help.

    Attributes:
      flags: that make it fit; "" if nothing that was tried does.
      tried: the flags that were tried, each with the worst peak in bytes (None where the compiler does not tell).
      chips: about how many chips of the kind would do with the config as it is, where no flags help; else None.
    """

    flags: str
    tried: tuple[tuple[str, int | None], ...]
    chips: int | None


def advise(config: Config, plan: Plan, judge: Callable[[Config, set[str]], Plan]) -> Advice:
    """Tries changes until one fits.

    Args:
      config: that does not fit.
      plan: which says so.
      judge: compiles the steps of these names for a config; ``ValueError`` where the config is none.
    """
    names = {step.name for step in plan.refused}
    tried: list[tuple[str, int | None]] = []
    for candidate in candidates(config, plan.topology, sequences=expected(config, plan)):
        if len(tried) == _MOST_TRIES:
            break
        try:
            found = judge(candidate.config, names)
        except ValueError:
            continue  # of a shape that the model or the mesh does not take
        tried.append((candidate.flags, found.peak))
        if found.fits:
            return Advice(candidate.flags, tuple(tried), None)
    return Advice("", tuple(tried), _chips(plan))


def candidates(config: Config, topology: Topology, *, sequences: float) -> Iterator[Candidate]:
    """Changes worth a try: recomputing, fewer sequences at a time, the mesh, fewer sequences at all, then several together.

    Args:
      config: that does not fit.
      topology: which bounds the mesh.
      sequences: that are expected to fit at a time, a first guess.
    """
    remat = _remat(config)
    meshes = list(_meshes(config, topology))
    if remat is not None:
        yield remat
    yield from _first(_microbatches(Candidate("", config), sequences))
    yield from meshes
    yield from _first(_batches(Candidate("", config), sequences))
    if remat is not None:
        for mesh in meshes:
            both = dataclasses.replace(remat.config, mesh=mesh.config.mesh)
            yield from _first(_microbatches(Candidate(f"{remat.flags} {mesh.flags}", both), sequences))
        yield from _first(_microbatches(remat, sequences))
        yield from _first(_batches(remat, sequences))
    for mesh in meshes:
        yield from _first(_microbatches(mesh, sequences))


def _first(found: Iterator[Candidate]) -> Iterator[Candidate]:
    # The first is expected to fit, and the second to make up for a wrong guess.
    return itertools.islice(found, 2)


def expected(config: Config, plan: Plan) -> float:
    """How many sequences would fit at a time if the temporaries of what was refused grew with them; 0 if none would."""
    least = math.inf
    for step in plan.refused:
        at_once = _at_once(config, step.name)
        if at_once is None:
            return 0.0  # it does not work on a batch
        if step.peak is None:
            least = min(least, at_once / 2)
            continue
        fixed = step.beside if step.analysis is None else step.peak - step.analysis.memory.temporaries
        room = plan.topology.chip.memory - fixed
        least = min(least, max(0.0, at_once * room / max(1, step.peak - fixed)))
    return least


def _at_once(config: Config, step: str) -> int | None:
    """Sequences that go through the model at a time in a step."""
    batch = _batch_of(config, step)
    at_a_time = None if config.build_model is not None else config.model.microbatch
    return batch if batch is None or at_a_time is None else min(batch, at_a_time)


def _batch_of(config: Config, step: str) -> int | None:
    if step in TRAINING:
        return config.data.batch // _steps(config)
    sample = config.validator.sample_batches * config.data.batch
    return {"loss": config.data.batch, "loss of a sample": sample, "evaluate": sample}.get(step)


def _steps(config: Config) -> int:
    return config.compression.inner_steps if config.compression.method == "sparseloco" else 1


def _remat(config: Config) -> Candidate | None:
    if config.build_model is not None or config.model.remat:
        return None
    return Candidate(
        "--model.remat", dataclasses.replace(config, model=dataclasses.replace(config.model, remat=True))
    )


def _meshes(config: Config, topology: Topology) -> Iterator[Candidate]:
    """Other meshes that hold less of the model, or of a batch, on a device."""
    mesh = config.mesh
    spare = topology.chips // (mesh.data * mesh.fsdp * mesh.tensor)
    if mesh.data * spare > 1:  # copies of the model become parts of it
        yield _with_mesh(config, data=1, fsdp=mesh.fsdp * mesh.data * spare)
        yield _with_mesh(config, data=1, tensor=mesh.tensor * mesh.data * spare)
    elif mesh.fsdp > 1:
        # A device then has fewer sequences in full, and more in part: less to keep where the vocabulary is large.
        yield _with_mesh(config, fsdp=mesh.fsdp // 2, tensor=mesh.tensor * 2)


def _with_mesh(config: Config, **changes: int) -> Candidate:
    changed = {name: value for name, value in changes.items() if getattr(config.mesh, name) != value}
    flags = " ".join(f"--mesh.{name} {value}" for name, value in changed.items())
    return Candidate(flags, dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **changed)))


def _microbatches(base: Candidate, sequences: float) -> Iterator[Candidate]:
    """Fewer sequences at a time: a training step's batch and its halves."""
    config = base.config
    if config.build_model is not None:
        return
    now, at_a_time = config.model.microbatch, config.data.batch // _steps(config)
    while at_a_time % (config.mesh.data * config.mesh.fsdp) == 0:
        if at_a_time <= sequences and at_a_time < (now or config.data.batch):
            model = dataclasses.replace(config.model, microbatch=at_a_time)
            flags = f"{base.flags} --model.microbatch {at_a_time}".strip()
            yield Candidate(flags, dataclasses.replace(config, model=model))
        if at_a_time % 2:
            return
        at_a_time //= 2


def _batches(base: Candidate, sequences: float) -> Iterator[Candidate]:
    """Fewer sequences at all: halves of the batch."""
    data, batch, steps = base.config.data, base.config.data.batch, _steps(base.config)
    while batch % 2 == 0:
        batch //= 2
        smaller = dataclasses.replace(base.config, data=dataclasses.replace(data, batch=batch))
        try:
            check(smaller)
        except ValueError:
            return
        if batch / steps <= sequences:
            yield Candidate(f"{base.flags} --data.batch {batch}".strip(), smaller)


def _chips(plan: Plan) -> int | None:
    return None if plan.peak is None else -(-plan.devices * plan.peak // plan.topology.chip.memory)
