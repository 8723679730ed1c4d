"""From a config and a topology to a plan: which steps there are, compiled, and put together."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import abstract_task
from gauntlet_jax.config import Config
from gauntlet_jax.config_check import check, slots_of
from gauntlet_jax.nodes.stopwatch import Work
from gauntlet_jax.planning.compilation import Outcome, compile_steps
from gauntlet_jax.planning.plan import Assumptions, Plan, make_plan
from gauntlet_jax.planning.round_steps import residents_of, runs_in_round
from gauntlet_jax.planning.topology import Topology
from gauntlet_jax.training.model import parameter_count


class Round(NamedTuple):
    """The steps of a round on shapes, and what they are about.

    Attributes:
      work: the steps, the slowest to compile first.
      parameters: numbers of the model.
      artifact: bytes of the arrays that a peer uploads.
      devices: of the mesh.
    """

    work: Sequence[Work]
    parameters: int
    artifact: int
    devices: int


def round_of(config: Config, devices: Sequence[Any]) -> Round:
    """The steps of a config's round over the mesh's share of some devices; nothing is compiled or allocated.

    Raises:
      ValueError: a setting does not go with the model or the devices; the line names it.
    """
    check(config)
    task = abstract_task(config, devices)
    steps = Steps(config, task)
    artifact = sum(int(np.prod(array.shape)) * array.dtype.itemsize for array in steps.schema.values())
    mesh = config.mesh
    return Round(steps.work(), parameter_count(task.params), artifact, mesh.data * mesh.fsdp * mesh.tensor)


def plan_of(
    config: Config,
    topology: Topology,
    devices: Sequence[Any],
    assumptions: Assumptions,
    *,
    only: Collection[str] | None = None,
    watch: Callable[[Outcome | None, int], None] = lambda outcome, total: None,
) -> Plan:
    """Compiles a config's steps and judges them.

    Args:
      config: of the run.
      topology: the chips.
      devices: of them.
      assumptions: behind the seconds.
      only: names of steps; None compiles all.
      watch: told how many steps there are, first with None, then with each outcome.

    Raises:
      ValueError: a setting does not go with the model or the devices; the line names it.
    """
    parts = round_of(config, devices)
    work = [one for one in parts.work if only is None or one.name in only]
    watch(None, len(work))
    outcomes = []
    for outcome in compile_steps(work, devices=parts.devices):
        outcomes.append(outcome)
        watch(outcome, len(work))
    order = [one.name for one in work]
    outcomes.sort(key=lambda outcome: order.index(outcome.name))
    return make_plan(
        topology,
        outcomes,
        devices=parts.devices,
        resident=residents_of(parts.work),
        runs=runs_in_round(config),
        parameters=parts.parameters,
        artifact=parts.artifact,
        slots=slots_of(config),
        places=config.validator.top_g,
        assumptions=assumptions,
    )
