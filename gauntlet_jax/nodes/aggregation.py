"""The update of a round from the artifacts of its top-G: made by validators, and made again by everybody who follows."""

from collections.abc import Callable, Sequence

import numpy as np

from gauntlet_jax.compression import Aggregator, combine
from gauntlet_jax.types import Params, PseudoGradient


def combine_sent(
    aggregator: Aggregator, sent: Sequence[Callable[[], PseudoGradient]], *, divisor: int, places: int
) -> Params:
    """The update of some pseudo-gradients in the order given, each with the weight 1/divisor.

    Args:
      aggregator: the rule, compiled.
      sent: at most ``places`` of them, by slot (see ``compression.combine``).
      divisor: G, or the number of peers where all are combined.
      places: weights; those that nobody takes are 0.

    Returns:
      float32 tensors shaped like the parameters, all zero where nothing was sent.
    """
    weights = np.zeros(places, np.float32)
    weights[: len(sent)] = 1 / divisor
    return combine(aggregator, sent, weights)
