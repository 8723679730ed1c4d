"""Who trains on what: SelectData(seed, round, peer), public and recomputable by anyone.

The pool's windows are shuffled once an epoch by grain's random-access permutation, and each round takes the
next ``peers * capacity`` positions of it, ``capacity`` for every peer.
"""

import dataclasses
import hashlib
from itertools import repeat

import numpy as np
from grain.experimental import index_shuffle

_LARGEST_POOL = 2**32  # the permutation works on 32-bit indices
_CIPHER_ROUNDS = 6  # grain's MapDataset takes 4, which leaves neighbouring positions visibly correlated


@dataclasses.dataclass(frozen=True)
class Assignment:
    """Streams of windows by (seed, round, peer), of which a peer uses and declares any prefix.

    With R = pool // (peers * capacity) rounds an epoch, round t = e R + r and pi_e the permutation of epoch
    e,

        assigned(t, p)[j] = pi_e(r * peers * capacity + p * capacity + j),   0 <= j < capacity

    (Gauntlet's SelectData). So streams are disjoint across the peers of a round, no window comes twice before
    the pool is used up, a shorter stream is a prefix of a longer one, and any element costs the same:
    pi_e(i) is ``grain.experimental.index_shuffle(i, max_index=pool - 1, seed=epoch_seed(e), rounds=6)``.
    The ``pool - R * peers * capacity`` windows at an epoch's end are assigned to nobody in it; the next
    epoch's permutation shuffles them in again.

    Attributes:
      pool: windows in the training pool.
      seed: the run's public seed, any integer.
      peers: streams a round, at least 1.
      capacity: the most windows that one peer may declare a round, at least 1.

    Raises:
      ValueError: a count is below 1, or the pool holds fewer than 2 * peers * capacity windows (a round's
        random batch needs as much room as its assigned ones) or more than 2**32.
    """

    pool: int
    seed: int
    peers: int
    capacity: int

    def __post_init__(self):
        if self.peers < 1 or self.capacity < 1:
            raise ValueError(
                f"an assignment needs peers and capacity >= 1, not {self.peers} and {self.capacity}"
            )
        if self.pool < 2 * self.windows_per_round:
            raise ValueError(
                f"the corpus is too small: {self.pool} training windows for {self.peers} peers x"
                f" {self.capacity} windows a round; at least {2 * self.windows_per_round} are needed:"
                " give more text, shorter sequences, or a smaller capacity"
            )
        if self.pool > _LARGEST_POOL:
            raise ValueError(
                f"a pool holds at most {_LARGEST_POOL} windows, not {self.pool}: use longer sequences"
            )

    @property
    def windows_per_round(self) -> int:
        """Windows that one round sets aside for its peers: peers * capacity."""
        return self.peers * self.capacity

    @property
    def rounds_per_epoch(self) -> int:
        """Rounds until the pool is used up and reshuffled, at least 2."""
        return self.pool // self.windows_per_round

    def epoch_seed(self, epoch: int) -> int:
        """The seed of an epoch's permutation: 32 bits of sha256("gauntlet assignment | seed | epoch").

        Hashed, since consecutive integers would make epoch 1 of seed 0 equal epoch 0 of seed 1.

        Args:
          epoch: from 0.

        Returns:
          An integer in [0, 2**32).
        """
        return _hash32("gauntlet assignment", self.seed, epoch)

    def assigned(self, round: int, peer: int, count: int) -> np.ndarray:
        """The first ``count`` windows of a peer's stream in a round.

        Args:
          round: t, from 0.
          peer: p in [0, peers).
          count: windows, in [0, capacity].

        Returns:
          int64[count], indices into the pool, all different.

        Raises:
          ValueError: an argument is out of its range.
        """
        if not 0 <= peer < self.peers:
            raise ValueError(f"peer {peer} has no stream: there are {self.peers}")
        if not 0 <= count <= self.capacity:
            raise ValueError(f"a peer may declare 0 to {self.capacity} windows a round, not {count}")
        epoch, start = self._place(round)
        start += peer * self.capacity
        return _permuted(np.arange(start, start + count), self.pool, self.epoch_seed(epoch))

    def unassigned(self, round: int, key: int, count: int) -> np.ndarray:
        """A random batch: windows that the round assigned to nobody, chosen by a beacon's key.

        They are other positions of the epoch's own permutation, so they have the distribution of assigned
        windows and the sign of (assigned - random) is unbiased. A shorter batch is a prefix of a longer
        one.

        Args:
          round: t, from 0.
          key: an integer that nobody knew before the put window closed.
          count: windows, in [0, pool - peers * capacity].

        Returns:
          int64[count], indices into the pool, all different, disjoint from every stream of the round.

        Raises:
          ValueError: an argument is out of its range.
        """
        others = self.pool - self.windows_per_round
        if not 0 <= count <= others:
            raise ValueError(
                f"a round leaves {others} windows unassigned: a random batch of {count} cannot be drawn"
            )
        epoch, start = self._place(round)
        places = _permuted(np.arange(count), others, _hash32("gauntlet random batch", self.seed, round, key))
        places = np.where(places >= start, places + self.windows_per_round, places)
        return _permuted(places, self.pool, self.epoch_seed(epoch))

    def _place(self, round: int) -> tuple[int, int]:
        """The epoch of a round and its first position in the epoch's permutation."""
        if round < 0:
            raise ValueError(f"rounds count from 0, not {round}")
        epoch, round_in_epoch = divmod(round, self.rounds_per_epoch)
        return epoch, round_in_epoch * self.windows_per_round


def _permuted(positions: np.ndarray, size: int, seed: int) -> np.ndarray:
    # Positional arguments through map: a third less time than keywords in a loop.
    windows = map(index_shuffle, positions.tolist(), repeat(size - 1), repeat(seed), repeat(_CIPHER_ROUNDS))
    return np.fromiter(windows, np.int64, len(positions))


def _hash32(subject: str, *parts: int) -> int:
    text = " | ".join([subject, *(str(int(part)) for part in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
