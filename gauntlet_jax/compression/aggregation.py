"""Aggregation: the pseudo-gradients of the top-G, one update for everybody.

Peers are added one after another to a sum in the space of block coefficients, so memory grows with one model and not with the peers. Float
addition is not associative: every node that adds the same artifacts in the same order gets the same bits.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gauntlet_jax.compression.chunking import Layout, is_layout
from gauntlet_jax.compression.compressor import Format, SparseTensor
from gauntlet_jax.compression.topk import scatter_add
from gauntlet_jax.types import Params, PseudoGradient

_SMALLEST_NORM = 1e-30


class Aggregator(NamedTuple):
    """How pseudo-gradients become an update; every function is pure and may be jitted, also on pieces of tensors.

    Attributes:
      measure: ``pseudo_gradient -> tree of float32 scalars``, what the scales of the others depend on; None where each peer's
        scale is its weight.
      scales: ``(tree of float32[peers], weights: float32[peers]) -> tree of float32[peers]``; None like ``measure``.
      start: ``() -> sum``, of nothing: a tuple of trees of block coefficients.
      add: ``(sum, pseudo_gradient, scales of this peer) -> sum``.
      finish: ``sum -> update``.
      direction: decoded tensors -> the update that one peer's pseudo-gradient stands for by itself, as LossScore
        probes it.
    """

    measure: Callable[[PseudoGradient], Any] | None
    scales: Callable[[Any, Float[Array, "peers"]], Any] | None
    start: Callable[[], Any]
    add: Callable[[Any, PseudoGradient, Any], Any]
    finish: Callable[[Any], Params]
    direction: Callable[[Params], Params]


def combine(
    aggregator: Aggregator,
    sent: Sequence[Callable[[], PseudoGradient]],
    weights: Float[Array, "places"] | Float[np.ndarray, "places"],
) -> Params:
    """The update of some peers, in the order given: the whole of an aggregator.

    Args:
      aggregator: the rule.
      sent: pseudo-gradients; each is asked for when it is its turn, so that one is held at a time.
      weights: float32, of each peer, 0 for one that is not aggregated. There may be more of them than peers, the rest 0, so that
        scales compile once for any number of peers.

    Returns:
      float32 tensors shaped like the parameters, all zero where nothing was sent.
    """
    scales: Any = weights
    if aggregator.measure is not None and aggregator.scales is not None and sent:
        measured = [aggregator.measure(get()) for get in sent]
        spare = (0, len(weights) - len(sent))
        scales = aggregator.scales(
            jax.tree.map(lambda *rows: jnp.pad(jnp.stack(rows), spare), *measured), jnp.asarray(weights)
        )
    total = aggregator.start()
    for number, get in enumerate(sent):
        total = aggregator.add(total, get(), jax.tree.map(lambda leaf, at=number: leaf[at], scales))
    return aggregator.finish(total)


def signed_mean(
    fmt: Format,
    *,
    norm: Literal["tensor", "chunk"] = "tensor",
    divisor: Literal["peers", "senders"] = "peers",
    axes: Any | None = None,
) -> Aggregator:
    """The paper's rule: ``sign(IDCT(sum_p w_p q_p / ||q_p||))``, so nobody outvotes others by magnitude.

    Args:
      fmt: the agreed format.
      norm: what is scaled to unit length in the encoded domain: a peer's tensor (the paper; an all-zero one stays zero), or
        each of its blocks (the public system from v0.2.86).
      divisor: "peers" keeps the fixed weights. "senders" divides each coefficient by the number of peers that sent it (the
        public system), which gives a coefficient that one peer alone sends full weight: an attack surface.
      axes: inside ``shard_map``, a tree like the parameters of the mesh axes that each tensor is cut over; None where
        tensors are whole.
    """
    axes = _whole(fmt) if axes is None else axes

    def start() -> Any:
        zeros = fmt.zeros()
        return (zeros, zeros) if divisor == "senders" else (zeros,)

    def add(total: Any, sent: PseudoGradient, weight: Array) -> Any:
        def one(_: Layout, acc: Array, tensor: SparseTensor, cut: tuple[str, ...]) -> Array:
            values = fmt.values(tensor)
            unit = _unit(values, axis=-1) if norm == "chunk" else _unit(values, axis=None, cut=cut)
            return scatter_add(acc, tensor.indices, unit * weight)

        def count(_: Layout, acc: Array, tensor: SparseTensor) -> Array:
            return scatter_add(acc, tensor.indices, jnp.full(tensor.codes.shape, weight > 0, jnp.float32))

        added = _map(one, fmt, total[0], sent, axes)
        return (added, _map(count, fmt, total[1], sent)) if divisor == "senders" else (added,)

    def finish(total: Any) -> Params:
        mean = total[0]
        if divisor == "senders":
            mean = jax.tree.map(lambda acc, senders: acc / jnp.maximum(senders, 1.0), *total)
        return _sign(fmt.synthesize(mean))

    return Aggregator(None, None, start, add, finish, _sign)


def clipped_mean(fmt: Format, *, axes: Any | None = None) -> Aggregator:
    """SparseLoCo's rule: ``sum_p w_p q_p``, each peer's tensor clipped to the median norm over the aggregated peers.

    Args:
      fmt: the agreed format.
      axes: see ``signed_mean``.
    """
    axes = _whole(fmt) if axes is None else axes

    def measure(sent: PseudoGradient) -> Any:
        def norm(_: Layout, tensor: SparseTensor, cut: tuple[str, ...]) -> Array:
            return jnp.sqrt(_sum(jnp.sum(jnp.square(fmt.values(tensor))), cut))

        return _map(norm, fmt, sent, axes)

    def scales(norms: Any, weights: Array) -> Any:
        def one(lengths: Array) -> Array:
            limit = _median(lengths, weights > 0)
            return weights * jnp.minimum(1.0, limit / jnp.maximum(lengths, _SMALLEST_NORM))

        return jax.tree.map(one, norms)

    def add(total: Any, sent: PseudoGradient, scale: Any) -> Any:
        def one(_: Layout, acc: Array, tensor: SparseTensor, by: Array) -> Array:
            return scatter_add(acc, tensor.indices, fmt.values(tensor) * by)

        return (_map(one, fmt, total[0], sent, scale),)

    return Aggregator(
        measure,
        scales,
        lambda: (fmt.zeros(),),
        add,
        lambda total: fmt.synthesize(total[0]),
        lambda decoded: decoded,
    )


def _map(one: Callable[..., Any], fmt: Format, *trees: Any) -> Any:
    return jax.tree.map(one, fmt.layouts, *trees, is_leaf=is_layout)


def _whole(fmt: Format) -> Any:
    return _map(lambda layout: (), fmt)


def _sign(tensors: Params) -> Params:
    return jax.tree.map(jnp.sign, tensors)  # sign(0) = 0: where nobody sent anything, nothing moves


def _sum(local: Array, cut: tuple[str, ...]) -> Array:
    return jax.lax.psum(local, cut) if cut else local


def _unit(
    values: Float[Array, "*grid k"], *, axis: int | None, cut: tuple[str, ...] = ()
) -> Float[Array, "*grid k"]:
    """``values / ||values||``; zeros stay zeros.

    Scaled by the largest entry first: squares of entries below 1e-19 are 0 in float32, and a peer that sends such
    entries would be divided by a length of nothing and outvote everybody.
    """
    largest = jnp.max(jnp.abs(values), axis=axis, keepdims=True)
    largest = jax.lax.pmax(largest, cut) if cut else largest
    scaled = values / jnp.where(largest >= jnp.finfo(jnp.float32).tiny, largest, 1.0)
    length = jnp.sqrt(_sum(jnp.sum(jnp.square(scaled), axis=axis, keepdims=True), cut))
    return scaled / jnp.maximum(length, 1.0)  # at least 1, but for zeros


def _median(values: Float[Array, "peers"], among: Array) -> Float[Array, ""]:
    """The lower median of the values marked, 0 where none is."""
    ordered = jnp.sort(jnp.where(among, values, jnp.inf))
    count = jnp.sum(among)
    return jnp.where(count > 0, ordered[jnp.maximum(count - 1, 0) // 2], 0.0)
