"""``gauntlet plan CONFIG --topology v5p:4x4x4``: whether a run fits chips that nobody has to have, and how long its rounds take.

Every step of a round is compiled for the topology, a TPU's by its real compiler. Exit code 0: it fits; 1: it does not.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from gauntlet_jax.cli import libraries, overrides, plan_compilers
from gauntlet_jax.cli.node import judging
from gauntlet_jax.cli.run_folder import UsageError


@dataclasses.dataclass(frozen=True)
class PlanFlags:
    """The chips, the line, and what estimates of time rest on.

    Attributes:
      topology: TPU slices v4:2x2x1, v5e:4x4, v5p:4x4x4, v6e:16x16; cards a100-40gb:1, a100-80gb:8, h100:8, h200:8, b200:8, l40s:1,
        rtx4090:1; cpu:8. For cards, CPUs stand in: their numbers are estimates.
      uplink: the node's line, up: 110Mbps (bits) or 14MB/s (bytes).
      downlink: the node's line, down.
      efficiency: part of the chips' peak rate that matrix products are taken to reach.
      bandwidth_efficiency: part of the rates of memory and links that programs are taken to reach.
      json: print one JSON object and nothing else; its fields are documented in gauntlet_jax/planning/plan_record.py.
      advice: where it does not fit, look for a setting that would make it fit (compiles more).
    """

    topology: str = ""
    uplink: str = "110Mbps"
    downlink: str = "500Mbps"
    efficiency: float = 0.4
    bandwidth_efficiency: float = 0.6
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    advice: bool = True


def run(arguments: Sequence[str]) -> int:
    """The command.

    Args:
      arguments: what follows ``gauntlet plan``.

    Returns:
      0 if the run fits, 1 if it does not.

    Raises:
      UsageError: wrong use.
    """
    words = list(arguments)
    if words in (["-h"], ["--help"]):
        overrides.apply_overrides(PlanFlags(), words, program="gauntlet plan CONFIG")
    if not words or words[0].startswith("-"):
        raise UsageError("gauntlet plan CONFIG --topology v5e:4x4: the config file comes first")
    path = words.pop(0)
    plan_compilers.prepare()
    config_class = importlib.import_module("gauntlet_jax.config").Config
    config, flags = _parse(overrides.load_config(path, config_class), words)
    if not flags.topology:
        raise UsageError("gauntlet plan needs --topology, such as v5e:4x4, v5p:4x4x4, h100:8 or cpu:8")
    for name in ("efficiency", "bandwidth_efficiency"):
        if not 0 < getattr(flags, name) <= 1:
            raise UsageError(
                f"--{name.replace('_', '-')}: a part of the peak, above 0 and up to 1, not {getattr(flags, name)}"
            )
    libraries.quiet()
    with judging():
        return importlib.import_module("gauntlet_jax.cli.plan_run").plan(config, flags)


def _parse(config: Any, words: Sequence[str]) -> tuple[Any, PlanFlags]:
    """The config and the command's own flags, in one help."""
    both = dataclasses.make_dataclass(
        "Plan",
        [
            ("flags", Annotated[PlanFlags, tyro.conf.arg(name="")]),
            ("config", Annotated[type(config), tyro.conf.arg(name="")]),
        ],
        frozen=True,
    )
    both.__doc__ = (
        "Compiles every step of a round for chips that need not be there, and says whether they hold it."
    )
    parsed: Any = overrides.apply_overrides(both(PlanFlags(), config), words, program="gauntlet plan CONFIG")
    return parsed.config, parsed.flags
