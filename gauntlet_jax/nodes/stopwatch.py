"""Compiled steps that account for their time: what a run spends on compiling, training, encoding, evaluating."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax


class Stopwatch:
    """Adds up wall time by kind of work.

    Attributes:
      seconds: by kind; "compile" is kept apart from the steps' own time.
      now: a clock that never goes back, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.now = now

    @contextmanager
    def measure(self, kind: str):
        """Counts the time inside the block."""
        start = self.now()
        try:
            yield
        finally:
            self.seconds[kind] += self.now() - start

    def step(self, kind: str, jitted: Callable[..., Any], *, waits: bool = True) -> "Step":
        """A jitted function whose calls count as ``kind``; one that does not wait counts where its result is waited for."""
        return Step(self, kind, jitted, waits=waits)


class Step:
    """A jitted function, compiled ahead once for each kind of arguments, that waits for its results unless told not to.

    Waiting is what makes the account honest, and costs little but where the next call could go on beside this one.

    Attributes:
      function: the jitted function itself.
    """

    def __init__(self, stopwatch: Stopwatch, kind: str, jitted: Any, *, waits: bool = True):
        self.function = jitted
        self._waits = waits
        self._stopwatch = stopwatch
        self._kind = kind
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def compile(self, *arguments: Any) -> None:
        """Compiles for arguments of these shapes (arrays or ``jax.ShapeDtypeStruct``)."""
        self._compiled[_key(arguments)] = self.function.lower(*arguments).compile()

    def __call__(self, *arguments: Any) -> Any:
        """Runs the step; every leaf of the arguments must be an array or numpy scalar."""
        key = _key(arguments)
        if key not in self._compiled:
            with self._stopwatch.measure("compile"):
                self.compile(*arguments)
        with self._stopwatch.measure(self._kind):
            result = self._compiled[key](*arguments)
            return jax.block_until_ready(result) if self._waits else result


class Work(NamedTuple):
    """A large step, with the arguments that it is called with.

    Attributes:
      name: what it does, in a word or two.
      step: the ``Step``.
      arguments: arrays, or shapes and where they lie.
    """

    name: str
    step: Any
    arguments: tuple[Any, ...]


def compile_all(stopwatch: Stopwatch, work: Sequence[Work], *, threads: int = 2) -> None:
    """Compiles steps for the arguments given, side by side (the compiler lets go of the interpreter)."""
    with stopwatch.measure("compile"), ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(one.step.compile, *one.arguments) for one in work]:
            done.result()


def _key(arguments: tuple[Any, ...]) -> Any:
    leaves, structure = jax.tree.flatten(arguments)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
