"""What a ledger on a chain needs of a node of it: the head, block hashes, storage reads at a block, and signed calls.

Nothing here knows a chain's development kit. A node's answer is not trusted with its shape: see ``subnet_view``.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from gauntlet_jax.rewards.ledger import LedgerRefused, LedgerUnreachable

Signer: TypeAlias = Literal["hotkey", "coldkey"]
"""Which of a wallet's keys signs: the hotkey weighs and commits, the coldkey pays."""


class Call(NamedTuple):
    """A raw call, as the runtime names it.

    Attributes:
      pallet: such as "SubtensorModule".
      function: such as "set_weights".
      arguments: by name; plain numbers, text, bytes, lists and mappings.
    """

    pallet: str
    function: str
    arguments: Mapping[str, Any]


class ChainDown(LedgerUnreachable):
    """An endpoint did not answer; what was only read may be asked of another one."""


class CallLost(ChainDown):
    """The connection broke after a call was sent: it may have been taken, or may still be, until its lifetime is over."""


class HistoryPruned(LedgerUnreachable):
    """No endpoint keeps the state of a block that old: an archive node does."""


class CallFailed(LedgerRefused):
    """The chain did not take a call.

    Attributes:
      name: the chain's own name of the error, such as "SettingWeightsTooFast"; "" where it gave none.
    """

    def __init__(self, name: str, told: str) -> None:
        super().__init__(told)
        self.name = name


class ChainClient(Protocol):
    """One wallet's connection to a chain.

    Every method raises ``ChainDown`` where there is no answer in time.

    Attributes:
      hotkey: address of the key that takes part, ss58.
      coldkey: address of the key that pays, ss58.
    """

    @property
    def hotkey(self) -> str:
        """Address of the key that takes part."""
        ...

    @property
    def coldkey(self) -> str:
        """Address of the key that pays."""
        ...

    def head(self) -> int:
        """Number of the newest block."""
        ...

    def block_hash(self, block: int) -> bytes:
        """Hash of a block, 32 bytes."""
        ...

    def storage(self, pallet: str, item: str, keys: tuple[Any, ...], block: int) -> Any:
        """A storage item after a block; None where there is none and it has no default.

        Raises:
          HistoryPruned: the endpoint does not keep that block's state any more.
        """
        ...

    def storage_map(self, pallet: str, item: str, keys: tuple[Any, ...], block: int) -> list[tuple[Any, Any]]:
        """All entries below the first keys of a storage map after a block, as last key and value.

        Raises:
          HistoryPruned: the endpoint does not keep that block's state any more.
        """
        ...

    def submit(self, call: Call, signer: Signer, *, lifetime: int) -> None:
        """Signs a call, sends it, and waits until it is in a block.

        Args:
          call: what to do.
          signer: whose key signs.
          lifetime: blocks from now in which it is valid; a power of 2, at least 4. After them it cannot be taken any more.

        Raises:
          CallFailed: the chain did not take it.
          CallLost: whether it was taken is not known.
          LedgerRefused: the wallet does not open.
        """
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...
