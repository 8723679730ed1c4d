"""A plan as one JSON object, for programs to read.

Schema 1 (fields may be added, none renamed); bytes and operations are those of one device, seconds are estimates::

    {"schema": 1, "config": str, "topology": str, "chip": str, "chips": int, "devices": int (of the mesh),
     "mesh": {"data": int, "fsdp": int, "tensor": int}, "stand_in": bool (compiled for CPUs in place of the chip),
     "fits": bool, "memory": int (of a device), "peak": int | null, "short": int | null (bytes that it lacks; 0 if it fits),
     "parameters": int, "artifact_bytes": int,
     "resident": {"peer": {"params": int, "residual": int, "optimizer": int}, "validator": {the same}},
     "steps": [{"name": str, "fits": bool, "peak": int | null, "beside": int, "refusal": str,
        "memory": null | {"arguments": int, "outputs": int, "temporaries": int, "aliased": int, "code": int},
        "flops": int | null, "moved_bytes": int | null, "sent_bytes": null | {kind of collective: int},
        "runs": {role: float}, "seconds": float, "bound": "compute|memory|links" or "", "unknown_loops": int,
        "compile_seconds": float}],
     "rounds": {} | {role: {"training_seconds": float, "compute_seconds": float, "upload_seconds": float,
        "download_seconds": float, "seconds": float, "utilisation": float}},
     "assumptions": {"efficiency": float, "bandwidth_efficiency": float, "uplink": float, "downlink": float (bytes a second)},
     "notes": [str],
     "advice": null | {"flags": str, "tried": [{"flags": str, "peak": int | null}], "chips": int | null}}
"""

from collections.abc import Sequence
from typing import Any

from gauntlet_jax.config import Config
from gauntlet_jax.planning.advice import Advice
from gauntlet_jax.planning.plan import Plan, RoundPlan, StepPlan


def as_json(config: Config, plan: Plan, notes: Sequence[str], advice: Advice | None) -> dict[str, Any]:
    """The object above.

    Args:
      config: of the run.
      plan: of it.
      notes: what else is worth saying.
      advice: where it does not fit and advice was asked for.
    """
    topology, mesh = plan.topology, config.mesh
    return {
        "schema": 1,
        "config": config.name,
        "topology": topology.name,
        "chip": topology.chip.name,
        "chips": topology.chips,
        "devices": plan.devices,
        "mesh": {"data": mesh.data, "fsdp": mesh.fsdp, "tensor": mesh.tensor},
        "stand_in": topology.stand_in,
        "fits": plan.fits,
        "memory": topology.chip.memory,
        "peak": plan.peak,
        "short": plan.short,
        "parameters": plan.parameters,
        "artifact_bytes": plan.artifact,
        "resident": {role: kept._asdict() for role, kept in plan.resident.items()},
        "steps": [_step(plan, step) for step in plan.steps],
        "rounds": {role: _round(each) for role, each in plan.rounds.items()},
        "assumptions": plan.assumptions._asdict(),
        "notes": list(notes),
        "advice": None if advice is None else _advice(advice),
    }


def _step(plan: Plan, step: StepPlan) -> dict[str, Any]:
    found = step.analysis
    return {
        "name": step.name,
        "fits": step.fits(plan.topology.chip),
        "peak": step.peak,
        "beside": step.beside,
        "refusal": step.refusal,
        "memory": None if found is None else found.memory._asdict(),
        "flops": None if found is None else found.flops,
        "moved_bytes": None if found is None else found.moved,
        "sent_bytes": None if found is None else dict(found.sent),
        "runs": dict(step.runs),
        "seconds": step.seconds,
        "bound": step.bound,
        "unknown_loops": 0 if found is None else len(found.unknown_loops),
        "compile_seconds": step.compile_seconds,
    }


def _round(each: RoundPlan) -> dict[str, float]:
    return {
        "training_seconds": each.training,
        "compute_seconds": each.compute,
        "upload_seconds": each.upload,
        "download_seconds": each.download,
        "seconds": each.seconds,
        "utilisation": each.utilisation,
    }


def _advice(advice: Advice) -> dict[str, Any]:
    return {
        "flags": advice.flags,
        "tried": [{"flags": flags, "peak": peak} for flags, peak in advice.tried],
        "chips": advice.chips,
    }
