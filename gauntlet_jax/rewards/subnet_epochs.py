"""Which epoch of a subnet belongs to a round, and what it made of the weights."""

from collections.abc import Callable, Mapping

from gauntlet_jax.rewards.block_times import BlockTimes
from gauntlet_jax.rewards.ledger import RESERVE, Epoch
from gauntlet_jax.rewards.subnet_view import EpochTerms, Neuron, SubnetView
from gauntlet_jax.rewards.yuma import U16


class SubnetEpochs:
    """The epochs of a subnet, by round.

    Commits to the weights of a round are taken from the close of its put window until the chain's next epoch, which closes them.
    Where the subnet demands no commits, that epoch is the round's. Where it does, they are shown after it, and the round's is as
    many epochs later as the subnet's reveal period has. A validator that is late counts with its older weights.
    """

    def __init__(self, view: SubnetView, times: BlockTimes, head: Callable[[], int]) -> None:
        """The epochs of a subnet.

        Args:
          view: of the subnet.
          times: of the run.
          head: number of the newest block.
        """
        self._view = view
        self._times = times
        self._head = head
        self._closed: dict[int, int] = {}
        self._blocks: dict[int, int] = {}
        self._epochs: dict[int, Epoch] = {}

    def commits_closed(self, round: int) -> int | None:
        """The block of the epoch that closes the commits of a round; None before it."""
        if round not in self._closed:
            block = self._step_after(self._times.close(round), 1)
            if block is None or not self._times.is_deep(block, self._head()):
                return block
            self._closed[round] = block
        return self._closed[round]

    def block_of(self, round: int) -> int | None:
        """The block of a round's epoch; None before it, and as long as it has not its confirmations."""
        if round not in self._blocks:
            closes = self._times.close(round)
            if closes > self._head():
                return None
            later = self._view.number("RevealPeriodEpochs", closes) if self._view.wants_commits(closes) else 0
            block = self._step_after(closes, 1 + later)
            if block is None or not self._times.is_deep(block, self._head()):
                return None
            self._blocks[round] = block
        return self._blocks[round]

    def epoch(self, round: int) -> Epoch | None:
        """What a round's epoch came to; None until then.

        An epoch pays once: if the rounds are a little shorter than the chain's period, now and then two of them have one epoch,
        and the second is paid nothing.
        """
        block = self.block_of(round)
        if block is None:
            return None
        if round not in self._epochs:
            found = self._read(round, block)
            if round and self.block_of(round - 1) == block:
                found = found._replace(payouts={}, reserve=0)
            self._epochs[round] = found
        return self._epochs[round]

    def steps_since(self, block: int, head: int, most: int) -> int:
        """Epochs after a block, ``most`` at most."""
        count, at = 0, head
        while count < most and (step := self._view.last_epoch(at)) > block:
            count, at = count + 1, step - 1
        return count

    def _step_after(self, block: int, count: int) -> int | None:
        """The ``count``-th epoch after a block, found with a few reads: about a round is looked through; None before it."""
        head = self._head()
        for _ in range(count):
            at = min(head, block + self._times.round_blocks)
            while (step := self._view.last_epoch(at)) <= block:
                if at >= head:
                    return None
                at = min(head, at + self._times.round_blocks)
            while (before := self._view.last_epoch(step - 1)) > block:
                step = before
            block = step
        return block

    def _read(self, round: int, block: int) -> Epoch:
        neurons, terms = self._view.neurons(block), self._view.terms(block)
        # Who may weigh was decided by the epoch before, and this one has decided anew.
        permitted = {neuron.uid for neuron in self._view.neurons(block - 1) if neuron.permit}
        active = self._view.active(block)
        weighing = {uid for uid, row in self._view.weights(block - 1).items() if row} & permitted & active
        names = {neuron.uid: RESERVE if neuron.is_reserve else neuron.hotkey for neuron in neurons}
        validators = {neuron.uid: neuron.hotkey for neuron in neurons if neuron.uid in permitted}

        def value(numbers: list[int], uid: int) -> int:
            return numbers[uid] if uid < len(numbers) else 0

        incentives = {uid: value(terms.incentive, uid) for uid in names}
        targets = [uid for uid in names if uid not in permitted or names[uid] == RESERVE or incentives[uid]]
        dividends = {uid: value(terms.dividends, uid) for uid in validators}
        payouts, reserve = _payouts(neurons, terms)
        return Epoch(
            round=round,
            consensus={names[uid]: value(terms.consensus, uid) / U16 for uid in targets},
            incentive={names[uid]: share for uid, share in _normalised(incentives).items() if uid in targets},
            trust={
                name: value(terms.trust, uid) / U16 for uid, name in validators.items() if uid in weighing
            },
            dividends={validators[uid]: share for uid, share in _normalised(dividends).items()},
            bonds={
                validators[uid]: {names[other]: bond for other, bond in row.items() if other in names}
                for uid, row in self._view.bonds(block).items()
                if uid in validators and row
            },
            payouts=payouts,
            reserve=reserve,
            # The chain keeps what each was paid, not what it divided.
            remainder=0,
        )


def _payouts(neurons: list[Neuron], terms: EpochTerms) -> tuple[dict[str, int], int]:
    """Emission by name, and the reserve's part: of the owner's uid, what it had as a peer and not as a validator."""
    payouts: dict[str, int] = {}
    reserve = 0
    for neuron in neurons:
        units = terms.emission[neuron.uid] if neuron.uid < len(terms.emission) else 0
        if neuron.is_reserve and units:
            incentive = terms.incentive[neuron.uid] if neuron.uid < len(terms.incentive) else 0
            dividends = terms.dividends[neuron.uid] if neuron.uid < len(terms.dividends) else 0
            # Neither: it was paid by its stake.
            burned = units * incentive // (incentive + dividends) if incentive + dividends else 0
            reserve, units = reserve + burned, units - burned
        if units:
            payouts[neuron.hotkey] = units
    return payouts, reserve


def _normalised(numbers: Mapping[int, int]) -> dict[int, float]:
    total = sum(numbers.values())
    return {uid: number / total if total else 0.0 for uid, number in numbers.items()}
