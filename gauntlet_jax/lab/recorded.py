"""What a study keeps of a run: columns of its round records."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gauntlet_jax.nodes.record import PeerRecord, RoundRecord

_NUMBERS = ("rating_mu", "rating_sigma", "proof_of_computation", "standing", "peer_score")
_SCORES = ("random_score", "assigned_score")
_COUNTS = ("evaluations", "payout")
_FLAGS = ("payable", "slashed", "refused", "aggregated")
_OF_THE_RUN = ("own", "names", "heldout_loss")


@dataclasses.dataclass(frozen=True, eq=False)
class Recorded:
    """The columns of a run, each [rounds, peers] in the config's order but for the first three.

    Attributes:
      own: how many peers, from the first on, belong to the strategist.
      names: of the peers.
      heldout_loss: float64[rounds], nats a token; NaN in rounds that did not measure it.
      rating_mu, rating_sigma, proof_of_computation, standing, peer_score: float64, as in a peer's record.
      random_score, assigned_score: float64, LossScores; NaN where a peer was not evaluated.
      evaluations, payout: int64.
      rank: int64, the place in the round's match; -1 where a peer did not play.
      declared: int64, sequences; 0 without an artifact.
      payable, slashed, refused, aggregated: bool.
    """

    own: int
    names: tuple[str, ...]
    heldout_loss: np.ndarray
    rating_mu: np.ndarray
    rating_sigma: np.ndarray
    proof_of_computation: np.ndarray
    standing: np.ndarray
    peer_score: np.ndarray
    random_score: np.ndarray
    assigned_score: np.ndarray
    evaluations: np.ndarray
    payout: np.ndarray
    rank: np.ndarray
    declared: np.ndarray
    payable: np.ndarray
    slashed: np.ndarray
    refused: np.ndarray
    aggregated: np.ndarray

    @property
    def loss_rating(self) -> np.ndarray:
        """LossRating = mu - 3 sigma, float64[rounds, peers]."""
        return self.rating_mu - 3.0 * self.rating_sigma


def from_records(records: Sequence[RoundRecord], *, own: int) -> Recorded:
    """The columns of a run's records.

    Args:
      records: of all its rounds.
      own: see ``Recorded``.
    """
    columns = {
        name: np.array([[_VALUES[name](peer) for peer in record.peers] for record in records], _kind(name))
        for name in column_names()
    }
    losses = [math.nan if record.heldout_loss is None else record.heldout_loss for record in records]
    names = tuple(peer.name for peer in records[0].peers)
    return Recorded(own=own, names=names, heldout_loss=np.array(losses), **columns)


def to_document(run: Recorded) -> dict[str, Any]:
    """A run for JSON; NaN is null."""
    columns = {name: _plain(getattr(run, name)) for name in ("heldout_loss", *column_names())}
    return {"own": run.own, "names": list(run.names), **columns}


def from_document(document: Mapping[str, Any]) -> Recorded:
    """Takes up what ``to_document`` gave.

    Raises:
      ValueError: a column is missing or has another shape.
    """
    try:
        names = tuple(map(str, document["names"]))
        own = int(document["own"])
        losses = np.array(document["heldout_loss"], np.float64)
        columns = {name: np.array(document[name], _kind(name)) for name in column_names()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the columns of a run: {error}") from error
    shape = (*losses.shape, len(names))
    if not 0 < own <= len(names) or any(column.shape != shape for column in columns.values()):
        raise ValueError(f"not the columns of a run: they must all be {list(shape)}")
    return Recorded(own=own, names=names, heldout_loss=losses, **columns)


def _score(peer: PeerRecord, name: str) -> float:
    return peer.scores.get(name, math.nan)


_VALUES: Mapping[str, Any] = {
    **{name: (lambda peer, name=name: getattr(peer, name)) for name in (*_NUMBERS, *_COUNTS)},
    "random_score": lambda peer: _score(peer, "random"),
    "assigned_score": lambda peer: _score(peer, "assigned"),
    "rank": lambda peer: -1 if peer.rank is None else peer.rank,
    "declared": lambda peer: 0 if peer.declared is None else peer.declared,
    "payable": lambda peer: peer.payable,
    "slashed": lambda peer: bool(peer.slashed),
    "refused": lambda peer: peer.refusal is not None,
    "aggregated": lambda peer: peer.aggregated,
}


def column_names() -> list[str]:
    """The names of the columns [rounds, peers]."""
    return [field.name for field in dataclasses.fields(Recorded) if field.name not in _OF_THE_RUN]


def _kind(name: str) -> type:
    if name in _FLAGS:
        return np.bool_
    return np.float64 if name in (*_NUMBERS, *_SCORES) else np.int64


def _plain(column: np.ndarray) -> list[Any]:
    if column.dtype != np.float64:
        return column.tolist()
    plain = column.astype(object)
    plain[np.isnan(column)] = None
    return plain.tolist()
