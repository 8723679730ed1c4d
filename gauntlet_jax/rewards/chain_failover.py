"""Several endpoints of one chain as one: backoff with jitter, the next endpoint when one is down, a deadline for each call."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from gauntlet_jax.rewards.chain_client import (
    Call,
    CallFailed,
    CallLost,
    ChainClient,
    ChainDown,
    HistoryPruned,
    Signer,
)

T = TypeVar("T")
_MOST_TOLD = 200


class Patience(NamedTuple):
    """How long a chain is waited for.

    Attributes:
      seconds: for one call to the ledger's chain, all tries together.
      first_pause: after all endpoints failed once, seconds; doubled each time.
      longest_pause: of these, seconds.
    """

    seconds: float = 120.0
    first_pause: float = 0.5
    longest_pause: float = 20.0


class FailoverChain:
    """A ``ChainClient`` over a list of endpoints; it stays with one for as long as that one answers."""

    def __init__(
        self,
        endpoints: Sequence[str],
        connect: Callable[[str], ChainClient],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        random: Callable[[], float],
        patience: Patience,
    ) -> None:
        """A client; nothing is sent yet.

        Args:
          endpoints: URLs, the best first; for what is older than a few hundred blocks one of them must be an archive node.
          connect: opens one; ``ChainDown`` if it is not there.
          clock: never goes back, seconds.
          sleep: waits for seconds.
          random: uniform in [0, 1), for the jitter.
          patience: how long to try.

        Raises:
          ValueError: there is no endpoint.
        """
        if not endpoints:
            raise ValueError("a chain needs at least one endpoint, such as ws://127.0.0.1:9944")
        self._endpoints = list(endpoints)
        self._connect = connect
        self._clock, self._sleep, self._random = clock, sleep, random
        self._patience = patience
        self._clients: dict[str, ChainClient] = {}
        self._current = 0

    @property
    def hotkey(self) -> str:
        """Address of the key that takes part."""
        return self._ask(lambda client: client.hotkey)

    @property
    def coldkey(self) -> str:
        """Address of the key that pays."""
        return self._ask(lambda client: client.coldkey)

    def head(self) -> int:
        """Number of the newest block."""
        return self._ask(lambda client: client.head())

    def block_hash(self, block: int) -> bytes:
        """Hash of a block."""
        return self._ask(lambda client: client.block_hash(block))

    def storage(self, pallet: str, item: str, keys: tuple[Any, ...], block: int) -> Any:
        """A storage item after a block, from an endpoint that still has it."""
        return self._ask(lambda client: client.storage(pallet, item, keys, block))

    def storage_map(self, pallet: str, item: str, keys: tuple[Any, ...], block: int) -> list[tuple[Any, Any]]:
        """The entries of a storage map after a block, from an endpoint that still has them."""
        return self._ask(lambda client: client.storage_map(pallet, item, keys, block))

    def submit(self, call: Call, signer: Signer, *, lifetime: int) -> None:
        """Sends a call once, over an endpoint that answers; it is never sent again from here."""
        self._ask(lambda client: client.head())
        endpoint = self._endpoints[self._current]
        try:
            self._clients[endpoint].submit(call, signer, lifetime=lifetime)
        except CallFailed:
            raise
        except ChainDown as error:
            self._drop(endpoint)
            raise CallLost(f"{shown(endpoint)}: the connection broke while a call was under way") from error

    def close(self) -> None:
        """Ends the connections."""
        for endpoint in list(self._clients):
            self._drop(endpoint)

    def _ask(self, question: Callable[[ChainClient], T]) -> T:
        """The answer of the first endpoint that has one."""
        until = self._clock() + self._patience.seconds
        pause = self._patience.first_pause
        while True:
            told, pruned = {}, None
            for _ in self._endpoints:
                endpoint = self._endpoints[self._current]
                try:
                    return question(self._opened(endpoint))
                except HistoryPruned as error:
                    pruned = error
                except ChainDown as error:
                    told[shown(endpoint)] = str(error)[:_MOST_TOLD]
                    self._drop(endpoint)
                self._current = (self._current + 1) % len(self._endpoints)
            if pruned is not None:
                # What one has thrown away another may have, but not a moment later.
                raise HistoryPruned(f"{pruned}; add an archive node to the endpoints") from pruned
            # Half to all of the pause, so that many nodes do not come back in one moment.
            wait = pause * (0.5 + self._random() / 2)
            if self._clock() + wait > until:
                raise ChainDown(
                    "no endpoint of the chain answers: " + "; ".join(f"{k} ({v})" for k, v in told.items())
                )
            self._sleep(wait)
            pause = min(2 * pause, self._patience.longest_pause)

    def _opened(self, endpoint: str) -> ChainClient:
        if endpoint not in self._clients:
            self._clients[endpoint] = self._connect(endpoint)
        return self._clients[endpoint]

    def _drop(self, endpoint: str) -> None:
        client = self._clients.pop(endpoint, None)
        if client is not None:
            client.close()


def shown(endpoint: str) -> str:
    """An endpoint for messages: without user, path and query, where some providers put a secret."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        return "an endpoint that is no URL"
    return f"{parts.scheme}://{parts.hostname}" + ("" if port is None else f":{port}")
