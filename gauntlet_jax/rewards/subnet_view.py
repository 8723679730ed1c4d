"""One subnet as a chain's storage has it after a block: its uids, its rules, its epochs; answers are checked for their shape."""

from typing import Any, NamedTuple

from gauntlet_jax.rewards.bucket_commitment import MAX_COMMITMENT
from gauntlet_jax.rewards.chain_client import ChainClient, ChainDown
from gauntlet_jax.rewards.chain_weights import WeightRules
from gauntlet_jax.rewards.yuma import U16

MAX_UIDS = 4096
_MAX_NUMBER = 2**128
_HASH_DIGITS = 64
_PALLET = "SubtensorModule"


class Neuron(NamedTuple):
    """Who holds a uid of a subnet.

    Attributes:
      uid: its place.
      hotkey: its address.
      registered: block at which it got the uid.
      permit: whether it may weigh.
      stake: its part of the stake that counts, of 65535.
      updated: block at which it last set or committed to weights; that of its registration before.
      is_reserve: whether what is given to it goes to nobody: the subnet owner's uid, whose incentive the chain burns.
    """

    uid: int
    hotkey: str
    registered: int
    permit: bool
    stake: int
    updated: int
    is_reserve: bool


class EpochTerms(NamedTuple):
    """What an epoch wrote, by uid: u16 each, and the emission in the subnet's smallest unit."""

    consensus: list[int]
    incentive: list[int]
    dividends: list[int]
    trust: list[int]
    emission: list[int]


