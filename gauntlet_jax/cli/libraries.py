"""The libraries underneath, set up for a command line: a cache of compiled programs, and no chatter."""

import glob
import importlib
import importlib.util
import logging
import os
from pathlib import Path

_ACCELERATORS = ("/dev/accel*", "/dev/vfio/*", "/dev/nvidia[0-9]*", "/dev/kfd")


def quiet() -> None:
    """Keeps compiled programs between processes, and the libraries' log away from what the user reads."""
    if importlib.util.find_spec("libtpu") and not any(map(glob.glob, _ACCELERATORS)):
        # Installed for ``gauntlet plan``: on a machine without a TPU it would complain at every start.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax = importlib.import_module("jax")
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_platforms", "cpu")  # also where JAX has been imported before
    if jax.config.jax_compilation_cache_dir is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "gauntlet_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    for name in ("absl", "orbax", "jax", "tensorstore", "httpx", "uvicorn"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails is raised, and said in one line
