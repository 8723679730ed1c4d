"""The vocabulary: the types that every layer shares (layer 0).

Conventions that hold everywhere in the package:

* losses are in nats per token, and a *score* is positive when the loss went down;
* an update is *subtracted*: ``params - step_size * update``;
* times are seconds since the run's genesis, rounds count from 0, sizes are bytes.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from jaxtyping import Array, Float

PeerId: TypeAlias = str
"""A peer's public identity: its name in a simulation, its public key in the field."""

Params: TypeAlias = Any
"""Any pytree of floating-point arrays: the model's parameters, or something of their shape."""

Batch: TypeAlias = Any
"""Any pytree of arrays with a leading sequence axis; the shipped model takes ``int32[sequences, length + 1]``."""

Scalar: TypeAlias = Float[Array, ""]

LossFn: TypeAlias = Callable[[Params, Batch], Scalar]
"""``(params, batch) -> mean loss``, in nats per token."""

PseudoGradient: TypeAlias = Any
"""A pytree shaped like the parameters whose leaves are ``compression.SparseTensor``: what a peer uploads."""


class ScoreInputs(NamedTuple):
    """What a score may look at: one peer's update in one round, on the validator's own parameters.

    Attributes:
      params: the parameters theta_t that every honest node holds.
      update: the peer's decoded update Delta_p, shaped like ``params``; it is subtracted.
      aggregate: the update made of all accepted peers of the round, or None where no score asks for it.
      assigned_batch: sequences drawn from the data that was assigned to the peer and that it declared.
      random_batch: sequences that nobody was assigned this round, the same for every peer of the round.
      random_loss: L(theta_t) on ``random_batch``, nats/token: computed once for all peers of the round.
      loss_fn: ``(params, batch) -> nats/token`` (static under jit).
      step_size: beta_t = c * alpha_t, the step along ``update`` at which the loss is probed.
    """

    params: Params
    update: Params
    aggregate: Params | None
    assigned_batch: Batch
    random_batch: Batch
    random_loss: Scalar
    loss_fn: LossFn
    step_size: Scalar


ScoreFn: TypeAlias = Callable[[ScoreInputs], Scalar]
"""A score of ONE peer: a pure function that jit and vmap may transform. Positive = good."""

Scores: TypeAlias = Mapping[str, float]
"""The scores of one peer in one round by name: ``assigned``, ``random`` and a config's own."""


class PeerHistory(NamedTuple):
    """What one validator knows of one peer: a row of its state after a round.

    Attributes:
      rating_mu: OpenSkill mean (starts at 25).
      rating_sigma: OpenSkill deviation (starts at 25/3).
      proof: proof of computation mu_p in [-1, 1], as the moving average stands (starts at 0).
      evaluations: rounds in which the peer was evaluated (and so rated).
      standing: s_p in (0, 1], the memory of failed rounds.
      failed_in_a_row: consecutive failed rounds with ``last_failure``.
      clean_in_a_row: consecutive rounds without a failure.
      last_failure: reason of the last failed round, or "" after a clean one.
      negative_in_a_row: consecutive evaluations with a negative LossScore on random data.
    """

    rating_mu: float = 25.0
    rating_sigma: float = 25.0 / 3.0
    proof: float = 0.0
    evaluations: int = 0
    standing: float = 1.0
    failed_in_a_row: int = 0
    clean_in_a_row: int = 0
    last_failure: str = ""
    negative_in_a_row: int = 0


PeerScoreFn: TypeAlias = Callable[[Scores, PeerHistory], float]
"""``(scores by name, history) -> PeerScore >= 0``, the standing not yet applied."""
