"""Makes a plan, shows how far it is, and prints it."""

import json
import os
import sys
from typing import Any

from rich.console import Console

from gauntlet_jax.cli.plan import PlanFlags
from gauntlet_jax.cli.plan_compilers import devices_for
from gauntlet_jax.cli.plan_progress import Progress
from gauntlet_jax.cli.plan_table import show
from gauntlet_jax.config import Config
from gauntlet_jax.planning.advice import advise
from gauntlet_jax.planning.notes import notes_of
from gauntlet_jax.planning.plan import Assumptions, Plan
from gauntlet_jax.planning.plan_record import as_json
from gauntlet_jax.planning.planner import plan_of
from gauntlet_jax.planning.topology import parse_topology
from gauntlet_jax.planning.transfers import bytes_per_second


def plan(config: Config, flags: PlanFlags) -> int:
    """Compiles, judges and prints.

    Args:
      config: of the run.
      flags: of the command.

    Returns:
      The exit code: 0 if it fits.

    Raises:
      ValueError: a flag or a setting is wrong.
    """
    topology = parse_topology(flags.topology)
    assumptions = Assumptions(
        flags.efficiency,
        flags.bandwidth_efficiency,
        bytes_per_second(flags.uplink),
        bytes_per_second(flags.downlink),
    )
    progress = Progress(Console(stderr=True))
    try:
        with devices_for(topology) as devices, progress:

            def judge(changed: Config, names: set[str]) -> Plan:
                return plan_of(changed, topology, devices, assumptions, only=names, watch=progress)

            made = plan_of(config, topology, devices, assumptions, watch=progress)
            advice = None
            if flags.advice and not made.fits:
                progress.say(f"{_refused(made)}: looking for a setting that fits")
                advice = advise(config, made, judge)
    except KeyboardInterrupt:
        # A compiler cannot be stopped, and an orderly exit would wait for it; nothing has been written anywhere.
        print("gauntlet: stopped", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)
    notes = notes_of(config, made)
    if flags.json:
        print(json.dumps(as_json(config, made, notes, advice), indent=2))
    else:
        # In a file nothing is cut off.
        show(Console(width=None if sys.stdout.isatty() else 150), config, made, notes, advice)
    return 0 if made.fits else 1


def _refused(made: Any) -> str:
    return ", ".join(step.name for step in made.refused) + (
        " does not fit" if len(made.refused) == 1 else " do not fit"
    )
