"""The leaderboard: live on a terminal, single lines elsewhere, and a plain table at the end.

A peer chooses its own name, so only its printable characters reach the terminal, and never as markup.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from gauntlet_jax.nodes.record import PeerRecord, RoundRecord
from gauntlet_jax.nodes.summary import validator_summary

HONEST = ("honest", "double_data")
NEUTRAL = ("unknown", "custom")  # in the field nobody declares a behavior, and a config may bring its own
WIDTH = 110
_SPEED_SECONDS = 900.0  # over which the time to come is estimated: rounds of a shared run take a minute


@dataclasses.dataclass(frozen=True)
class Standing:
    """One row: a peer after some rounds.

    Attributes:
      last: its newest record.
      payout: units it was paid so far.
      share: of what all peers were paid so far, in [0, 1].
      aggregated: rounds in which its pseudo-gradient was aggregated.
      refusal: its newest refusal as "reason (xcount)", "" without one.
    """

    last: PeerRecord
    payout: int
    share: float
    aggregated: int
    refusal: str


def standings(records: Sequence[RoundRecord]) -> list[Standing]:
    """The peers after these rounds, best first: by payout so far, then PeerScore, then rating."""
    by_name: dict[str, list[PeerRecord]] = {}
    for record in records:
        for peer in record.peers:
            by_name.setdefault(peer.name, []).append(peer)
    paid = sum(peer.payout for own in by_name.values() for peer in own)
    rows = []
    for own in by_name.values():
        refusals = [peer.refusal for peer in own if peer.refusal is not None]
        payout = sum(peer.payout for peer in own)
        rows.append(
            Standing(
                last=own[-1],
                payout=payout,
                share=payout / paid if paid else 0.0,
                aggregated=sum(peer.aggregated for peer in own),
                refusal=f"{refusals[-1]} (x{refusals.count(refusals[-1])})" if refusals else "",
            )
        )
    return sorted(
        rows, key=lambda row: (-row.payout, -row.last.peer_score, -row.last.loss_rating, row.last.name)
    )


def printable(text: str, width: int = 64) -> str:
    """Text that a terminal cannot take for a command: unprintable characters as ``?``, cut to ``width``."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= width else clean[: width - 1] + "…"


def plain_table(records: Sequence[RoundRecord]) -> str:
    """The leaderboard as plain text, at most 110 columns, to be pasted anywhere."""
    declared = _declared(records)
    head = (
        f"{'#':>2}  {_columns('peer', 'behavior', declared)} {'mu':>5} +/- {'sigma':<5} {'proof':>6} {'standing':>8} "
        f"{'PeerScore':>9} {'payouts':>8} {'aggregated':>10}  refused"
    )
    lines = [head, "-" * WIDTH]
    for place, row in enumerate(standings(records), start=1):
        last = row.last
        line = (
            f"{place:>2}  {_columns(last.name, last.behavior, declared)} "
            f"{last.rating_mu:>5.1f} +/- {last.rating_sigma:<5.1f} {last.proof_of_computation:>+6.2f} "
            f"{last.standing:>8.2f} {last.peer_score:>9.2f} {row.share:>8.1%} "
            f"{row.aggregated:>10}  {row.refusal}"
        )
        lines.append(line.rstrip())
    return "\n".join(lines)


def validators_table(records: Sequence[RoundRecord]) -> str:
    """The validators as plain text: how far the others agree with them, and what that earns; "" before any was paid."""
    rows = [validator_summary(one.name, records) for one in records[-1].validators]
    if not rows:
        return ""
    stakes = sum(row["stake"] for row in rows)
    head = f"    {'validator':<12} {'behavior':<12} {'stake':>7} {'trust':>6} {'dividends':>9} {'for its stake':>13}  vetoed"
    lines = [head, "-" * WIDTH]
    for row in sorted(rows, key=lambda row: -row["payout"]):
        share = row["stake"] / stakes
        vetoed = f"x{row['vetoed']}" if row["vetoed"] else ""
        line = (
            f"    {printable(row['name'], 12):<12} {printable(row['behavior'], 12):<12} {row['stake']:>7g} {row['trust']:>6.2f} "
            f"{row['dividends']:>9.1%} {row['dividends'] / share:>13.2f}  {vetoed}"
        )
        lines.append(line.rstrip())
    return "\n".join(lines)


def _declared(records: Sequence[RoundRecord]) -> bool:
    """Whether behaviors are known at all: in the field nobody declares one."""
    return any(peer.behavior != "unknown" for record in records for peer in record.peers)


def _columns(name: str, behavior: str, declared: bool) -> str:
    """A peer's name and behavior as 25 columns; without behaviors they are the name's."""
    if not declared:
        return f"{printable(name, 25):<25}"
    return f"{printable(name, 12):<12} {printable(behavior, 12):<12}"


