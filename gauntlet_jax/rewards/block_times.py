"""Rounds of a run from the numbers of blocks: nobody's clock decides which round it is."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class BlockTimes:
    """How blocks make rounds: round t = blocks [genesis + t n, genesis + (t + 1) n).

    A chain's epochs do not move with the rounds, so n is best the chain's own period, its tempo, and genesis such that epochs fall
    between a round's beginning and the close of its put window: then the epoch behind round t + 1's beginning has all weights of
    round t and none of round t + 1.

    Attributes:
      genesis: first block of round 0.
      round_blocks: n.
      closes: blocks from a round's beginning until its put window closes, 1 to n - 1.
      confirmations: blocks on top of one before what it says is taken for settled.
      block_seconds: between blocks, to wait and to estimate by.
    """

    genesis: int
    round_blocks: int
    closes: int
    confirmations: int = 3
    block_seconds: float = 12.0

    def __post_init__(self) -> None:
        if self.genesis < 1 or not 1 <= self.closes < self.round_blocks:
            raise ValueError(
                f"genesis={self.genesis} closes={self.closes} round_blocks={self.round_blocks}: a run begins at block 1 or later,"
                " and a put window closes before its round ends"
            )
        if self.confirmations < 0 or not 0 < self.block_seconds < float("inf"):
            raise ValueError("confirmations must be at least 0, and block_seconds above 0")

    def start(self, round: int) -> int:
        """First block of a round.

        Raises:
          ValueError: the round is negative.
        """
        if round < 0:
            raise ValueError(f"round {round}: rounds count from 0")
        return self.genesis + round * self.round_blocks

    def close(self, round: int) -> int:
        """The block at which a round's put window has closed."""
        return self.start(round) + self.closes

    def round_at(self, block: int) -> int | None:
        """The round that a block belongs to; None before round 0."""
        return None if block < self.genesis else (block - self.genesis) // self.round_blocks

    def first_after(self, block: int) -> int:
        """The first round that begins after a block."""
        return max(0, (block - self.genesis) // self.round_blocks + 1)

    def is_deep(self, block: int, head: int) -> bool:
        """Whether a block has its confirmations."""
        return block + self.confirmations <= head
