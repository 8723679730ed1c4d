"""Time, as an argument: rounds, their put windows, and a clock that a simulation moves by hand."""

import dataclasses

from gauntlet_jax.scoring import Window


class ManualClock:
    """A clock that stands still until it is moved; it never goes back.

    Attributes:
      time: seconds since genesis.
    """

    def __init__(self, time: float = 0.0):
        self.time = time

    def __call__(self) -> float:
        """Seconds since genesis."""
        return self.time

    def move_to(self, time: float) -> None:
        """Moves on to ``time``.

        Raises:
          ValueError: it has passed already.
        """
        if time < self.time:
            raise ValueError(f"the clock is at {self.time} s and cannot go back to {time} s")
        self.time = time


@dataclasses.dataclass(frozen=True)
class RoundTimes:
    """How a round is cut up: seconds from its beginning.

    Attributes:
      seconds: length of a round; validators judge at its end.
      opens: when the put window opens.
      closes: when it closes.
    """

    seconds: float = 60.0
    opens: float = 30.0
    closes: float = 50.0

    def __post_init__(self):
        if not 0 <= self.opens < self.closes < self.seconds:
            raise ValueError(
                f"round times: 0 <= opens ({self.opens}) < closes ({self.closes}) < seconds ({self.seconds}) must hold"
            )

    def window(self, round: int) -> Window:
        """The put window of round t, in seconds since genesis."""
        start = round * self.seconds
        return Window(start + self.opens, start + self.closes)

    def end(self, round: int) -> float:
        """When round t is over, in seconds since genesis."""
        return (round + 1) * self.seconds
