"""A study: a question, the cells whose results answer it, and what those come to.

A cell is one case with one seed: usually a small run of the real system. Cells do not know of each other, so they are measured in any
order, side by side, and kept one by one (see ``cells``).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from gauntlet_jax.lab.findings import Findings

Size: TypeAlias = Literal["quick", "full"]
"""Under ten minutes on two cores, or as long as it takes to claim something."""

Results: TypeAlias = Callable[[str], Sequence[Mapping[str, Any]]]
"""``case -> its results by seed``."""


class Study(NamedTuple):
    """A question and how it is answered.

    Attributes:
      name: of the command, ``gauntlet lab NAME``.
      question: it asks, in one line.
      seeds: how many by default.
      cases: ``size -> cases by name``; the names are parts of files' names.
      identity: ``(case, seed) -> text``: all that a result depends on. Where it has changed, the cell is measured again.
      measure: ``(case, seed) -> result``, of finite numbers, texts, lists and mappings.
      conclude: ``(size, results) -> findings``.
      seconds: ``case -> seconds`` that a cell takes on a laptop's core, for the announcement and the time left alone.
    """

    name: str
    question: str
    seeds: Mapping[Size, int]
    cases: Callable[[Size], Mapping[str, Any]]
    identity: Callable[[Any, int], str]
    measure: Callable[[Any, int], Mapping[str, Any]]
    conclude: Callable[[Size, Results], Findings]
    seconds: Callable[[Any], float]
