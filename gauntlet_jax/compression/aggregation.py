"""Aggregation: the pseudo-gradients of the top-G, one update for everybody.

Float addition is not associative, so peers are added one after another in the order of the leading axis: every node that
is given the same artifacts in the same order gets the same bits. Memory grows with one model, not with the peers.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gauntlet_jax.compression.chunking import Layout, is_layout
from gauntlet_jax.compression.compressor import Format, SparseTensor
from gauntlet_jax.compression.topk import scatter_add
from gauntlet_jax.types import Params, PseudoGradient

_SMALLEST_NORM = 1e-30


class Aggregator(NamedTuple):
    """How decoded pseudo-gradients become an update.

    Attributes:
      combine: ``(stack, weights) -> update``: pseudo-gradients with a leading peer axis and float32[peers] weights, 0 for
        peers that are not aggregated.
      direction: decoded tensors -> the update that one peer's pseudo-gradient stands for by itself, as LossScore
        probes it.
    """

    combine: Callable[[PseudoGradient, Float[Array, "peers"]], Params]
    direction: Callable[[Params], Params]


def signed_mean(
    fmt: Format,
    *,
    norm: Literal["tensor", "chunk"] = "tensor",
    divisor: Literal["peers", "senders"] = "peers",
) -> Aggregator:
    """The paper's rule: ``sign(IDCT(sum_p w_p q_p / ||q_p||))``, so nobody outvotes others by magnitude.

    Args:
      fmt: the agreed format.
      norm: what is scaled to unit length in the encoded domain: a peer's tensor (the paper; an all-zero one stays zero), or
        each of its blocks (the public system from v0.2.86).
      divisor: "peers" keeps the fixed weights. "senders" divides each coefficient by the number of peers that sent it (the
        public system), which gives a coefficient that one peer alone sends full weight: an attack surface.
    """

    def combine(stack: PseudoGradient, weights: Array) -> Params:
        def one(layout: Layout, sent: SparseTensor) -> Array:
            def add(
                total: tuple[Array, Array], peer: tuple[SparseTensor, Array]
            ) -> tuple[tuple[Array, Array], None]:
                (one_sent, weight), (acc, senders) = peer, total
                values = fmt.values(one_sent)
                scaled = _unit(values, axis=1 if norm == "chunk" else None) * weight
                counts = jnp.full_like(values, weight > 0)
                return (
                    scatter_add(acc, one_sent.indices, scaled),
                    scatter_add(senders, one_sent.indices, counts),
                ), None

            zeros = jnp.zeros((layout.chunks, layout.size), jnp.float32)
            (acc, senders), _ = jax.lax.scan(add, (zeros, zeros), (sent, weights))
            return acc / jnp.maximum(senders, 1.0) if divisor == "senders" else acc

        return _sign(fmt.synthesize(_map(one, fmt, stack)))

    return Aggregator(combine, _sign)


def clipped_mean(fmt: Format) -> Aggregator:
    """SparseLoCo's rule: ``sum_p w_p q_p``, each peer's tensor clipped to the median norm over the aggregated peers."""

    def combine(stack: PseudoGradient, weights: Array) -> Params:
        def one(layout: Layout, sent: SparseTensor) -> Array:
            values = jax.vmap(fmt.values)(sent)
            norms = jnp.sqrt(jnp.sum(jnp.square(values), axis=(1, 2)))
            limit = _median(norms, weights > 0)
            scales = weights * jnp.minimum(1.0, limit / jnp.maximum(norms, _SMALLEST_NORM))

            def add(acc: Array, peer: tuple[Array, Array, Array]) -> tuple[Array, None]:
                indices, own_values, scale = peer
                return scatter_add(acc, indices, own_values * scale), None

            zeros = jnp.zeros((layout.chunks, layout.size), jnp.float32)
            return jax.lax.scan(add, zeros, (sent.indices, values, scales))[0]

        return fmt.synthesize(_map(one, fmt, stack))

    return Aggregator(combine, lambda decoded: decoded)


def _map(one: Callable[[Layout, SparseTensor], Array], fmt: Format, stack: PseudoGradient) -> Any:
    return jax.tree.map(one, fmt.layouts, stack, is_leaf=is_layout)


def _sign(tensors: Params) -> Params:
    return jax.tree.map(jnp.sign, tensors)  # sign(0) = 0: where nobody sent anything, nothing moves


def _unit(values: Float[Array, "chunks k"], *, axis: int | None) -> Float[Array, "chunks k"]:
    """``values / ||values||``; zeros stay zeros.

    Scaled by the largest entry first: squares of entries below 1e-19 are 0 in float32, and a peer that sends such
    entries would be divided by a length of nothing and outvote everybody.
    """
    largest = jnp.max(jnp.abs(values), axis=axis, keepdims=True)
    scaled = values / jnp.where(largest >= jnp.finfo(jnp.float32).tiny, largest, 1.0)
    length = jnp.sqrt(jnp.sum(jnp.square(scaled), axis=axis, keepdims=True))
    return scaled / jnp.maximum(length, 1.0)  # at least 1, but for zeros


def _median(values: Float[Array, "peers"], among: Array) -> Float[Array, ""]:
    """The lower median of the values marked, 0 where none is."""
    ordered = jnp.sort(jnp.where(among, values, jnp.inf))
    count = jnp.sum(among)
    return jnp.where(count > 0, ordered[jnp.maximum(count - 1, 0) // 2], 0.0)
