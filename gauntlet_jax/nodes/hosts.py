"""The hosts of one node: each runs the same program on its own devices, and all must take the same turns.

The first host leads: it alone asks the ledger and the clock, and tells the others what it was told. What each host reads or writes
for itself, its own parts of an artifact, has succeeded where it has on all of them. So a step that runs across all devices is
entered by all hosts or by none.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, get_type_hints

import jax
import msgspec
import numpy as np
from jax.experimental import multihost_utils

from gauntlet_jax.rewards.ledger import LedgerRefused, LedgerUnreachable, NotYetKnown, SharedLedger

_Answer = TypeVar("_Answer")
_ERRORS: Mapping[str, type[Exception]] = {
    error.__name__: error
    for error in (LedgerRefused, NotYetKnown, LedgerUnreachable, FileNotFoundError, OSError, ValueError)
}


class _Outcome(msgspec.Struct):
    """What came of something on one host: a value, or the name and text of an error."""

    value: bytes = b""
    error: str = ""
    text: str = ""


class Hosts(Protocol):
    """What a node needs of its hosts.

    Attributes:
      leads: whether this is the first of them.
    """

    leads: bool

    def told(self, ask: Callable[[], _Answer], kind: Any) -> _Answer:
        """What the leading host finds when it asks; the others are told. Errors too.

        Args:
          ask: called on the leading host alone.
          kind: the type of its answer, of plain values and named tuples.
        """
        ...

    def together(self, act: Callable[[], _Answer]) -> _Answer:
        """Each host acts by itself; where one fails, all do.

        Raises:
          OSError: another host failed.
        """
        ...

    def any(self, mine: bool) -> bool:
        """Whether it is so on one host at the least."""
        ...

    def merged(self, mine: Mapping[str, str]) -> dict[str, str]:
        """The entries of all hosts."""
        ...


class SoleHost:
    """A node that is one process."""

    leads = True

    def told(self, ask: Callable[[], _Answer], kind: Any) -> _Answer:
        """The answer itself."""
        del kind
        return ask()

    def together(self, act: Callable[[], _Answer]) -> _Answer:
        """What it comes to."""
        return act()

    def any(self, mine: bool) -> bool:
        """The same."""
        return mine

    def merged(self, mine: Mapping[str, str]) -> dict[str, str]:
        """The same."""
        return dict(mine)


SOLE_HOST = SoleHost()
"""It has no state, so one serves all."""


class SeveralHosts:
    """A node of several processes that JAX knows of (``jax.distributed``); they speak over the devices' own network."""

    def __init__(self) -> None:
        """This process as one of them."""
        self.leads = jax.process_index() == 0

    def told(self, ask: Callable[[], _Answer], kind: Any) -> _Answer:
        """See ``Hosts``."""
        outcome = _outcome_of(lambda: msgspec.msgpack.encode(ask())) if self.leads else _Outcome()
        first = self._exchange(outcome)[0]
        if first.error:
            raise _ERRORS[first.error](first.text)
        return msgspec.msgpack.decode(first.value, type=kind)

    def together(self, act: Callable[[], _Answer]) -> _Answer:
        """See ``Hosts``."""
        found: list[_Answer] = []
        raised: list[Exception] = []

        def try_it() -> bytes:
            try:
                found.append(act())
            except (OSError, ValueError) as error:
                raised.append(error)
                raise
            return b""

        outcomes = self._exchange(_outcome_of(try_it))
        failed = next((outcome for outcome in outcomes if outcome.error), None)
        if failed is None:
            return found[0]
        # The same kind of error on all of them, whichever of them it came from.
        raise _ERRORS[failed.error](failed.text) from (raised[0] if raised else None)

    def any(self, mine: bool) -> bool:
        """See ``Hosts``."""
        return b"\x01" in self._gather(bytes([mine]))

    def merged(self, mine: Mapping[str, str]) -> dict[str, str]:
        """See ``Hosts``."""
        rows = self._gather(msgspec.msgpack.encode(dict(mine)))
        return {
            key: value
            for row in rows
            for key, value in msgspec.msgpack.decode(row, type=dict[str, str]).items()
        }

    def _exchange(self, mine: _Outcome) -> list[_Outcome]:
        return [
            msgspec.msgpack.decode(row, type=_Outcome) for row in self._gather(msgspec.msgpack.encode(mine))
        ]

    def _gather(self, mine: bytes) -> list[bytes]:
        """What every host says, in their order."""
        sizes = np.asarray(multihost_utils.process_allgather(np.array(len(mine), np.int32)))
        # In powers of two, so that few lengths are compiled.
        padded = np.zeros(1 << max(8, int(sizes.max() - 1).bit_length()), np.uint8)
        padded[: len(mine)] = np.frombuffer(mine, np.uint8)
        rows = np.asarray(multihost_utils.process_allgather(padded))
        return [row[:size].tobytes() for row, size in zip(rows, sizes.tolist(), strict=True)]


class ToldLedger:
    """A ledger that the leading host speaks to, every method of which gives all hosts the same answer."""

    def __init__(self, ledger: SharedLedger, hosts: Hosts) -> None:
        """The ledger of a node of several hosts.

        Args:
          ledger: as this host would reach it; only the leading host does.
          hosts: of the node.
        """
        self._ledger = ledger
        self._hosts = hosts

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A method of ``SharedLedger``."""
        kind = get_type_hints(getattr(SharedLedger, name))["return"]
        method = getattr(self._ledger, name)

        def call(*arguments: Any, **named: Any) -> Any:
            return self._hosts.told(lambda: method(*arguments, **named), kind)

        return call


class AgreedStop(threading.Event):
    """A wish to stop that all hosts see at the same turn, whichever of them was told."""

    def __init__(self, wish: threading.Event, hosts: Hosts) -> None:
        """A wish.

        Args:
          wish: of this host.
          hosts: of the node.
        """
        super().__init__()
        self._wish = wish
        self._hosts = hosts

    def is_set(self) -> bool:
        """Whether any host wishes it: asked by all hosts at once."""
        return self._hosts.any(self._wish.is_set())

    def wait(self, timeout: float | None = None) -> bool:
        """Waits, by this host alone."""
        return self._wish.wait(timeout)


def _outcome_of(act: Callable[[], bytes]) -> _Outcome:
    try:
        return _Outcome(value=act())
    except (OSError, ValueError) as error:
        name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
        return _Outcome(error=name, text=str(error))
