"""Compiles the steps of a round side by side and keeps what is known of each, not the programs."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gauntlet_jax.nodes.stopwatch import Work
from gauntlet_jax.planning.compiled_program import Analysis, analyze, bytes_wanted

_STACK_BYTES = 256 * 2**20


class Outcome(NamedTuple):
    """What became of a step.

    Attributes:
      name: of the step.
      analysis: of its program; None if the compiler refused it.
      refusal: the compiler's words, one line, else "".
      wanted: bytes that a refused program would have needed on a device, where the compiler tells.
      seconds: that compiling took.
    """

    name: str
    analysis: Analysis | None
    refusal: str
    wanted: int | None
    seconds: float


def compile_step(work: Work, *, devices: int) -> Outcome:
    """Compiles one step; a program that does not fit is an outcome, not an error.

    Args:
      work: the step, and where its arguments lie.
      devices: of the mesh.
    """
    start = time.perf_counter()
    try:
        compiled = work.step.function.lower(*work.arguments).compile()
    except RuntimeError as error:  # of XLA: what it refuses, it refuses as a whole
        message = str(error)
        wanted = bytes_wanted(message)
        if wanted is None and "RESOURCE_EXHAUSTED" not in message:
            raise
        return Outcome(work.name, None, message.splitlines()[0], wanted, time.perf_counter() - start)
    return Outcome(work.name, analyze(compiled, devices=devices), "", None, time.perf_counter() - start)


def compile_steps(work: Sequence[Work], *, devices: int, threads: int = 2) -> Iterator[Outcome]:
    """Compiles steps, and yields each as it is done.

    The threads end with the process: a compiler cannot be stopped halfway, and whoever stops waiting should not have to wait.

    Args:
      work: the steps, the slowest to compile first.
      devices: of the mesh.
      threads: that compile at the same time.
    """
    todo: queue.SimpleQueue[Work] = queue.SimpleQueue()
    done: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    for one in work:
        todo.put(one)

    def run() -> None:
        while True:
            try:
                one = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put(compile_step(one, devices=devices))
            except BaseException as error:
                done.put(error)  # raised again by whoever waits

    # The TPU's compiler recurses deeply: on a thread's usual stack it has been seen to overflow.
    usual = threading.stack_size(_STACK_BYTES)
    try:
        for _ in range(min(threads, len(work))):
            threading.Thread(target=run, daemon=True).start()
    finally:
        threading.stack_size(usual)
    for _ in work:
        outcome = done.get()
        if isinstance(outcome, BaseException):
            raise outcome
        yield outcome
