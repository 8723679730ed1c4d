"""From a config to nodes: the one place where every layer meets."""

from gauntlet_jax.build.simulation import build_simulation, sweep_baseline

__all__ = ["build_simulation", "sweep_baseline"]