class SubnetView:
    """Reads of one subnet."""

    def __init__(self, chain: ChainClient, netuid: int, reserve_uid: int | None) -> None:
        """Reads of a subnet; nothing is asked yet.

        Args:
          chain: answers.
          netuid: of the subnet, 1 to 65535.
          reserve_uid: which uid stands for the reserve; None for the one of the subnet owner's hotkey.

        Raises:
          ValueError: it is none, or the root.
        """
        if not 1 <= netuid <= U16:
            raise ValueError(f"netuid={netuid}: a subnet's number is between 1 and {U16}")
        self._chain = chain
        self.netuid = netuid
        self._reserve_uid = reserve_uid

    def exists(self, block: int) -> bool:
        """Whether there is such a subnet."""
        return self._read("NetworksAdded", block) is True

    def number(self, item: str, block: int) -> int:
        """A whole number that the chain keeps for the subnet."""
        return _whole(item, self._read(item, block))

    def takes_registrations(self, block: int) -> bool:
        """Whether anybody may register."""
        return self._read("NetworkRegistrationAllowed", block) is True

    def wants_commits(self, block: int) -> bool:
        """Whether weights are committed to before they are shown."""
        return self._read("CommitRevealWeightsEnabled", block) is True

    def time(self, block: int) -> float:
        """When a block was made, Unix seconds."""
        return _whole("Now", self._chain.storage("Timestamp", "Now", (), block)) / 1000

    def free_balance(self, account: str, block: int) -> int:
        """What an account may spend, rao."""
        found = self._chain.storage("System", "Account", (account,), block)
        data = found.get("data") if isinstance(found, dict) else None
        if not isinstance(data, dict):
            raise _misshapen("Account")
        return _whole("Account", data.get("free"))

    def uid_of(self, hotkey: str, block: int) -> int | None:
        """The uid of a hotkey; None for one that is not registered."""
        found = self._chain.storage(_PALLET, "Uids", (self.netuid, hotkey), block)
        return None if found is None else _whole("Uids", found, MAX_UIDS)

    def neurons(self, block: int) -> list[Neuron]:
        """Who holds the uids, in their order."""
        hotkeys = {uid: _text("Keys", hotkey) for uid, hotkey in self._map("Keys", block).items()}
        registered = self._map("BlockAtRegistration", block)
        permits = self._vector("ValidatorPermit", block)
        stakes, updates = self._vector("StakeWeight", block), self._vector("LastUpdate", block)
        owner = self._read("SubnetOwnerHotkey", block)

        def at(what: str, numbers: list[Any], uid: int) -> int:
            # A vector may be shorter where the uid is newer than the last epoch.
            return _whole(what, numbers[uid]) if uid < len(numbers) else 0

        return [
            Neuron(
                uid=uid,
                hotkey=hotkey,
                registered=_whole("BlockAtRegistration", registered.get(uid, 0)),
                permit=uid < len(permits) and permits[uid] is True,
                stake=min(U16, at("StakeWeight", stakes, uid)),
                updated=at("LastUpdate", updates, uid),
                is_reserve=hotkey == owner if self._reserve_uid is None else uid == self._reserve_uid,
            )
            for uid, hotkey in sorted(hotkeys.items())
        ]

    def rules(self, block: int) -> WeightRules:
        """What the subnet asks of weights."""
        return WeightRules(
            size=min(MAX_UIDS, self.number("SubnetworkN", block)),
            min_allowed=self.number("MinAllowedWeights", block),
            max_limit=self.number("MaxWeightsLimit", block),
            version_key=self.number("WeightsVersionKey", block),
        )

    def weights(self, block: int) -> dict[int, dict[int, int]]:
        """Weights above 0 by the uid of who set them, then by uid."""
        return {uid: _pairs("Weights", row) for uid, row in self._map("Weights", block).items()}

    def row(self, uid: int, block: int) -> dict[int, int]:
        """Weights above 0 of one uid."""
        return _pairs("Weights", self._chain.storage(_PALLET, "Weights", (self.netuid, uid), block))

    def bonds(self, block: int) -> dict[int, dict[int, int]]:
        """Bonds above 0 by the uid of the validator, then by uid."""
        return {uid: _pairs("Bonds", row) for uid, row in self._map("Bonds", block).items()}

    def open_commits(self, block: int) -> dict[str, set[bytes]]:
        """Hashes of weights that were committed to and not shown yet, by hotkey; expired ones may be among them."""
        entries = self._chain.storage_map(_PALLET, "WeightCommits", (self.netuid,), block)
        return {
            _text("WeightCommits", hotkey): _hashes(queue) for hotkey, queue in _few("WeightCommits", entries)
        }

    def own_commits(self, hotkey: str, block: int) -> set[bytes]:
        """Hashes of one hotkey's open commits."""
        return _hashes(self._chain.storage(_PALLET, "WeightCommits", (self.netuid, hotkey), block))

    def active(self, block: int) -> set[int]:
        """Uids whose weights were new enough for the newest epoch."""
        return {uid for uid, active in enumerate(self._vector("Active", block)) if active is True}

    def terms(self, block: int) -> EpochTerms:
        """What the newest epoch wrote."""
        items = ("Consensus", "Incentive", "Dividends", "ValidatorTrust", "Emission")
        return EpochTerms(*([_whole(item, n) for n in self._vector(item, block)] for item in items))

    def last_epoch(self, block: int) -> int:
        """The block of the newest epoch up to a block; of the subnet's beginning before its first."""
        return block - _whole("BlocksSinceLastStep", self._read("BlocksSinceLastStep", block), block)

    def commitments(self, block: int) -> dict[str, tuple[int, bytes]]:
        """By hotkey, when it was set and what it says; b"" where it is not plain bytes, or too many of them."""
        entries = self._chain.storage_map("Commitments", "CommitmentOf", (self.netuid,), block)
        return {
            _text("CommitmentOf", hotkey): _commitment(record)
            for hotkey, record in _few("CommitmentOf", entries)
        }

    def commitment(self, hotkey: str, block: int) -> bytes:
        """What one hotkey has committed to; b"" for nothing."""
        return _commitment(self._chain.storage("Commitments", "CommitmentOf", (self.netuid, hotkey), block))[
            1
        ]

    def _read(self, item: str, block: int) -> Any:
        return self._chain.storage(_PALLET, item, (self.netuid,), block)

    def _vector(self, item: str, block: int) -> list[Any]:
        found = self._read(item, block)
        if found is None:
            return []
        if not isinstance(found, list | tuple) or len(found) > MAX_UIDS:
            raise _misshapen(item)
        return list(found)

    def _map(self, item: str, block: int) -> dict[int, Any]:
        entries = _few(item, self._chain.storage_map(_PALLET, item, (self.netuid,), block))
        return {_whole(item, uid, MAX_UIDS): value for uid, value in entries}


