"""What a study keeps of a run: the columns of its round records that decide the pay."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gauntlet_jax.nodes.record import RoundRecord

_NUMBERS = ("rating_mu", "rating_sigma", "proof_of_computation", "standing", "peer_score")
_COUNTS = ("evaluations", "payout")


@dataclasses.dataclass(frozen=True, eq=False)
class Recorded:
    """The columns of a run, each [rounds, peers] in the config's order.

    Attributes:
      own: how many peers, from the first on, belong to the strategist.
      names: of the peers.
      rating_mu, rating_sigma, proof_of_computation, standing, peer_score: float64, as in a peer's record.
      evaluations, payout: int64.
      rank: int64, the place in the round's match; -1 where a peer did not play.
      declared: int64, sequences; 0 without an artifact.
      payable, slashed: bool.
    """

    own: int
    names: tuple[str, ...]
    rating_mu: np.ndarray
    rating_sigma: np.ndarray
    proof_of_computation: np.ndarray
    standing: np.ndarray
    peer_score: np.ndarray
    evaluations: np.ndarray
    payout: np.ndarray
    rank: np.ndarray
    declared: np.ndarray
    payable: np.ndarray
    slashed: np.ndarray

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
    rows = [record.peers for record in records]

    def column(kind: type, value: Any) -> np.ndarray:
        return np.array([[value(peer) for peer in row] for row in rows], kind)

    return Recorded(
        own=own,
        names=tuple(peer.name for peer in rows[0]),
        rank=column(np.int64, lambda peer: -1 if peer.rank is None else peer.rank),
        declared=column(np.int64, lambda peer: 0 if peer.declared is None else peer.declared),
        payable=column(np.bool_, lambda peer: peer.payable),
        slashed=column(np.bool_, lambda peer: bool(peer.slashed)),
        **{name: column(np.float64, lambda peer, name=name: getattr(peer, name)) for name in _NUMBERS},
        **{name: column(np.int64, lambda peer, name=name: getattr(peer, name)) for name in _COUNTS},
    )


def to_document(run: Recorded) -> dict[str, Any]:
    """A run for JSON."""
    columns = {name: getattr(run, name).tolist() for name in _columns()}
    return {"own": run.own, "names": list(run.names), **columns}


def from_document(document: Mapping[str, Any]) -> Recorded:
    """Takes up what ``to_document`` gave.

    Raises:
      ValueError: a column is missing or has another shape.
    """
    try:
        names = tuple(map(str, document["names"]))
        own = int(document["own"])
        columns = {name: np.array(document[name], _kind(name)) for name in _columns()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the columns of a run: {error}") from error
    shape = (len(columns["rank"]), len(names))
    if not 0 < own <= len(names) or any(column.shape != shape for column in columns.values()):
        raise ValueError(f"not the columns of a run: they must all be {list(shape)}")
    return Recorded(own=own, names=names, **columns)


def _columns() -> list[str]:
    return [field.name for field in dataclasses.fields(Recorded) if field.name not in ("own", "names")]


def _kind(name: str) -> type:
    if name in _NUMBERS:
        return np.float64
    return np.bool_ if name in ("payable", "slashed") else np.int64
