"""Who takes part in a round, by a subnet's uids."""

from collections.abc import Callable

from gauntlet_jax.rewards.block_times import BlockTimes
from gauntlet_jax.rewards.chain_client import HistoryPruned
from gauntlet_jax.rewards.ledger import LedgerRefused, Registration
from gauntlet_jax.rewards.subnet_buckets import NamedBucket
from gauntlet_jax.rewards.subnet_view import Neuron, SubnetView
from gauntlet_jax.rewards.yuma import U16


class SubnetMembers:
    """The members of a subnet, now and at the beginning of a round."""

    def __init__(self, view: SubnetView, times: BlockTimes, head: Callable[[], int]) -> None:
        """The members of a subnet.

        Args:
          view: of the subnet.
          times: of the run.
          head: number of the newest block.
        """
        self._view = view
        self._times = times
        self._head = head
        self._known: dict[int, list[Neuron]] = {}
        self._times_of: dict[int, float] = {}

    def of_round(self, round: int) -> list[Neuron]:
        """Who held a uid when a round began, by uid; before that, who would as it is now."""
        if round not in self._known:
            block, head = self._times.start(round) - 1, self._head()
            found = self._view.neurons(min(block, head))
            if not self._times.is_deep(block, head):
                return found
            self._known[round] = found
        return self._known[round]

    def own(self, hotkey: str, block: int) -> Neuron:
        """The uid of a hotkey.

        Raises:
          LedgerRefused: it has none.
        """
        for neuron in self._view.neurons(block):
            if neuron.hotkey == hotkey:
                return neuron
        raise LedgerRefused(
            f"hotkey {hotkey} is not registered on subnet {self._view.netuid}: register it first"
        )

    def until(self, round: int) -> dict[str, int]:
        """Of who took part in a round and has lost its uid since, the first round without it."""
        held = {neuron.uid: neuron for neuron in self._view.neurons(self._head())}
        found = {}
        for neuron in self.of_round(round):
            holder = held.get(neuron.uid)
            if holder is None or holder.hotkey == neuron.hotkey:
                continue
            # The uid may have gone through several hands; it has been the holder's from this round on at the latest.
            last = self._times.first_after(holder.registered)
            gone = (
                u for u in range(round + 1, last) if neuron.hotkey not in {n.hotkey for n in self.of_round(u)}
            )
            found[neuron.hotkey] = next(gone, last)
        return found

    def registration(self, neuron: Neuron, bucket: NamedBucket, until: int | None) -> Registration:
        """A member, as the contract has it.

        Args:
          neuron: its uid.
          bucket: what it says.
          until: the first round that it takes part in no more; None while it holds its uid.
        """
        validates = is_validator(neuron)
        return Registration(
            name=neuron.hotkey,
            bucket=bucket.address,
            registered_at=self._time_of(neuron.registered),
            public_key=bucket.public_key,
            slot=None if validates else neuron.uid,
            stake=neuron.stake / U16 if validates else 0.0,
            from_round=self._times.first_after(neuron.registered),
            until_round=until,
        )

    def _time_of(self, block: int) -> float:
        """When a block was made; of one that no endpoint has any more, about when."""
        if block not in self._times_of:
            try:
                self._times_of[block] = self._view.time(block)
            except HistoryPruned:
                head = self._head()
                return self._view.time(head) - (head - block) * self._times.block_seconds
        return self._times_of[block]


def is_validator(neuron: Neuron) -> bool:
    """Whether a uid may weigh, and its stake counts."""
    return neuron.permit and neuron.stake > 0


def is_peer(neuron: Neuron) -> bool:
    """Whether a uid may be weighed for its work."""
    return not neuron.is_reserve and not is_validator(neuron)