def _few(item: str, entries: Any) -> list[tuple[Any, Any]]:
    if not isinstance(entries, list) or len(entries) > MAX_UIDS:
        raise _misshapen(item)
    if not all(isinstance(entry, list | tuple) and len(entry) == 2 for entry in entries):
        raise _misshapen(item)
    return [(key, value) for key, value in entries]


def _whole(item: str, value: Any, most: int = _MAX_NUMBER) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise _misshapen(item)
    return value


def _text(item: str, value: Any) -> str:
    if type(value) is not str or not 0 < len(value) <= 64 or not value.isalnum():
        raise _misshapen(item)
    return value


def _pairs(item: str, row: Any) -> dict[int, int]:
    if row is None:
        return {}
    if not isinstance(row, list | tuple) or len(row) > MAX_UIDS:
        raise _misshapen(item)
    try:
        entries = {_whole(item, uid, MAX_UIDS): _whole(item, value, U16) for uid, value in row}
    except (TypeError, ValueError) as error:
        raise _misshapen(item) from error
    return {uid: value for uid, value in entries.items() if value}


def _hashes(queue: Any) -> set[bytes]:
    """The first part of each entry: what follows it differs between runtimes."""
    if queue is None:
        return set()
    if not isinstance(queue, list | tuple) or len(queue) > MAX_UIDS:
        raise _misshapen("WeightCommits")
    if not all(isinstance(entry, list | tuple) and entry for entry in queue):
        raise _misshapen("WeightCommits")
    return {_bytes("WeightCommits", entry[0], _HASH_DIGITS // 2) for entry in queue}


def _bytes(item: str, value: Any, most: int) -> bytes:
    """Bytes, which a node gives as such, as hexadecimal digits after 0x, or as a list of numbers."""
    try:
        if isinstance(value, str) and value.startswith("0x") and len(value) <= 2 + 2 * most:
            return bytes.fromhex(value[2:])
        if isinstance(value, bytes | bytearray | list | tuple) and len(value) <= most:
            return bytes(value)
    except (TypeError, ValueError) as error:
        raise _misshapen(item) from error
    raise _misshapen(item)


def _commitment(record: Any) -> tuple[int, bytes]:
    """Anybody writes here what it wants, so what is not understood is no error of the chain's."""
    if not isinstance(record, dict):
        return 0, b""
    info, block = record.get("info"), record.get("block")
    fields = info.get("fields") if isinstance(info, dict) else None
    # One runtime wraps the list of fields once more.
    while isinstance(fields, list | tuple) and len(fields) == 1 and isinstance(fields[0], list | tuple):
        fields = fields[0]
    if type(block) is not int or not isinstance(fields, list | tuple) or len(fields) != 1:
        return 0, b""
    field = fields[0]
    if not isinstance(field, dict) or len(field) != 1:
        return block, b""
    name, value = next(iter(field.items()))
    if not (isinstance(name, str) and name.startswith("Raw")):
        return block, b""
    try:
        return block, _bytes("CommitmentOf", value, MAX_COMMITMENT)
    except ChainDown:
        return block, b""


def _misshapen(item: str) -> ChainDown:
    return ChainDown(f"an endpoint's answer for {item} is none of this chain: is it a subtensor node?")
