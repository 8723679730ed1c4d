"""``gauntlet validator CONFIG --ledger URL --bucket URL --name NAME``: one validator of a shared run."""

import importlib
from collections.abc import Sequence
from typing import Any

from gauntlet_jax.cli import node


def run(arguments: Sequence[str]) -> int:
    """The command; see ``node.run_node``."""

    def build(config: Any, own: Any, found: Any, flags: node.NodeFlags) -> node.Living:
        processes = importlib.import_module("gauntlet_jax.build.processes")
        return processes.build_validator(config, own, found)

    return node.run_node(
        arguments,
        command="validator",
        flags=node.NodeFlags(),
        build=build,
    )
