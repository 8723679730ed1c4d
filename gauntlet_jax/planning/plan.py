"""Whether a run fits a topology, and how long its rounds take: the arithmetic behind ``gauntlet plan``."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gauntlet_jax.planning.chips import Chip
from gauntlet_jax.planning.compilation import Outcome
from gauntlet_jax.planning.compiled_program import Analysis
from gauntlet_jax.planning.round_steps import ROLES, TRAINING, Resident, Role
from gauntlet_jax.planning.topology import Topology


class Assumptions(NamedTuple):
    """What an estimate of time rests on.

    Attributes:
      efficiency: part of a chip's peak rate that its matrix products reach.
      bandwidth_efficiency: part of the rates of its memory and links that programs reach.
      uplink: bytes a second of the node's line, up.
      downlink: bytes a second, down.
    """

    efficiency: float
    bandwidth_efficiency: float
    uplink: float
    downlink: float


class StepPlan(NamedTuple):
    """One step on one device.

    Attributes:
      name: of the step.
      analysis: of its program; None if the compiler refused it.
      refusal: why, in the compiler's words.
      beside: bytes that lie on the device and are none of its arguments.
      peak: bytes on the device while it runs, the two together; None where a refusal does not tell.
      runs: in a round, by role; a role that does not run it is left out.
      seconds: that it takes once, an estimate.
      bound: which of its seconds decide: "compute", "memory" or "links"; "" if it was refused.
      compile_seconds: that compiling took here.
    """

    name: str
    analysis: Analysis | None
    refusal: str
    beside: int
    peak: int | None
    runs: Mapping[Role, float]
    seconds: float
    bound: str
    compile_seconds: float

    def fits(self, chip: Chip) -> bool:
        """Whether a device holds it, and all that lies beside it."""
        return self.analysis is not None and self.peak is not None and self.peak <= chip.memory


class RoundPlan(NamedTuple):
    """One round of a role, in seconds; one thing after another.

    Attributes:
      training: the peer's local work.
      compute: all steps, training among them.
      upload: of the node's artifact; a validator's is 0.
      download: of the artifacts that it reads.
    """

    training: float
    compute: float
    upload: float
    download: float

    @property
    def seconds(self) -> float:
        """The whole round."""
        return self.compute + self.upload + self.download

    @property
    def utilisation(self) -> float:
        """The part of it in which the chips compute."""
        return self.compute / self.seconds if self.seconds else 0.0


class Plan(NamedTuple):
    """A run on a topology.

    Attributes:
      topology: the chips.
      devices: of them that the mesh takes.
      steps: what a round compiles.
      resident: what lies on each device between steps.
      parameters: numbers of the model.
      artifact: bytes that a peer uploads in a round.
      rounds: by role, how long a round takes; empty where a step was refused.
      assumptions: behind the seconds.
    """

    topology: Topology
    devices: int
    steps: tuple[StepPlan, ...]
    resident: Mapping[Role, Resident]
    parameters: int
    artifact: int
    rounds: Mapping[Role, RoundPlan]
    assumptions: Assumptions

    @property
    def refused(self) -> list[StepPlan]:
        """The steps that do not fit, the worst first; those that do not tell by how much come first of all."""
        bad = [step for step in self.steps if not step.fits(self.topology.chip)]
        return sorted(bad, key=lambda step: float("-inf") if step.peak is None else -step.peak)

    @property
    def fits(self) -> bool:
        """Whether every step fits."""
        return not self.refused

    @property
    def peak(self) -> int | None:
        """The most that lies on a device at any time of a round, in bytes; None where the compiler does not tell."""
        peaks = [step.peak for step in self.steps]
        return None if None in peaks else max(peak for peak in peaks if peak is not None)

    @property
    def short(self) -> int | None:
        """Bytes that a device lacks, 0 if it fits; None where the compiler does not tell."""
        return None if self.peak is None else max(0, self.peak - self.topology.chip.memory)


def make_plan(
    topology: Topology,
    outcomes: Sequence[Outcome],
    *,
    devices: int,
    resident: Mapping[Role, Resident],
    runs: Mapping[Role, Mapping[str, float]],
    parameters: int,
    artifact: int,
    slots: int,
    places: int,
    assumptions: Assumptions,
) -> Plan:
    """Puts together what compiling has shown.

    Args:
      topology: the chips.
      outcomes: of all steps of a round.
      devices: that the mesh takes.
      resident: what each role keeps on a device.
      runs: of each step in a round, by role.
      parameters: numbers of the model.
      artifact: bytes of one.
      slots: places for peers: a validator reads everybody's artifact.
      places: G: a peer reads those that are aggregated.
      assumptions: behind the seconds.
    """
    steps = tuple(_step(topology.chip, outcome, resident, runs, assumptions) for outcome in outcomes)
    rounds: dict[Role, RoundPlan] = {}
    reads: dict[Role, int] = {"peer": places, "validator": slots}
    if all(step.analysis is not None for step in steps):
        for role, count in reads.items():
            mine = [(step, step.runs[role]) for step in steps if role in step.runs]
            rounds[role] = RoundPlan(
                training=sum(times * step.seconds for step, times in mine if step.name in TRAINING),
                compute=sum(times * step.seconds for step, times in mine),
                upload=artifact / assumptions.uplink if role == "peer" else 0.0,
                download=count * artifact / assumptions.downlink,
            )
    return Plan(topology, devices, steps, resident, parameters, artifact, rounds, assumptions)


def _step(
    chip: Chip,
    outcome: Outcome,
    resident: Mapping[Role, Resident],
    runs: Mapping[Role, Mapping[str, float]],
    assumptions: Assumptions,
) -> StepPlan:
    mine: dict[Role, float] = {role: runs[role][outcome.name] for role in ROLES if outcome.name in runs[role]}
    # A step that nobody is known to run is judged as if everybody ran it.
    beside = max(resident[role].beside(outcome.name) for role in (mine or ROLES))
    own = outcome.wanted if outcome.analysis is None else outcome.analysis.memory.peak
    bound, seconds = ("", 0.0)
    if outcome.analysis is not None:
        seconds, bound = max(
            (taken, name) for name, taken in seconds_of(outcome.analysis, chip, assumptions).items()
        )
    return StepPlan(
        outcome.name,
        outcome.analysis,
        outcome.refusal,
        beside,
        None if own is None else own + beside,
        mine,
        seconds,
        bound,
        outcome.seconds,
    )


def seconds_of(analysis: Analysis, chip: Chip, assumptions: Assumptions) -> dict[str, float]:
    """A roofline: seconds that each of a chip's units needs by itself; together, overlapping, they take the longest of these.

    ``flops / (efficiency * peak)``, ``moved / (bandwidth_efficiency * bandwidth)``, ``sent / (bandwidth_efficiency * links)``.
    Sorting, as top-k does it, counts by the memory that it moves alone, so that an encoding takes longer than it says here.
    """
    return {
        "compute": analysis.flops / (assumptions.efficiency * chip.flops),
        "memory": analysis.moved / (assumptions.bandwidth_efficiency * chip.bandwidth),
        "links": sum(analysis.sent.values()) / (assumptions.bandwidth_efficiency * chip.links),
    }
