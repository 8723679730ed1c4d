"""A validator's weights on a subnet: committed to and shown, or set openly, as the subnet demands; each once a round."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gauntlet_jax.rewards import chain_weights
from gauntlet_jax.rewards.block_times import BlockTimes
from gauntlet_jax.rewards.chain_client import ChainClient
from gauntlet_jax.rewards.chain_refusals import TooEarly
from gauntlet_jax.rewards.chain_session import ChainSession
from gauntlet_jax.rewards.chain_weights import WeightRow
from gauntlet_jax.rewards.ledger import RESERVE, LedgerRefused
from gauntlet_jax.rewards.subnet_epochs import SubnetEpochs
from gauntlet_jax.rewards.subnet_members import SubnetMembers, is_peer
from gauntlet_jax.rewards.subnet_view import Neuron, SubnetView
from gauntlet_jax.types import PeerId


class WeightPolicy(NamedTuple):
    """How weights are sent.

    Attributes:
      version_key: of this version's weights; 0 where the subnet does not ask.
      wait_blocks: how many blocks a rate limit is waited for; a longer one is refused with ``TooEarly``.
    """

    version_key: int
    wait_blocks: int


class SubnetWeights:
    """The weights of one wallet's hotkey, and what the others have shown.

    Whatever a row depends on but for the weights themselves is taken from before its round, so that a process which was killed
    after a commit makes the same row again and can show it. What has been done is asked of the chain each time, nothing is
    remembered.
    """

    def __init__(
        self,
        chain: ChainClient,
        view: SubnetView,
        session: ChainSession,
        members: SubnetMembers,
        epochs: SubnetEpochs,
        *,
        times: BlockTimes,
        policy: WeightPolicy,
        head: Callable[[], int],
    ) -> None:
        """The weights of a hotkey; nothing is asked yet.

        Args:
          chain: names the wallet's keys.
          view: of the subnet.
          session: takes the calls.
          members: of the subnet.
          epochs: of the subnet.
          times: of the run.
          policy: how they are sent.
          head: number of the newest block.
        """
        self._chain = chain
        self._view = view
        self._session = session
        self._members = members
        self._epochs = epochs
        self._times = times
        self._policy = policy
        self._head = head

    def commit(self, round: int, weights: Mapping[PeerId, float], salt: bytes) -> None:
        """Binds the hotkey; where the subnet demands no commits, only checks the weights.

        Raises:
          LedgerRefused: too early (``TooEarly``), too late, not of this round's peers, bound to others, or not taken.
        """
        head, own = self._allowed()
        if head < self._times.close(round):
            raise self._too_early(round, head)
        row = self._row(round, weights, salt, head)
        if not self._view.wants_commits(head):
            return
        digest = self._digest(row, salt)
        if digest in self._view.own_commits(own.hotkey, head):
            return
        self._check_open(round)
        if self._weighed_in(round, own):
            raise LedgerRefused(f"round {round}: hotkey {own.hotkey} is bound to other weights already")
        self._respect_rate_limit(own, head)
        self._session.once(
            chain_weights.commit_weights(self._view.netuid, digest),
            "hotkey",
            lambda: digest in self._view.own_commits(own.hotkey, self._head()),
            check=lambda: self._check_open(round),
        )

    def reveal(self, round: int, weights: Mapping[PeerId, float], salt: bytes) -> None:
        """Shows the weights; where the subnet demands no commits, sets them.

        Raises:
          LedgerRefused: too early (``TooEarly``), too late, bound to others, or not taken.
        """
        head, own = self._allowed()
        if head < self._times.close(round):
            raise self._too_early(round, head)
        if self._view.wants_commits(head):
            self._show(round, weights, salt, head, own)
            return
        row = self._row(round, weights, salt, head)
        if self._weighed_in(round, own):
            self._check_shown(round, row, own, head)
            return
        self._check_open(round)
        self._respect_rate_limit(own, head)
        self._session.once(
            chain_weights.set_weights(self._view.netuid, row, self._policy.version_key),
            "hotkey",
            lambda: self._weighed_in(round, self._members.own(own.hotkey, self._head())),
            check=lambda: self._check_open(round),
        )

    def shown(self, round: int) -> dict[str, dict[PeerId, float]]:
        """The weights of a round that validators have shown, by validator, then by peer; each sums to 1."""
        head, opens = self._head(), self._times.close(round)
        if head < opens:
            return {}
        closed, epoch = self._epochs.commits_closed(round), self._epochs.block_of(round)
        at = head if closed is None else closed - 1
        weighed = {n.hotkey for n in self._view.neurons(at) if n.permit and _has_weighed(n, opens, closed)}
        if self._view.wants_commits(opens):
            open_then = self._view.open_commits(at)
            at = head if epoch is None else epoch - 1
            open_now = self._view.open_commits(at)
            # Whoever has shown what it committed to has that commit no more, nor any older one.
            weighed = {name for name in weighed if not open_then.get(name, set()) & open_now.get(name, set())}
        neurons, rows = self._view.neurons(at), self._view.weights(at)
        names = {n.uid: RESERVE if n.is_reserve else n.hotkey for n in neurons}
        found = {n.hotkey: rows[n.uid] for n in neurons if n.hotkey in weighed and rows.get(n.uid)}
        return {validator: _by_name(row, names) for validator, row in found.items()}

    def _show(self, round: int, weights: Mapping[PeerId, float], salt: bytes, head: int, own: Neuron) -> None:
        commits = self._view.own_commits(own.hotkey, head)
        # Who lost its uid between the close and the commit had no weight in it: the time of the commit tells.
        rows = [
            self._row(round, weights, salt, at) for at in (self._times.close(round), min(own.updated, head))
        ]
        row = next((row for row in rows if self._digest(row, salt) in commits), None)
        if row is None:
            self._check_shown(round, rows[0], own, head)
            return
        self._check_period(round, own, head)
        digest = self._digest(row, salt)
        self._session.once(
            chain_weights.reveal_weights(self._view.netuid, row, salt, self._policy.version_key),
            "hotkey",
            lambda: digest not in self._view.own_commits(own.hotkey, self._head()),
        )

    def _check_shown(self, round: int, row: WeightRow, own: Neuron, head: int) -> None:
        """That these very weights stand on the chain since this round, or a later one that has not shown its own yet."""
        since = own.updated >= self._times.close(round) and own.updated != own.registered
        if not since or self._view.row(own.uid, head) != row.entries:
            raise LedgerRefused(f"round {round}: hotkey {own.hotkey} is not bound to these weights")

    def _check_period(self, round: int, own: Neuron, head: int) -> None:
        """That the chain shows commits of this round now; where a newer commit hides the time of this one, the chain will say."""
        if not self._weighed_in(round, own):
            return
        period = self._view.number("RevealPeriodEpochs", head)
        passed = self._epochs.steps_since(own.updated, head, period + 1)
        if passed > period:
            raise LedgerRefused(f"round {round}: too late, the reveal period is over")
        if passed < period:
            tempo = self._view.number("Tempo", head)
            blocks = self._view.last_epoch(head) + tempo * (period - passed) - head
            raise TooEarly(f"the weights of round {round} can be shown", max(1, blocks))

    def _allowed(self) -> tuple[int, Neuron]:
        """The newest block and this hotkey's uid, if it may weigh."""
        head = self._head()
        own = self._members.own(self._chain.hotkey, head)
        if not own.permit and not own.is_reserve:
            raise LedgerRefused(
                f"insufficient stake: hotkey {own.hotkey} holds no validator permit on subnet {self._view.netuid}"
            )
        return head, own

    def _check_open(self, round: int) -> None:
        if self._epochs.commits_closed(round) is not None:
            raise LedgerRefused(f"round {round}: too late, an epoch has passed since its put window closed")

    def _too_early(self, round: int, head: int) -> TooEarly:
        return TooEarly(f"the put window of round {round} closes", self._times.close(round) - head)

    def _weighed_in(self, round: int, neuron: Neuron) -> bool:
        """Whether a validator has set or committed to weights of a round."""
        return _has_weighed(neuron, self._times.close(round), self._epochs.commits_closed(round))

    def _respect_rate_limit(self, own: Neuron, head: int) -> None:
        limit = self._view.number("WeightsSetRateLimit", head)
        blocks = own.updated + limit - head if own.updated else 0
        if blocks > self._policy.wait_blocks:
            raise TooEarly(f"subnet {self._view.netuid} takes weights of {own.hotkey} again", blocks)
        if blocks > 0:
            self._session.wait_blocks(blocks)

    def _digest(self, row: WeightRow, salt: bytes) -> bytes:
        return chain_weights.commit_hash(
            self._chain.hotkey, self._view.netuid, row, salt, self._policy.version_key
        )

    def _row(self, round: int, weights: Mapping[PeerId, float], salt: bytes, at: int) -> WeightRow:
        """Weights by name as a row, without those whose uid somebody else holds at a block."""
        netuid = self._view.netuid
        chain_weights.salt_words(salt)
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()):
            raise ValueError("weights must be finite and at least 0")
        members = self._members.of_round(round)
        uids = {RESERVE if n.is_reserve else n.hotkey: n.uid for n in members if is_peer(n) or n.is_reserve}
        holders = {n.uid: n.hotkey for n in self._view.neurons(at)}
        kept = {n.uid for n in members if holders.get(n.uid) == n.hotkey}
        shares: dict[int, float] = {}
        for name, weight in weights.items():
            if not weight:
                continue
            if name not in uids:
                what = (
                    "its owner has no uid to hold back with"
                    if name == RESERVE
                    else f"{name[:64]!r} is no peer of it"
                )
                raise LedgerRefused(f"weights of round {round} on subnet {netuid}: {what}")
            if uids[name] in kept:
                shares[uids[name]] = weight
        if not shares:
            # Nobody deserves anything: the chain takes no empty row, and without any it would pay by stake.
            if RESERVE not in uids:
                raise LedgerRefused(
                    f"weights of round {round}: all are 0, and subnet {netuid} has no uid to hold back with"
                )
            shares = {uids[RESERVE]: 1.0}
        rules = self._view.rules(self._times.start(round) - 1)
        if self._policy.version_key < rules.version_key:
            raise LedgerRefused(
                f"subnet {netuid} wants weights of version {rules.version_key} and this is {self._policy.version_key}: upgrade"
            )
        try:
            return chain_weights.weight_row(shares, rules)
        except ValueError as error:
            raise LedgerRefused(f"subnet {netuid}: {error}") from error


def _has_weighed(neuron: Neuron, opens: int, closed: int | None) -> bool:
    """Whether a validator has set or committed to weights last between two blocks: the chain notes when."""
    is_new = neuron.updated >= opens and neuron.updated != neuron.registered
    return is_new and (closed is None or neuron.updated < closed)


def _by_name(row: Mapping[int, int], names: Mapping[int, str]) -> dict[PeerId, float]:
    total = sum(row.values())
    return {names[uid]: value / total for uid, value in row.items() if uid in names}
