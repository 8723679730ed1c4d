"""How far a plan is: a bar on a terminal, a line a step elsewhere."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from gauntlet_jax.planning.compilation import Outcome


class Progress:
    """Told of each step that is compiled; a context manager."""

    def __init__(self, console: Console):
        self._console = console
        self._bar = Bar(
            TextColumn("compiling {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, outcome: Outcome | None, total: int) -> None:
        """A batch of steps begins (None), or one of them is done."""
        if outcome is None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task("the steps of a round", total=total)
            return
        assert self._task is not None
        self._bar.advance(self._task)
        said = "compiled" if outcome.analysis is not None else "too large"
        self.say(f"{outcome.name}: {said} in {outcome.seconds:.0f} s")

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, highlight=False)
