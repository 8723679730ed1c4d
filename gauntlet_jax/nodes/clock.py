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
      seconds: length of a round; validators judge between the put window's close and its end.
      opens: when the put window opens.
      closes: when it closes.
      commit_opens: when the window for commits opens, where commit-reveal is on.
      commit_closes: when it closes, at the latest as the put window opens; None: then.
    """

    seconds: float = 60.0
    opens: float = 30.0
    closes: float = 50.0
    commit_opens: float = 0.0
    commit_closes: float | None = None

    def __post_init__(self):
        if not 0 <= self.opens < self.closes < self.seconds:
            raise ValueError(
                f"round times: 0 <= opens ({self.opens}) < closes ({self.closes}) < seconds ({self.seconds}) must hold"
            )
        closes = self.opens if self.commit_closes is None else self.commit_closes
        if self.commit_closes is not None and not 0 <= self.commit_opens < closes <= self.opens:
            raise ValueError(
                f"round times: 0 <= commit_opens ({self.commit_opens}) < commit_closes ({closes})"
                f" <= opens ({self.opens}) must hold"
            )

    def window(self, start: float) -> Window:
        """The put window of the round that begins at ``start``, in seconds of the same clock."""
        return Window(start + self.opens, start + self.closes)

    def commit_window(self, start: float) -> Window:
        """The window for commits of the round that begins at ``start``."""
        closes = self.opens if self.commit_closes is None else self.commit_closes
        return Window(start + self.commit_opens, start + closes)
