"""``gauntlet doctor [CONFIG] --ledger URL --bucket URL --name NAME``: what would keep a node from taking part, before it does.

Everything is tried as the node itself would do it, with the flags that it would have; nothing is registered, and what is
written into the bucket is deleted.
"""

import dataclasses
import importlib
from collections.abc import Iterator, Sequence
from typing import Any

from gauntlet_jax.cli import libraries, overrides
from gauntlet_jax.cli.node import NodeFlags, judging
from gauntlet_jax.cli.run_folder import UsageError


@dataclasses.dataclass(frozen=True)
class DoctorFlags(NodeFlags):
    """Looks for what would keep a node from taking part in a shared run: the machine, the ledger, the bucket, the clocks.

    Give it the flags that the node will have.
    """


def run(arguments: Sequence[str]) -> int:
    """The command.

    Args:
      arguments: what follows ``gauntlet doctor``.

    Returns:
      0 if nothing fails, else 1.

    Raises:
      UsageError: wrong use.
    """
    words = list(arguments)
    path = words.pop(0) if words and not words[0].startswith("-") else None
    flags = overrides.apply_overrides(DoctorFlags(), words, program="gauntlet doctor [CONFIG]")
    for name in ("ledger", "bucket", "name"):
        if not getattr(flags, name):
            raise UsageError(f"gauntlet doctor needs --{name}; gauntlet doctor --help explains it")
    libraries.quiet()
    with judging():
        found = importlib.import_module("gauntlet_jax.cli.examination").examine(path, flags)
        return show(found)


def show(findings: Iterator[Any]) -> int:
    """Prints findings as they come, and the sum of them.

    Args:
      findings: ``planning.doctor.Finding``s.

    Returns:
      The exit code.
    """
    seen = []
    for finding in findings:
        print(f"{finding.level:<8} {finding.subject:<9} {finding.text}", flush=True)
        seen.append(finding.level)
    fails, warnings = seen.count("FAIL"), seen.count("warning")
    beside = f", {warnings} warning{'s' if warnings != 1 else ''}" if warnings else ""
    print(f"\n{fails} of {len(seen)} checks fail{beside}" if fails else f"\nnothing fails{beside}")
    return int(fails > 0)
