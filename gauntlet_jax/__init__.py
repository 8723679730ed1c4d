"""gauntlet_jax: permissionless distributed training with incentives, in JAX."""

__version__ = "0.1.0"
