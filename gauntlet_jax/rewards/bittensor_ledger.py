"""A subnet of a subtensor chain as the ledger: peers and validators are its uids, and it pays them by Yuma consensus.

Names are hotkeys, ss58. Whoever holds a validator permit is a validator; everybody else is a peer, but for the subnet owner's
uid, which stands for the reserve: what validators give to it is burned. Amounts are in the subnet's smallest unit.

A run looks back over some rounds, and most nodes keep the state of a few hundred blocks only: an archive node belongs among the
endpoints. What a node says is believed; who trusts none runs its own.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from gauntlet_jax.rewards.block_times import BlockTimes
from gauntlet_jax.rewards.bucket_commitment import Fetch
from gauntlet_jax.rewards.chain_client import ChainClient
from gauntlet_jax.rewards.chain_session import ChainSession
from gauntlet_jax.rewards.ledger import REMAINDER, RESERVE, Epoch, LedgerRefused, NotYetKnown, Registration
from gauntlet_jax.rewards.subnet_buckets import SubnetBuckets
from gauntlet_jax.rewards.subnet_epochs import SubnetEpochs
from gauntlet_jax.rewards.subnet_members import SubnetMembers, is_peer, is_validator
from gauntlet_jax.rewards.subnet_registration import NodeCard, SubnetRegistration
from gauntlet_jax.rewards.subnet_view import SubnetView
from gauntlet_jax.rewards.subnet_weights import SubnetWeights, WeightPolicy
from gauntlet_jax.types import PeerId


class BittensorLedger:
    """A ``Ledger`` on a subnet, as one wallet's hotkey sees it."""

    def __init__(
        self,
        chain: ChainClient,
        netuid: int,
        times: BlockTimes,
        *,
        card: NodeCard,
        policy: WeightPolicy,
        fetch: Fetch,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        reserve_uid: int | None = None,
        call_seconds: float = 600.0,
    ) -> None:
        """A ledger; nothing is asked yet.

        Args:
          chain: a node, or several (see ``FailoverChain``).
          netuid: of the subnet, 1 to 65535.
          times: how blocks make rounds.
          card: what this node publishes of itself, and what its registration may cost.
          policy: how its weights are sent.
          fetch: reads below https URLs, strangers' too, within its own deadline.
          clock: never goes back, seconds.
          sleep: waits for seconds.
          reserve_uid: whose incentive the chain burns; None for the uid of the subnet owner's hotkey.
          call_seconds: the deadline of a call to the chain, with all that is waited for it.

        Raises:
          ValueError: there can be no such subnet.
        """
        self._chain = chain
        self._times = times
        self._view = SubnetView(chain, netuid, reserve_uid)
        self._members = SubnetMembers(self._view, times, self._head)
        self._epochs = SubnetEpochs(self._view, times, self._head)
        self._buckets = SubnetBuckets(self._view, fetch)
        session = ChainSession(
            chain, netuid, clock=clock, sleep=sleep, block_seconds=times.block_seconds, seconds=call_seconds
        )
        self._registration = SubnetRegistration(
            chain, self._view, session, card, fetch=fetch, head=self._head
        )
        self._weights = SubnetWeights(
            chain,
            self._view,
            session,
            self._members,
            self._epochs,
            times=times,
            policy=policy,
            head=self._head,
        )
        self._moment = 0.0
        self._newest = 0
        self._is_checked = False

    def now(self) -> float:
        """Time of the newest block, Unix seconds; it never goes back."""
        self._moment = max(self._moment, self._view.time(self._head()))
        return self._moment

    def round(self) -> int | None:
        """The round of the newest block; None before round 0."""
        return self._times.round_at(self._head())

    def register_peer(self, name: PeerId, bucket: str) -> Registration:
        """Registers this hotkey, or moves its bucket; the coldkey pays the burn.

        Where all uids are taken, the chain gives that of whoever earned least, unless it is immune.

        Raises:
          LedgerRefused: the name is not this hotkey, the hotkey is a validator's or the reserve's, or the chain does not take it.
        """
        found = self._register(name, bucket)
        own = self._members.own(name, self._head())
        if not is_peer(own):
            what = "is the reserve" if own.is_reserve else "holds a validator permit, so it is no peer"
            raise LedgerRefused(f"hotkey {name} {what} on subnet {self._view.netuid}")
        return found

    def register_validator(self, name: str, bucket: str) -> Registration:
        """Registers this hotkey, or moves its bucket.

        Raises:
          LedgerRefused: the name is not this hotkey, it has no validator permit, or the chain does not take it.
        """
        found = self._register(name, bucket)
        if not found.stake:
            raise LedgerRefused(
                f"insufficient stake: hotkey {name} is registered on subnet {self._view.netuid} but holds no validator permit;"
                " stake to it and wait for an epoch"
            )
        return found

    def registrations(self, round: int | None) -> list[Registration]:
        """Who takes part in a round, with the buckets of now, by uid; None: everybody who is registered now.

        Who has named no bucket, or none that can be read, has an empty one: see ``without_bucket``.
        """
        head = self._head()
        neurons = self._view.neurons(head) if round is None else self._members.of_round(round)
        until = {} if round is None else self._members.until(round)
        buckets = self._buckets.all(head)
        return [
            self._members.registration(
                neuron, self._buckets.named(buckets, neuron.hotkey), until.get(neuron.hotkey)
            )
            for neuron in neurons
            if is_peer(neuron) or is_validator(neuron)
        ]

    def without_bucket(self) -> dict[PeerId, str]:
        """Why those who are registered now and have no bucket have none, by name."""
        head = self._head()
        buckets = self._buckets.all(head)
        reasons = {n.hotkey: self._buckets.named(buckets, n.hotkey).reason for n in self._view.neurons(head)}
        return {name: reason for name, reason in reasons.items() if reason}

    def commit_weights(self, round: int, weights: Mapping[PeerId, float], salt: bytes) -> None:
        """Binds this validator to its weights; where the subnet demands no commits, only checks them.

        The chain takes commits of a round from the close of its put window until the next epoch.

        Raises:
          LedgerRefused: too early (``TooEarly``), too late, not of this round's peers, bound to others, or not taken.
        """
        self._weights.commit(round, weights, salt)

    def reveal_weights(self, round: int, weights: Mapping[PeerId, float], salt: bytes) -> None:
        """Shows the weights that this validator is bound to; where the subnet demands no commits, sets them.

        Raises:
          LedgerRefused: too early (``TooEarly``), too late, bound to others, or not taken.
        """
        self._weights.reveal(round, weights, salt)

    def weights(self, round: int) -> dict[str, dict[PeerId, float]]:
        """The weights of a round that validators have shown, by validator, then by peer; each sums to 1.

        Where all were 0, the reserve has all.
        """
        return self._weights.shown(round)

    def epoch(self, round: int) -> Epoch | None:
        """What the chain made of a round's weights; None until then (see ``SubnetEpochs``)."""
        return self._epochs.epoch(round)

    def beacon(self, round: int, phase: Literal["opening", "closing"]) -> bytes:
        """Hash of the block at a round's beginning, or at the close of its put window, 32 bytes.

        Whoever makes that block may choose among a few, so it binds less than many nodes' secrets together would.

        Raises:
          NotYetKnown: the block is not there yet, or has not its confirmations.
        """
        block = self._times.start(round) if phase == "opening" else self._times.close(round)
        if not self._times.is_deep(block, self._head()):
            raise NotYetKnown(
                f"the {phase} beacon of round {round} is the hash of block {block}, which is not settled yet"
            )
        return self._chain.block_hash(block)

    def balances(self) -> dict[str, int]:
        """Units by account that the epochs of all rounds so far have paid; not stakes or wallets, which hold more."""
        accounts = {registration.name: 0 for registration in self.registrations(None)}
        accounts |= {RESERVE: 0, REMAINDER: 0}
        for epoch in self._all_epochs():
            accounts[RESERVE] += epoch.reserve
            accounts[REMAINDER] += epoch.remainder
            for name, units in epoch.payouts.items():
                accounts[name] = accounts.get(name, 0) + units
        return accounts

    def history(self, name: str) -> dict[int, int]:
        """Units that a hotkey was paid by round, for the epochs that paid it."""
        return {epoch.round: epoch.payouts[name] for epoch in self._all_epochs() if name in epoch.payouts}

    def close(self) -> None:
        """Ends the connections."""
        self._chain.close()

    def _register(self, name: str, bucket: str) -> Registration:
        self._buckets.know(self._registration.register(name, bucket), bucket)
        head = self._head()
        named = self._buckets.named(self._buckets.all(head), name)
        if named.reason:
            raise LedgerRefused(f"the bucket of {name} cannot be used: {named.reason}")
        return self._members.registration(self._members.own(name, head), named, None)

    def _all_epochs(self) -> Iterator[Epoch]:
        newest = self.round()
        for round in range(0 if newest is None else newest + 1):
            epoch = self._epochs.epoch(round)
            if epoch is None:
                return
            yield epoch

    def _head(self) -> int:
        """The newest block that any endpoint has named: one that is behind does not turn time back."""
        self._newest = max(self._newest, self._chain.head())
        if not self._is_checked:
            self._check_subnet(self._newest)
        return self._newest

    def _check_subnet(self, head: int) -> None:
        netuid, rounds = self._view.netuid, self._times.round_blocks
        if not self._view.exists(head):
            raise LedgerRefused(f"subnet {netuid} does not exist on this chain")
        tempo = self._view.number("Tempo", head)
        # An older runtime has one block more between epochs than its tempo says.
        if not 0 < tempo <= rounds + 1:
            raise LedgerRefused(
                f"subnet {netuid} has an epoch every {tempo} blocks: rounds of {rounds} blocks are shorter than that"
            )
        self._is_checked = True
