"""How a node gets a uid of a subnet, and tells the others its bucket and its signing key."""

from collections.abc import Callable
from typing import NamedTuple

from gauntlet_jax.rewards import bucket_commitment
from gauntlet_jax.rewards.bucket_commitment import BucketLink, Fetch, NoBucket
from gauntlet_jax.rewards.chain_client import Call, ChainClient
from gauntlet_jax.rewards.chain_session import ChainSession
from gauntlet_jax.rewards.ledger import LedgerRefused
from gauntlet_jax.rewards.subnet_view import SubnetView

_RAO = 10**9


class NodeCard(NamedTuple):
    """What a node brings along.

    Attributes:
      public_key: ed25519, of what it signs, 64 hexadecimal characters; "" for one that only reads and weighs.
      address_url: https, where its bucket's address can be read, should that be too long for the chain; "" for none.
      most_burn: the most that its registration may cost, rao.
    """

    public_key: str
    address_url: str
    most_burn: int


class SubnetRegistration:
    """One wallet's registration."""

    def __init__(
        self,
        chain: ChainClient,
        view: SubnetView,
        session: ChainSession,
        card: NodeCard,
        *,
        fetch: Fetch,
        head: Callable[[], int],
    ) -> None:
        """A registration; nothing is asked yet.

        Args:
          chain: names the wallet's keys.
          view: of the subnet.
          session: takes the calls.
          card: of this node.
          fetch: reads below a URL.
          head: number of the newest block.
        """
        self._chain = chain
        self._view = view
        self._session = session
        self._card = card
        self._fetch = fetch
        self._head = head

    def register(self, name: str, bucket: str) -> BucketLink:
        """Sees to it that this wallet's hotkey has a uid and has committed to its bucket; what stands already costs nothing.

        Returns:
          What it has committed to.

        Raises:
          LedgerRefused: the name is not its hotkey, the address cannot be published, or the chain does not take it.
        """
        hotkey = self._chain.hotkey
        if name != hotkey:
            raise LedgerRefused(f"this wallet registers its own hotkey {hotkey} alone, not {name[:64]!r}")
        commitment = self._commitment(bucket)
        head = self._head()
        if self._view.uid_of(hotkey, head) is None:
            self._check_cost(head)
            self._session.once(
                Call("SubtensorModule", "burned_register", {"netuid": self._view.netuid, "hotkey": hotkey}),
                "coldkey",
                lambda: self._view.uid_of(hotkey, self._head()) is not None,
            )
        info = {"fields": [{f"Raw{len(commitment)}": commitment}]}
        self._session.once(
            Call("Commitments", "set_commitment", {"netuid": self._view.netuid, "info": info}),
            "hotkey",
            lambda: self._view.commitment(hotkey, self._head()) == commitment,
        )
        return bucket_commitment.decode(commitment)

    def _commitment(self, bucket: str) -> bytes:
        try:
            commitment = bucket_commitment.encode(self._card.public_key, bucket, self._card.address_url)
            # Before anything is paid for: the others must be able to read it too.
            found = bucket_commitment.address_of(bucket_commitment.decode(commitment), self._fetch)
        except NoBucket as error:
            raise LedgerRefused(f"the bucket's address behind {self._card.address_url}: {error}") from error
        except ValueError as error:
            raise LedgerRefused(str(error)) from error
        assert found == bucket
        return commitment

    def _check_cost(self, head: int) -> None:
        netuid, coldkey = self._view.netuid, self._chain.coldkey
        if not self._view.takes_registrations(head):
            raise LedgerRefused(f"subnet {netuid} takes no registrations: ask its owner")
        burn, most = self._view.number("Burn", head), self._card.most_burn
        if burn > most:
            raise LedgerRefused(
                f"to register on subnet {netuid} costs {burn / _RAO} now, and {most / _RAO} is allowed"
            )
        free = self._view.free_balance(coldkey, head)
        if free < burn:
            raise LedgerRefused(
                f"not enough balance to register on subnet {netuid}: it costs {burn / _RAO},"
                f" and coldkey {coldkey} has {free / _RAO}"
            )
