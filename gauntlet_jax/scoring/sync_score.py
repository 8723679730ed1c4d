"""SyncScore: does a peer hold the same parameters as the validator? (Gauntlet, section on fast evaluation.)

The probed entries are drawn from a key that the caller makes of the beacon which opens the round and the
*peer's* identity: no two peers show the same probe, and none can be prepared, copied or reposted.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gauntlet_jax.types import Params, Scalar


def probe_indices(
    key: PRNGKeyArray, shapes: tuple[tuple[int, ...], ...], *, per_tensor: int = 2
) -> tuple[Int[Array, "per_tensor _"], ...]:
    """Which entries of each tensor the probe shows.

    Each axis is drawn by itself, which is uniform over the entries, and keeps every index small: a flat index
    would overflow int32 in a tensor of more than 2**31 entries.

    Args:
      key: made of the opening beacon and the peer.
      shapes: of the tensors, in ``jax.tree`` order.
      per_tensor: entries drawn from each, with replacement.

    Returns:
      int32[per_tensor, axes] a tensor.

    Raises:
      ValueError: a tensor has no entries.
    """
    if any(math.prod(shape) == 0 for shape in shapes):
        raise ValueError("an empty tensor cannot be probed; leave it out of the parameters")
    indices = []
    for number, shape in enumerate(shapes):
        drawn = (per_tensor, len(shape))
        bounds = jnp.broadcast_to(jnp.asarray(shape, jnp.int32), drawn)
        indices.append(jax.random.randint(jax.random.fold_in(key, number), drawn, 0, bounds, jnp.int32))
    return tuple(indices)


def take_probe(params: Params, key: PRNGKeyArray, *, per_tensor: int = 2) -> Float[Array, " entries"]:
    """The probe: the values of the drawn entries.

    Args:
      params: theta_t, any pytree of arrays.
      key: made of the opening beacon and the peer.
      per_tensor: entries shown of each tensor.

    Returns:
      float32[tensors * per_tensor], tensor by tensor in ``jax.tree`` order.

    Raises:
      ValueError: a tensor has no entries.
    """
    leaves = jax.tree.leaves(params)
    indices = probe_indices(key, tuple(leaf.shape for leaf in leaves), per_tensor=per_tensor)
    values = [
        jnp.broadcast_to(leaf[tuple(index.T)], (per_tensor,)).astype(jnp.float32)
        for leaf, index in zip(leaves, indices, strict=True)
    ]
    return jnp.concatenate(values)


def sync_score(
    own_probe: Float[Array, " entries"],
    peer_probe: Float[Array, "..."] | Float[np.ndarray, "..."],
    step_size: Scalar | float,
) -> Scalar:
    """How many signed steps a peer's parameters are from the validator's.

    ``SyncScore_p = (1 / alpha_t) mean_i |theta_validator[i] - theta_peer[i]|``. One missed round moves each
    entry by 0 or alpha_t, but later steps partly cancel earlier ones, so a peer several rounds behind reads
    less than their number. It shows that a peer *holds* theta_t, not that it trained.

    Args:
      own_probe: the validator's, taken with the peer's key.
      peer_probe: what the peer published, of any shape and content.
      step_size: alpha_t, the size of the signed step.

    Returns:
      >= 0, 0 = in sync (whatever the step); inf if any entry is not finite, or is missing, or is one too
      many.
    """
    if own_probe.shape != peer_probe.shape or own_probe.size == 0:
        return jnp.asarray(jnp.inf, jnp.float32)
    theirs = jnp.asarray(peer_probe, jnp.float32)
    distance = jnp.mean(jnp.abs(own_probe - theirs))
    steps = jnp.where(distance == 0.0, 0.0, distance / jnp.asarray(step_size, jnp.float32))
    return jnp.where(jnp.isnan(steps), jnp.inf, steps)
