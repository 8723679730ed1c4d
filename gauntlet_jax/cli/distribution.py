"""One node on several hosts: how its processes find each other (``--distributed``)."""

import importlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gauntlet_jax.cli.run_folder import UsageError

_HEARTBEAT_SECONDS = 30
"""A host that says nothing for so long is gone, and so are all others of its node."""

_ADDRESSED = re.compile(r"([A-Za-z0-9.-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\]:[0-9]{1,5}),([0-9]{1,5}),([0-9]{1,5})")


def hosts_of(distributed: str | None) -> Any:
    """Joins the processes of a node, before anything else asks JAX for its devices.

    Args:
      distributed: None for a node that is one process; "auto" where the machine says who the others are (TPU pods, GKE, Slurm);
        "HOST:PORT,COUNT,INDEX" elsewhere: where the first process listens, how many there are, and which one this is.

    Returns:
      ``nodes.hosts.Hosts``.

    Raises:
      UsageError: it is none of these, or the others were not found.
    """
    named = _ADDRESSED.fullmatch(distributed or "")
    if distributed not in (None, "auto") and named is None:
        raise UsageError(
            f"--distributed {distributed!r}: expected auto, or HOST:PORT,COUNT,INDEX such as 10.0.0.1:8476,4,0"
        )
    if named is not None and not int(named[3]) < int(named[2]):
        raise UsageError(f"--distributed: process {named[3]} of {named[2]}: they are numbered from 0")
    hosts = importlib.import_module("gauntlet_jax.nodes.hosts")
    if distributed is None:
        return hosts.SOLE_HOST
    jax = importlib.import_module("jax")
    try:
        if named is None:
            jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
        else:
            jax.distributed.initialize(
                named[1], int(named[2]), int(named[3]), heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
            )
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"--distributed {distributed}: the other processes of this node were not found: {str(error).splitlines()[0]}"
        ) from error
    return hosts.SeveralHosts()


@contextmanager
def ending_together(hosts: Any, say: Callable[[str], None]) -> Iterator[None]:
    """A host whose others are gone cannot go on, nor wait for them at its end: it says so, and ends with code 1 at once.

    That is if a step across devices fails; where it hangs, JAX ends the process when the other's heartbeat has been missing for
    ``_HEARTBEAT_SECONDS``. Whoever started the hosts starts all of them again; they go on from their checkpoint.

    Args:
      hosts: from ``hosts_of``.
      say: takes a line for the node's operator.
    """
    gone = importlib.import_module("jax").errors.JaxRuntimeError
    try:
        yield
    except gone as error:
        if hosts is importlib.import_module("gauntlet_jax.nodes.hosts").SOLE_HOST:
            raise
        say(
            f"another host of this node is gone ({str(error).splitlines()[0][:120]}): start all of them again"
        )
        os._exit(1)