def live_table(records: Sequence[RoundRecord]) -> Table:
    """The leaderboard for a terminal; honest behaviour in one colour, anything else in another."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    declared = _declared(records)
    for name, align in (
        ("#", "right"),
        ("peer", "left"),
        *([("behavior", "left")] if declared else []),
        ("LossRating", "right"),
        ("proof", "left"),
        ("standing", "right"),
        ("PeerScore", "right"),
        ("payouts", "left"),
        ("agg", "right"),
        ("last refusal", "left"),
    ):
        table.add_column(name, justify=align, no_wrap=True, header_style="dim")  # pyright: ignore[reportArgumentType]
    for place, row in enumerate(standings(records), start=1):
        last = row.last
        color = "cyan" if last.behavior in HONEST else "white" if last.behavior in NEUTRAL else "yellow"
        table.add_row(
            str(place),
            Text(printable(last.name, 12 if declared else 25), style="bold"),
            *([Text(printable(last.behavior, 12), style=color)] if declared else []),
            f"{last.rating_mu:.1f} ± {last.rating_sigma:.1f}",
            Text.assemble(
                f"{last.proof_of_computation:+.2f} ", (_bar(max(0.0, last.proof_of_computation), 5), color)
            ),
            f"{last.standing:.2f}",
            f"{last.peer_score:.2f}",
            Text.assemble(f"{row.share:>6.1%} ", (_bar(row.share, 8), color)),
            str(row.aggregated),
            Text(row.refusal, style="red"),
        )
    return table


def progress_line(records: Sequence[RoundRecord], rounds: int, seconds: float, done_before: int) -> str:
    """One plain line on how far a run is, ASCII only.

    Args:
      records: all rounds so far, at least one.
      rounds: of the whole run.
      seconds: spent on the rounds of this process.
      done_before: rounds that an earlier process had done.
    """
    last, here = records[-1], len(records) - done_before
    parts = [f"round {len(records)}/{rounds}", *losses(records)]
    paid = sum(peer.payout for record in records for peer in record.peers)
    honest = sum(peer.payout for record in records for peer in record.peers if peer.behavior in HONEST)
    if honest:
        parts.append(f"paid to honest peers {honest / paid:.1%}")
    refused = sum(peer.refusal is not None for peer in last.peers)
    parts.append(f"refused {refused}/{len(last.peers)}")
    if here > 0:
        parts.append(f"ETA {seconds / here * (rounds - len(records)):.0f} s")
    return "  ".join(parts)


def losses(records: Sequence[RoundRecord]) -> list[str]:
    """The newest held-out loss and the baseline's, as far as they were measured."""
    heldout = [record.heldout_loss for record in records if record.heldout_loss is not None]
    baseline = [record.baseline_loss for record in records if record.baseline_loss is not None]
    named = (("loss", heldout), ("baseline", baseline))
    return [f"{name} {measured[-1]:.3f}" for name, measured in named if measured]


class Display:
    """Shows a run as it goes: ``with Display(console, rounds, records) as display: display.update(records)``.

    Args:
      console: where to; what it is (a terminal or not) decides the form.
      rounds: of the whole run.
      before: rounds that an earlier process had done.
      clock: seconds, monotonic.
    """

    def __init__(
        self, console: Console, rounds: int, before: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._rounds, self._before, self._clock = console, rounds, before, clock
        self._every = max(1, rounds // 12)
        self._started = clock()
        self._shown: tuple[Table, ...] = ()
        self._progress = Progress(
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            speed_estimate_period=_SPEED_SECONDS,
        )
        self._task = self._progress.add_task("", total=rounds, completed=before)
        self._live = Live(self._progress, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        """Starts the display."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ):
        """Takes the display away and leaves the terminal as it was."""
        self._live.stop()

    def update(self, records: Sequence[RoundRecord]) -> None:
        """Shows the state after the newest of ``records``; before the first there is no table."""
        if self._console.is_terminal:
            self._progress.update(self._task, completed=len(records), description="  ".join(losses(records)))
            self._shown = (live_table(records),) if records else ()
            self._show("")
        elif records and (len(records) % self._every == 0 or len(records) == self._rounds):
            seconds = self._clock() - self._started
            self.say(progress_line(records, self._rounds, seconds, self._before))

    def note(self, text: str) -> None:
        """What happens right now, under the progress bar of a terminal; elsewhere it is not worth a line."""
        if self._console.is_terminal:
            self._show(text)

    def say(self, line: str) -> None:
        """One line that stays, above the live display."""
        self._console.print(Text(line), soft_wrap=True)

    def _show(self, note: str) -> None:
        self._live.update(Group(self._progress, Text(printable(note, WIDTH), style="dim"), *self._shown))


def _bar(share: float, width: int) -> str:
    filled = round(min(1.0, max(0.0, share)) * width)
    return "█" * filled + "·" * (width - filled)
