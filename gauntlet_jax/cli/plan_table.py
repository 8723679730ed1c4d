"""A plan for a reader: what is on a device, step by step, how long a round takes, and the verdict."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from gauntlet_jax.config import Config
from gauntlet_jax.planning.advice import Advice
from gauntlet_jax.planning.doctor import size
from gauntlet_jax.planning.plan import Plan, StepPlan

_GIB = 2**30


def show(console: Console, config: Config, plan: Plan, notes: Sequence[str], advice: Advice | None) -> None:
    """Prints a plan.

    Args:
      console: where.
      config: of the run.
      plan: of it.
      notes: besides.
      advice: where it does not fit and advice was asked for.
    """
    topology, mesh = plan.topology, config.mesh
    console.print(
        f"{config.name} on {topology.name}, {plan.devices} devices (data {mesh.data}, fsdp {mesh.fsdp}, tensor {mesh.tensor}):"
        f" {plan.parameters:,} parameters, an artifact of {size(plan.artifact)}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_table(plan))
    peer = plan.resident["peer"]
    console.print(
        f"Between steps a device of a peer holds {_gib(peer.total)} GiB (parameters {_gib(peer.params)}, residual"
        f" {_gib(peer.residual)}, inner optimizer {_gib(peer.optimizer)}), of a validator"
        f" {_gib(plan.resident['validator'].total)}; peak = the step's own + what lies beside it.",
        highlight=False,
        soft_wrap=True,
    )
    for role, each in plan.rounds.items():
        line = f", upload {_seconds(each.upload)}" if each.upload else ""
        training = f" (training {_seconds(each.training)})" if each.training else ""
        console.print(
            f"A {role}'s round takes about {_seconds(each.seconds)}: compute {_seconds(each.compute)}{training}{line},"
            f" download {_seconds(each.download)}; utilisation {each.utilisation:.1%}",
            highlight=False,
            soft_wrap=True,
        )
    assumed = plan.assumptions
    console.print(
        f"Seconds assume {assumed.efficiency:g} of the peak matrix rate, {assumed.bandwidth_efficiency:g} of memory's and links', the"
        f" three overlapping, {8e-6 * assumed.uplink:g} Mbps up and {8e-6 * assumed.downlink:g} down; sorting (top-k) counts by its memory"
        " traffic alone.",
        highlight=False,
        soft_wrap=True,
    )
    for note in notes:
        console.print(f"Note: {note}.", highlight=False, soft_wrap=True)
    for line in verdict(plan, advice):
        console.print(line, highlight=False, soft_wrap=True)


def verdict(plan: Plan, advice: Advice | None) -> list[str]:
    """The last lines: does it fit, by how much not, and what would help."""
    memory = plan.topology.chip.memory
    if plan.fits:
        assert plan.peak is not None
        return [f"fits: {_gib(plan.peak)} of {_gib(memory)} GiB a device"]
    lines = [f"does not fit: {step.name} {_lack(step, memory)}" for step in plan.refused]
    if advice is None:
        return lines
    if advice.flags:
        return [*lines, f"It fits with {advice.flags}"]
    tried = ", ".join(
        flags if peak is None else f"{flags} ({_gib(peak)} GiB)" for flags, peak in advice.tried
    )
    more = "" if advice.chips is None else f"; about {advice.chips} such chips would hold it"
    return [*lines, f"No setting that was tried makes it fit: {tried or 'there was none to try'}{more}"]


def _lack(step: StepPlan, memory: int) -> str:
    if step.peak is None:
        return f"({step.refusal})"
    return f"needs {_gib(step.peak)} GiB a device, {_gib(step.peak - memory)} more than the {_gib(memory)} that it has"


def _table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("step")
    for heading in (
        "arguments",
        "outputs",
        "aliased",
        "temporary",
        "beside",
        "peak GiB",
        "TFLOP",
        "memory GB",
        "links GB",
        "seconds",
        "runs",
    ):
        table.add_column(heading, justify="right")
    table.add_column("bound by")
    for step in plan.steps:
        table.add_row(*_row(step, fits=step.fits(plan.topology.chip)))
    table.caption = "\n".join(_collectives(plan)) or None
    table.caption_justify = "left"
    return table


def _row(step: StepPlan, *, fits: bool) -> list[str]:
    peak = "?" if step.peak is None else _gib(step.peak)
    marked = peak if fits else f"[bold red]{peak} ![/]"
    found = step.analysis
    if found is None:
        return [
            step.name,
            "",
            "",
            "",
            "",
            _gib(step.beside),
            marked,
            "",
            "",
            "",
            "",
            _runs(step),
            "too large",
        ]
    memory = found.memory
    return [
        step.name,
        _gib(memory.arguments),
        _gib(memory.outputs),
        _gib(memory.aliased),
        _gib(memory.temporaries + memory.code),
        _gib(step.beside),
        marked,
        f"{found.flops / 1e12:.3g}",
        f"{found.moved / 1e9:.3g}",
        f"{sum(found.sent.values()) / 1e9:.3g}",
        f"{step.seconds:.3g}",
        _runs(step),
        step.bound,
    ]


def _collectives(plan: Plan) -> list[str]:
    """Of each step that sends something, the gigabytes by collective."""
    return [
        f"{step.name} sends: "
        + ", ".join(f"{kind} {size(sent)}" for kind, sent in step.analysis.sent.items())
        for step in plan.steps
        if step.analysis is not None and step.analysis.sent
    ]


def _runs(step: StepPlan) -> str:
    """How often a peer and a validator run it, as ``1/15``."""
    return "/".join(f"{step.runs[role]:.3g}" if role in step.runs else "-" for role in ("peer", "validator"))


def _gib(count: float) -> str:
    return f"{count / _GIB:.2f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:.3g} min"
