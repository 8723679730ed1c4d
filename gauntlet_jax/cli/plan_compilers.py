"""Sets this process up to compile for other chips than its own: the only place where the libraries are told so."""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gauntlet_jax.cli.run_folder import UsageError

LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""What the TPU's library reads of the environment: it would ask the cloud's metadata server, and refuse beside another process."""


def prepare() -> None:
    """Sets the environment; to be called before anything imports jax, which loads the TPU's library."""
    for name, value in LIBTPU.items():
        os.environ.setdefault(name, value)


@contextmanager
def devices_for(topology: Any) -> Iterator[list[Any]]:
    """Devices of a topology to compile for.

    Args:
      topology: a ``planning.topology.Topology``.

    Raises:
      UsageError: what compiles for it is not installed.
      ValueError: the compiler does not know the topology.
    """
    jax = importlib.import_module("jax")
    is_tpu = topology.chip.kind == "tpu"
    if is_tpu and importlib.util.find_spec("libtpu") is None:
        raise UsageError(
            f"{topology.name} is compiled by libtpu, which is not installed: pip install 'gauntlet-jax[tpu]' (no TPU needed)"
        )
    cached = jax.config.jax_enable_compilation_cache
    try:
        # The programs are for chips elsewhere: this process needs none of its own.
        jax.config.update("jax_platforms", "cpu")
        if not is_tpu and topology.chips > jax.config.jax_num_cpu_devices:
            jax.config.update("jax_num_cpu_devices", topology.chips)
    except RuntimeError:
        pass  # devices are in use in this process; ``devices_of`` says if they are too few
    try:
        if is_tpu:
            # JAX writes what is compiled for chips elsewhere into its cache, and cannot read it back.
            jax.config.update("jax_enable_compilation_cache", False)
        yield importlib.import_module("gauntlet_jax.planning.topology").devices_of(topology)
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
