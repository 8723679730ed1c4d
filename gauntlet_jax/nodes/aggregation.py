"""The update of a round from the artifacts of its top-G: made by validators, and made again by everybody who follows."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gauntlet_jax.types import Params, PseudoGradient


class CombineSteps(NamedTuple):
    """The compiled pieces of an aggregator (see ``compression.Aggregator``).

    Attributes:
      measure: ``pseudo_gradient -> measure``; None where a peer's scale does not depend on the others.
      scales: ``(measures, weights) -> scales``.
      start: ``() -> sum``.
      add: ``(sum, pseudo_gradient, scale) -> sum``; the old sum is donated.
      finish: ``sum -> update``.
    """

    measure: Callable[[PseudoGradient], Any] | None
    scales: Callable[[Any, np.ndarray], Any]
    start: Callable[[], Any]
    add: Callable[[Any, PseudoGradient, Any], Any]
    finish: Callable[[Any], Params]


def combine_sent(
    steps: CombineSteps, sent: Sequence[Callable[[], PseudoGradient]], *, divisor: int, places: int
) -> Params:
    """The update of some pseudo-gradients in the order given, each with the weight 1/divisor.

    Args:
      steps: compiled functions.
      sent: at most ``places`` of them, by slot; each is asked for when it is its turn, so that one is held at a time.
      divisor: G, or the number of peers where all are combined.
      places: rows of measures; they are filled up to it with zeros of no weight, so that this compiles once.

    Returns:
      float32 tensors shaped like the parameters, all zero where nothing was sent.
    """
    weights = np.zeros(places, np.float32)
    weights[: len(sent)] = 1 / divisor
    scales: Any = weights
    if steps.measure is not None and sent:
        measured = jax.device_get([steps.measure(get()) for get in sent])
        rows = jax.tree.map(lambda *leaves: np.resize(np.stack(leaves), (places,)), *measured)
        scales = jax.device_get(steps.scales(rows, weights))
    total = steps.start()
    for number, get in enumerate(sent):
        total = steps.add(total, get(), jax.tree.map(lambda leaf, at=number: leaf[at], scales))
    return steps.finish(total)
