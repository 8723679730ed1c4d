"""What every test runs under: eight CPU devices, a compilation cache, and checked shapes."""

import os
from pathlib import Path

# Before JAX is there, and for every process that a test starts: libtpu is installed to compile for TPUs, not to look for one.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jaxtyping
import pytest

# Before anything imports these packages: shapes and dtypes of every call are then checked.
jaxtyping.install_import_hook(["gauntlet_jax.compression", "gauntlet_jax.scoring"], "beartype.beartype")

jax.config.update("jax_num_cpu_devices", 8)  # before the first use of a device
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run slow tests at their full size")
    parser.addoption("--chain-url", help="a node for the tests marked chain, such as ws://127.0.0.1:9944")
    parser.addoption("--chain-netuid", help="the subnet on it")
    parser.addoption(
        "--chain-wallet", help="NAME/HOTKEY of a registered validator; without one they only read"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs a node, or a wallet on it, that was not given, and what has no smaller form than its full one."""

    def is_possible(item: pytest.Item) -> bool:
        if any(mark.kwargs.get("full_only") for mark in item.iter_markers("slow")):
            return config.getoption("--full")
        marks = list(item.iter_markers("chain"))
        needs_wallet = any(mark.kwargs.get("wallet") for mark in marks)
        return not marks or bool(
            config.getoption("--chain-url") and (config.getoption("--chain-wallet") or not needs_wallet)
        )

    left_out = [item for item in items if not is_possible(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if is_possible(item)]


def pytest_configure(config: pytest.Config) -> None:
    # A run that was stopped, or one beside this one, may leave half an entry in the cache: JAX compiles anew.
    for verb in ("reading", "writing"):
        config.addinivalue_line(
            "filterwarnings", f"ignore:Error {verb} persistent compilation cache entry:UserWarning"
        )


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether slow tests run at their full size (``--full``)."""
    return request.config.getoption("--full")
