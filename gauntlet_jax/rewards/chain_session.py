"""Calls to a chain that are taken once: what was lost on the way is looked for before it is sent again."""

from collections.abc import Callable

from gauntlet_jax.rewards.chain_client import Call, CallFailed, CallLost, ChainClient, Signer
from gauntlet_jax.rewards.chain_refusals import refusal
from gauntlet_jax.rewards.ledger import LedgerUnreachable

LIFETIME = 16
"""Blocks for which a call is valid: until then one whose answer was lost may still get into a block, after it not."""


class ChainSession:
    """Sends one wallet's calls."""

    def __init__(
        self,
        chain: ChainClient,
        netuid: int,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        block_seconds: float,
        seconds: float,
    ) -> None:
        """A session; nothing is sent yet.

        Args:
          chain: takes the calls.
          netuid: for messages.
          clock: never goes back, seconds.
          sleep: waits for seconds.
          block_seconds: between blocks.
          seconds: the deadline of a call, with all that is waited for it.
        """
        self._chain = chain
        self._netuid = netuid
        self._clock, self._sleep = clock, sleep
        self._block_seconds = block_seconds
        self._seconds = seconds

    def once(
        self,
        call: Call,
        signer: Signer,
        is_done: Callable[[], bool],
        *,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Sees to it that a call has been taken, by this process or an earlier one, and not twice.

        Args:
          call: what to do.
          signer: whose key signs.
          is_done: whether the chain's state shows that it was taken.
          check: raises where it must not be sent (any more), which is asked each time before it is.

        Raises:
          LedgerRefused: the chain does not take it.
          LedgerUnreachable: it is not known in time whether it was taken. To ask again is safe.
        """
        until = self._clock() + self._seconds
        while not is_done():
            if check is not None:
                check()
            sent = self._chain.head()
            try:
                self._chain.submit(call, signer, lifetime=LIFETIME)
                return
            except CallFailed as failed:
                # Such as "already registered": an earlier try has got through after all.
                if is_done():
                    return
                raise refusal(
                    failed,
                    call.function,
                    netuid=self._netuid,
                    hotkey=self._chain.hotkey,
                    coldkey=self._chain.coldkey,
                ) from failed
            except CallLost as lost:
                self._wait_out(sent, call.function, until, is_done, lost)

    def wait_blocks(self, blocks: int) -> None:
        """Waits for about so many blocks."""
        self._sleep(blocks * self._block_seconds)

    def _wait_out(
        self, sent: int, function: str, until: float, is_done: Callable[[], bool], lost: CallLost
    ) -> None:
        """Until a lost call shows in the state, or can no longer be taken."""
        while self._chain.head() <= sent + LIFETIME and not is_done():
            if self._clock() + self._block_seconds > until:
                raise LedgerUnreachable(
                    f"whether the chain took {function} is not known yet ({lost}): ask again"
                ) from lost
            self._sleep(self._block_seconds)
