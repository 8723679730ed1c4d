"""A node of a subtensor chain through the chain's own kit (``bittensor`` 11): the one file that knows it.

Of the kit it uses wallets and the raw transport alone, calls by name and storage by name, which differ least between runtimes.
Messages repeat nothing of a node's or a wallet's own text: there might be a secret in it.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from gauntlet_jax.rewards.chain_client import (
    Call,
    CallFailed,
    CallLost,
    ChainDown,
    HistoryPruned,
    Signer,
)
from gauntlet_jax.rewards.chain_failover import shown
from gauntlet_jax.rewards.ledger import LedgerRefused

_INSTALL = "the Bittensor ledger needs its kit: pip install gauntlet-jax[bittensor]"
_CLOSE_SECONDS = 5.0
_MOST_HASHES = 1024
_MOST_NAME = 64
# Not the chain's word on a call, only on one way of it: it may still be taken, or be sent anew.
_UNDECIDED = {
    "Usurped",
    "Retracted",
    "FinalityTimeout",
    "Dropped",
    "Invalid",
    "Stale",
    "Future",
    "AncientBirthBlock",
}


class WalletPlace(NamedTuple):
    """Where a wallet lies.

    Attributes:
      name: of the wallet.
      hotkey: of its hotkey.
      path: the folder of all wallets.
      coldkey_password: asked only when the coldkey is to sign, which is to register; None for a wallet without a password.
      hotkey_password: asked only when an encrypted hotkey is to sign; None for one without.
    """

    name: str
    hotkey: str
    path: str
    coldkey_password: Callable[[], str] | None
    hotkey_password: Callable[[], str] | None


class Deadlines(NamedTuple):
    """How long one endpoint is waited for, seconds.

    Attributes:
      read: an answer.
      submit: until a call is in a final block.
    """

    read: float = 20.0
    submit: float = 180.0


def connector(place: WalletPlace, deadlines: Deadlines) -> Callable[[str], "SdkClient"]:
    """What ``FailoverChain`` opens endpoints with.

    Args:
      place: of the wallet that signs.
      deadlines: of each endpoint.

    Raises:
      ValueError: the kit is not installed.
    """
    kit = _kit()
    return lambda endpoint: SdkClient(kit, endpoint, place, deadlines)


class SdkClient:
    """A ``ChainClient`` over one endpoint."""

    def __init__(self, kit: Any, endpoint: str, place: WalletPlace, deadlines: Deadlines) -> None:
        """Connects.

        Args:
          kit: the module.
          endpoint: its URL, ws:// or wss://.
          place: of the wallet that signs.
          deadlines: for answers.

        Raises:
          ChainDown: nobody answers there.
        """
        self._kit = kit
        self._endpoint = shown(endpoint)
        self._place = place
        self._deadlines = deadlines
        self._wallet = kit.Wallet(place.name, place.hotkey, place.path)
        self._hashes: dict[int, str] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chain", daemon=True)
        self._thread.start()
        self._node = kit.RpcSubstrate(endpoint, fallback_endpoints=[], archive_endpoints=[])
        try:
            self._read(self._node.connect())
        except ChainDown:
            self.close()
            raise

    @property
    def hotkey(self) -> str:
        """Address of the key that takes part."""
        return self._address("hotkey")

    @property
    def coldkey(self) -> str:
        """Address of the key that pays."""
        return self._address("coldkey")

    def head(self) -> int:
        """Number of the newest block."""
        return self._read(self._node.block_number())

    def block_hash(self, block: int) -> bytes:
        """Hash of a block."""
        return bytes.fromhex(self._hash(block).removeprefix("0x"))

    def storage(self, pallet: str, item: str, keys: tuple[Any, ...], block: int) -> Any:
        """A storage item after a block."""
        return self._read(self._node.query(pallet, item, list(keys), block_hash=self._hash(block)))

    def storage_map(self, pallet: str, item: str, keys: tuple[Any, ...], block: int) -> list[tuple[Any, Any]]:
        """The entries below the first keys of a storage map after a block."""
        found = self._read(self._node.query_map(pallet, item, list(keys), block_hash=self._hash(block)))
        return [(key, value) for key, value in found]

    def submit(self, call: Call, signer: Signer, *, lifetime: int) -> None:
        """Signs a call, sends it, and waits until it is in a final block."""
        keys = self._unlocked(signer)
        composed = self._read(self._node.compose((call.pallet, call.function, dict(call.arguments))))
        try:
            result = self._within(self._node.submit(composed, keys, period=lifetime), self._deadlines.submit)
        except (self._kit.BittensorError, OSError, TimeoutError) as error:
            raise CallLost(
                f"{self._endpoint}: {type(error).__name__} while {call.function} was under way"
            ) from error
        if result.success:
            return
        name = getattr(result.error, "name", None)
        if not name or name in _UNDECIDED:
            raise CallLost(f"{self._endpoint}: {name or 'no answer'} while {call.function} was under way")
        raise CallFailed(str(name)[:_MOST_NAME], f"the chain did not take {call.function}")

    def close(self) -> None:
        """Ends the connection."""
        if self._loop.is_closed():
            return
        try:
            self._within(self._node.close(), _CLOSE_SECONDS)
        except (self._kit.BittensorError, OSError, TimeoutError):
            pass  # it is gone already
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_SECONDS)
            self._loop.close()

    def _hash(self, block: int) -> str:
        if block not in self._hashes:
            found = self._read(self._node.block_hash(block))
            if not isinstance(found, str) or len(found.removeprefix("0x")) != 64:
                raise ChainDown(f"{self._endpoint} has no block {block} yet")
            if len(self._hashes) >= _MOST_HASHES:
                self._hashes.clear()
            self._hashes[block] = found
        return self._hashes[block]

    def _read(self, question: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self._within(question, self._deadlines.read)
        except (self._kit.BittensorError, OSError, TimeoutError) as error:
            if "discarded" in str(error).lower():
                raise HistoryPruned(
                    f"{self._endpoint} does not keep the state of a block that old"
                ) from error
            raise ChainDown(f"{type(error).__name__} at {self._endpoint}") from error

    def _within(self, work: Coroutine[Any, Any, Any], seconds: float) -> Any:
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, seconds), self._loop).result()

    def _address(self, role: Signer) -> str:
        try:
            if role == "coldkey":
                return self._wallet.coldkeypub.ss58_address
            try:
                return self._wallet.hotkeypub.ss58_address
            except FileNotFoundError:
                return self._unlocked("hotkey").ss58_address  # an older wallet has no public file of it
        except (OSError, self._kit.keyfiles.KeyfileError) as error:
            raise self._missing(role) from error

    def _unlocked(self, role: Signer) -> Any:
        """A key that signs; the kit would ask the terminal for a password, so it is not let."""
        file = self._wallet.coldkey_file if role == "coldkey" else self._wallet.hotkey_file
        ask = self._place.coldkey_password if role == "coldkey" else self._place.hotkey_password
        try:
            if not file.exists_on_device():
                raise self._missing(role)
            if not file.is_encrypted():
                return file.get_keypair()
            password = ask() if ask is not None else ""
            if not password:
                raise LedgerRefused(
                    f"the {role} of wallet {self._place.name} is encrypted: give its password"
                )
            return file.get_keypair(password)
        except self._kit.keyfiles.WrongPasswordError:
            # Without the kit's own error: it has seen the password.
            raise LedgerRefused(f"wrong password for the {role} of wallet {self._place.name}") from None
        except (OSError, ValueError, self._kit.keyfiles.KeyfileError) as error:
            if isinstance(error, LedgerRefused):
                raise
            raise LedgerRefused(f"the {role} of wallet {self._place.name} cannot be read") from None

    def _missing(self, role: Signer) -> LedgerRefused:
        place = self._place
        what = f"hotkey {place.hotkey}" if role == "hotkey" else "coldkey"
        return LedgerRefused(
            f"wallet {place.name} below {place.path} has no {what}: make it with btcli, or name another"
        )


def _kit() -> Any:
    try:
        import bittensor  # pyright: ignore[reportMissingImports]  # noqa: PLC0415
        import bittensor.keyfiles  # pyright: ignore[reportMissingImports]  # noqa: PLC0415
    except ImportError as error:
        raise ValueError(_INSTALL) from error
    return bittensor
