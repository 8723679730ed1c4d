"""The update of a round from the artifacts of its top-G: made by validators, and made again by everybody who follows."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gauntlet_jax.types import Params, PseudoGradient


def combine_sent(
    combine: Callable[[Any, np.ndarray], Params],
    sent: Sequence[PseudoGradient],
    *,
    divisor: int,
    places: int,
    nothing: PseudoGradient,
) -> Params:
    """The update of some pseudo-gradients in the order given, each with the weight 1/divisor.

    Args:
      combine: ``(stack, weights) -> update``, compiled.
      sent: at most ``places``, by slot.
      divisor: G, or the number of peers where all are combined.
      places: entries of the stack; it is filled up to them, so that it compiles once (with a weight of 0 the filler adds
        nothing).
      nothing: the filler.

    Returns:
      float32 tensors shaped like the parameters, all zero where nothing was sent.
    """
    weights = np.zeros(places, np.float32)
    weights[: len(sent)] = 1 / divisor
    filler = [nothing] * (places - len(sent))
    return combine(jax.tree.map(lambda *leaves: np.stack(leaves), *sent, *filler), weights)
