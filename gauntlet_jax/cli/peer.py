"""``gauntlet peer [CONFIG] --ledger URL --bucket URL --name NAME``: one peer of a shared run."""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any

from gauntlet_jax.cli import node


@dataclasses.dataclass(frozen=True)
class PeerFlags(node.NodeFlags):
    """One peer of a shared run: trains, compresses, uploads, and is paid for what it is worth.

    Attributes:
      behavior: "honest", or one of the attacks that a simulation knows, to see what becomes of it.
      distributed: for a peer on several hosts, each of which runs this command with the same --home on a shared disk: auto where the
        machine knows the others (TPU pods, GKE, Slurm), or HOST:PORT,COUNT,INDEX. None: this process is the whole peer.
    """

    behavior: str = "honest"
    distributed: str | None = None


def run(arguments: Sequence[str]) -> int:
    """The command; see ``node.run_node``."""

    def build(config: Any, own: Any, found: Any, flags: PeerFlags) -> node.Living:
        processes = importlib.import_module("gauntlet_jax.build.processes")
        return processes.build_peer(config, own, found, behavior=flags.behavior)

    return node.run_node(
        arguments,
        command="peer",
        flags=PeerFlags(),
        build=build,
        distributed=lambda flags: flags.distributed,
    )
