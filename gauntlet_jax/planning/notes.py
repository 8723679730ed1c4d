"""What a plan says besides its numbers, a line each."""

from gauntlet_jax.config import Config
from gauntlet_jax.planning.plan import Plan


def notes_of(config: Config, plan: Plan) -> list[str]:
    """What whoever reads the plan should know."""
    topology, notes = plan.topology, []
    if topology.stand_in:
        notes.append(
            f"compiled for {plan.devices} CPU devices in place of {topology.chip.name}s: memory and traffic are estimates,"
            " and mostly too high (CPUs compute bfloat16 in float32); the card counts with 0.9 of its memory"
            " (XLA_PYTHON_CLIENT_MEM_FRACTION=0.9)"
        )
    if plan.devices < topology.chips:
        notes.append(f"mesh takes {plan.devices} of {topology.chips} chips: the others would idle")
    loops = sum(len(step.analysis.unknown_loops) for step in plan.steps if step.analysis is not None)
    if loops:
        notes.append(f"{loops} loops do not tell how often they turn, and count once")
    return notes + _times(config, plan)


def _times(config: Config, plan: Plan) -> list[str]:
    """Whether the rounds that a config sets have room for what it asks for."""
    times, notes = config.times, []
    if "peer" in plan.rounds:
        peer = plan.rounds["peer"]
        window = times.closes - times.opens
        if peer.upload > window:
            notes.append(
                f"an upload takes {peer.upload:.0f} s, the put window has {window:g}: times.closes is too early"
            )
        if peer.compute + peer.upload > times.closes:
            notes.append(
                f"a peer computes and uploads for {peer.compute + peer.upload:.0f} s, its put window closes after"
                f" {times.closes:g}: times.closes is too early"
            )
    if "validator" in plan.rounds:
        validator = plan.rounds["validator"].seconds
        if validator > times.seconds - times.closes:
            notes.append(
                f"a validator reads and judges for {validator:.0f} s, after the put window it has"
                f" {times.seconds - times.closes:g}: times.seconds is too short"
            )
    return notes
