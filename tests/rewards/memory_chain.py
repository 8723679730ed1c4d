"""A subtensor chain with one subnet in memory: it speaks the calls and storage of ``ChainClient``, and breaks when it is told to.

It follows the pallet's rules for registration and pruning, rate limits, permits, commits and reveals, and computes its epochs
with ``rewards.yuma``, rounded to u16. Blocks are made by hand. One thing is simpler than on a chain: weights of the subnet's owner
on itself do not count.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gauntlet_jax.rewards.bittensor_ledger import BittensorLedger
from gauntlet_jax.rewards.block_times import BlockTimes
from gauntlet_jax.rewards.bucket_commitment import Fetch
from gauntlet_jax.rewards.chain_client import Call, CallFailed, CallLost, ChainDown, HistoryPruned, Signer
from gauntlet_jax.rewards.chain_weights import WeightRow, commit_hash
from gauntlet_jax.rewards.subnet_registration import NodeCard
from gauntlet_jax.rewards.subnet_weights import WeightPolicy
from gauntlet_jax.rewards.yuma import U16, split_emission, to_u16, yuma

BLOCK_SECONDS = 12
GENESIS_TIME = 1_700_000_000


class Subnet(NamedTuple):
    """What the subnet's owner has set."""

    netuid: int = 3
    tempo: int = 12
    max_uids: int = 16
    rate_limit: int = 5
    commits: bool = True
    reveal_period: int = 1
    activity_cutoff: int = 5000
    min_allowed: int = 1024
    max_limit: int = U16
    version_key: int = 0
    immunity: int = 0
    max_validators: int = 8
    burn: int = 1000
    emission: int = 9_020_050_347
    takes_registrations: bool = True


class MemoryChain:
    """The chain; ``client`` gives a wallet's connection to it."""

    def __init__(self, subnet: Subnet, owner: str) -> None:
        self.subnet = subnet
        self.owner = owner
        self.faults: list[str | int] = []
        self.down: set[str] = set()
        self.keeps: dict[str, int] = {}
        self.taken: list[tuple[str, str]] = []
        self.reads = 0
        self.slept = 0.0
        self.block = 0
        self._stakes: dict[str, int] = {}
        self._since = 0
        self._index = 0
        self._pending: list[tuple[int, Call, str, str]] = []
        self._state: dict[tuple[str, str], dict[tuple[Any, ...], Any]] = {}
        net = (subnet.netuid,)
        for item, value in {
            "NetworksAdded": True,
            "Tempo": subnet.tempo,
            "Burn": subnet.burn,
            "NetworkRegistrationAllowed": subnet.takes_registrations,
            "CommitRevealWeightsEnabled": subnet.commits,
            "RevealPeriodEpochs": subnet.reveal_period,
            "WeightsSetRateLimit": subnet.rate_limit,
            "MinAllowedWeights": subnet.min_allowed,
            "MaxWeightsLimit": subnet.max_limit,
            "WeightsVersionKey": subnet.version_key,
            "SubnetOwnerHotkey": owner,
            "SubnetworkN": 0,
            **dict.fromkeys(
                (
                    "Active",
                    "Consensus",
                    "Incentive",
                    "Dividends",
                    "ValidatorTrust",
                    "ValidatorPermit",
                    "Emission",
                    "StakeWeight",
                    "LastUpdate",
                ),
                (),
            ),
        }.items():
            self._put(item, net, value)
        self._history: list[dict[tuple[str, str], dict[tuple[Any, ...], Any]]] = []
        self._seal()

    def client(self, hotkey: str, coldkey: str, endpoint: str = "ws://127.0.0.1:9944") -> "MemoryClient":
        return MemoryClient(self, hotkey, coldkey, endpoint)

    def advance(self, blocks: int) -> None:
        for _ in range(blocks):
            self.block += 1
            self._since += 1
            if self._since >= self.subnet.tempo:
                self._run_epoch()
                self._since, self._index = 0, self._index + 1
            for due, call, hotkey, coldkey in list(self._pending):
                if due <= self.block:
                    self._pending.remove((due, call, hotkey, coldkey))
                    self._dispatch(call, hotkey, coldkey)
            self._seal()

    def advance_to(self, block: int) -> None:
        assert block >= self.block
        self.advance(block - self.block)

    def clock(self) -> float:
        return self.slept

    def sleep(self, seconds: float) -> None:
        """Blocks are made meanwhile."""
        before = int(self.slept // BLOCK_SECONDS)
        self.slept += seconds
        self.advance(int(self.slept // BLOCK_SECONDS) - before)

    def next_epoch(self) -> int:
        return self.block + self.subnet.tempo - self._since

    def fund(self, coldkey: str, units: int) -> None:
        self._put_in("System", "Account", (coldkey,), {"data": {"free": units}})
        self._seal()

    def funds(self, coldkey: str) -> int:
        return self.state("System", "Account", (coldkey,))["data"]["free"]

    def stake(self, hotkey: str, units: int) -> None:
        """Counts from the next epoch on."""
        self._stakes[hotkey] = units

    def change(self, item: str, value: Any) -> None:
        """What the subnet's owner sets later."""
        self._put(item, (self.subnet.netuid,), value)
        self._seal()

    def commit_bytes(self, hotkey: str, fields: Any) -> None:
        """Anybody's commitment, whatever is in it."""
        key = (self.subnet.netuid, hotkey)
        self._put_in(
            "Commitments",
            "CommitmentOf",
            key,
            {"deposit": 0, "block": self.block, "info": {"fields": fields}},
        )
        self._seal()

    def state(self, pallet: str, item: str, keys: tuple[Any, ...], block: int | None = None) -> Any:
        state = self._history[self.block if block is None else block]
        empty = {"data": {"free": 0}} if item == "Account" else 0 if item == "BlocksSinceLastStep" else None
        return state.get((pallet, item), {}).get(keys, empty)

    def entries(self, pallet: str, item: str, keys: tuple[Any, ...], block: int) -> list[tuple[Any, Any]]:
        found = self._history[block].get((pallet, item), {})
        return [(key[-1], value) for key, value in found.items() if key[:-1] == keys]

    def take(self, call: Call, hotkey: str, coldkey: str, signer: Signer, lifetime: int) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault == "before":
            raise CallLost("the connection broke")
        if isinstance(fault, int):
            # It lies in the pool for so many blocks, if it lives so long.
            if fault <= lifetime:
                self._pending.append((self.block + fault, call, hotkey, coldkey))
            raise CallLost("the connection broke")
        assert signer == ("coldkey" if call.function == "burned_register" else "hotkey")
        failed = self._dispatch(call, hotkey, coldkey)
        self._seal()
        if fault == "after":
            raise CallLost("the connection broke")
        if failed is not None:
            raise failed

    def _put(self, item: str, keys: tuple[Any, ...], value: Any) -> None:
        self._put_in("SubtensorModule", item, keys, value)

    def _put_in(self, pallet: str, item: str, keys: tuple[Any, ...], value: Any) -> None:
        entries = dict(self._state.get((pallet, item), {}))
        entries.pop(keys, None)
        if value is not None:
            entries[keys] = value
        self._state[pallet, item] = entries

    def _get(self, item: str, *keys: Any) -> Any:
        return self._state.get(("SubtensorModule", item), {}).get((self.subnet.netuid, *keys))

    def _vector(self, item: str, uid: int, value: Any) -> None:
        numbers = list(self._get(item))
        numbers += [0] * (uid + 1 - len(numbers))
        numbers[uid] = value
        self._put(item, (self.subnet.netuid,), tuple(numbers))

    def _seal(self) -> None:
        self._put("BlocksSinceLastStep", (self.subnet.netuid,), self._since)
        now = (GENESIS_TIME + self.block * BLOCK_SECONDS) * 1000
        self._put_in("Timestamp", "Now", (), now)
        del self._history[self.block :]
        self._history.append(dict(self._state))

    def _dispatch(self, call: Call, hotkey: str, coldkey: str) -> CallFailed | None:
        try:
            arguments = dict(call.arguments)
            if arguments.pop("netuid") != self.subnet.netuid:
                raise CallFailed("SubnetNotExists", "no such subnet")
            getattr(self, f"_{call.function}")(hotkey, coldkey, **arguments)
        except CallFailed as failed:
            return failed
        self.taken.append((call.function, hotkey))
        return None

    def _burned_register(self, signed: str, coldkey: str, hotkey: str) -> None:
        assert signed == hotkey
        if not self._get("NetworkRegistrationAllowed"):
            raise CallFailed("SubNetRegistrationDisabled", "disabled")
        if self._get("Uids", hotkey) is not None:
            raise CallFailed("HotKeyAlreadyRegisteredInSubNet", "registered")
        burn = self._get("Burn")
        account = self._state.get(("System", "Account"), {}).get((coldkey,))
        free = 0 if account is None else account["data"]["free"]
        if free < burn:
            raise CallFailed("NotEnoughBalanceToStake", "too poor")
        size = self._get("SubnetworkN")
        uid = size
        if size >= self.subnet.max_uids:
            uid = self._to_prune(size)
            old = self._get("Keys", uid)
            self._put("Uids", (self.subnet.netuid, old), None)
            for item in ("Weights", "Bonds"):
                self._put(item, (self.subnet.netuid, uid), None)
        else:
            self._put("SubnetworkN", (self.subnet.netuid,), size + 1)
        self._put_in("System", "Account", (coldkey,), {"data": {"free": free - burn}})
        self._put("Keys", (self.subnet.netuid, uid), hotkey)
        self._put("Uids", (self.subnet.netuid, hotkey), uid)
        self._put("BlockAtRegistration", (self.subnet.netuid, uid), self.block)
        for item in ("Consensus", "Incentive", "Dividends", "ValidatorTrust", "Emission", "StakeWeight"):
            self._vector(item, uid, 0)
        self._vector("ValidatorPermit", uid, False)
        self._vector("Active", uid, True)
        self._vector("LastUpdate", uid, self.block)

    def _to_prune(self, size: int) -> int:
        emission, registered = (
            self._get("Emission"),
            [self._get("BlockAtRegistration", u) for u in range(size)],
        )
        mortal = [uid for uid in range(size) if self._get("Keys", uid) != self.owner]
        free = [uid for uid in mortal if self.block - registered[uid] >= self.subnet.immunity]
        if not mortal:
            raise CallFailed("NoNeuronIdAvailable", "full")
        return min(free or mortal, key=lambda uid: (emission[uid], registered[uid], uid))

    def _set_commitment(self, hotkey: str, _: str, info: Mapping[str, Any]) -> None:
        if self._get("Uids", hotkey) is None:
            raise CallFailed("AccountNotAllowedCommit", "not registered")
        (field,) = info["fields"]
        ((name, data),) = field.items()
        assert name == f"Raw{len(data)}"
        assert len(data) <= 128
        key = (self.subnet.netuid, hotkey)
        value = {"deposit": 0, "block": self.block, "info": {"fields": [{name: "0x" + data.hex()}]}}
        self._put_in("Commitments", "CommitmentOf", key, value)

    def _set_weights(
        self, hotkey: str, _: str, dests: list[int], weights: list[int], version_key: int
    ) -> None:
        if self._get("CommitRevealWeightsEnabled"):
            raise CallFailed("CommitRevealEnabled", "commit first")
        uid = self._check_row(hotkey, dests, weights, version_key)
        self._check_rate(uid, "SettingWeightsTooFast")
        self._store_row(uid, dests, weights)
        self._vector("LastUpdate", uid, self.block)

    def _commit_weights(self, hotkey: str, _: str, commit_hash: bytes) -> None:
        uid = self._uid(hotkey)
        if not self._get("CommitRevealWeightsEnabled"):
            raise CallFailed("CommitRevealDisabled", "set them")
        self._check_rate(uid, "CommittingWeightsTooFast")
        queue = self._unexpired(hotkey)
        if len(queue) >= 10:
            raise CallFailed("TooManyUnrevealedCommits", "reveal first")
        entry = ("0x" + commit_hash.hex(), self._index, self.block, 0)
        self._put("WeightCommits", (self.subnet.netuid, hotkey), (*queue, entry))
        self._vector("LastUpdate", uid, self.block)

    def _reveal_weights(
        self, hotkey: str, _: str, uids: list[int], values: list[int], salt: list[int], version_key: int
    ) -> None:
        words = b"".join(word.to_bytes(2, "little") for word in salt)
        row = WeightRow(tuple(uids), tuple(values))
        shown = "0x" + commit_hash(hotkey, self.subnet.netuid, row, words, version_key).hex()
        queue = self._unexpired(hotkey)
        at = next((i for i, entry in enumerate(queue) if entry[0] == shown), None)
        if not queue:
            raise CallFailed("NoWeightsCommitFound", "no commit")
        if at is None:
            raise CallFailed("InvalidRevealCommitHashNotMatch", "another commit")
        if queue[at][1] + self._get("RevealPeriodEpochs") != self._index:
            raise CallFailed("RevealTooEarly", "too early")
        uid = self._check_row(hotkey, uids, values, version_key)
        self._put("WeightCommits", (self.subnet.netuid, hotkey), queue[at + 1 :] or None)
        self._store_row(uid, uids, values)

    def _unexpired(self, hotkey: str) -> tuple[Any, ...]:
        queue = self._get("WeightCommits", hotkey) or ()
        return tuple(entry for entry in queue if self._index <= entry[1] + self._get("RevealPeriodEpochs"))

    def _uid(self, hotkey: str) -> int:
        uid = self._get("Uids", hotkey)
        if uid is None:
            raise CallFailed("HotKeyNotRegisteredInSubNet", "not registered")
        return uid

    def _check_rate(self, uid: int, error: str) -> None:
        last = self._get("LastUpdate")[uid]
        if last and self.block - last < self._get("WeightsSetRateLimit"):
            raise CallFailed(error, "too fast")

    def _check_row(self, hotkey: str, uids: list[int], values: list[int], version_key: int) -> int:
        uid, size = self._uid(hotkey), self._get("SubnetworkN")
        if version_key < self._get("WeightsVersionKey"):
            raise CallFailed("IncorrectWeightVersionKey", "old")
        if not self._get("ValidatorPermit")[uid] and hotkey != self.owner and uids != [uid]:
            raise CallFailed("NeuronNoValidatorPermit", "no permit")
        if len(set(uids)) != len(uids) or len(uids) != len(values):
            raise CallFailed("DuplicateUids", "twice")
        if not all(0 <= other < size for other in uids):
            raise CallFailed("UidVecContainInvalidOne", "no such uid")
        if len(uids) < min(size, self._get("MinAllowedWeights")):
            raise CallFailed("WeightVecLengthIsLow", "too few")
        limit = self._get("MaxWeightsLimit")
        if limit < U16 and max(values) / sum(values) > limit / U16:
            raise CallFailed("MaxWeightExceeded", "too much")
        return uid

    def _store_row(self, uid: int, uids: list[int], values: list[int]) -> None:
        top = max(values)
        row = tuple((other, round(value * U16 / top)) for other, value in zip(uids, values, strict=True))
        self._put("Weights", (self.subnet.netuid, uid), row)

    def _run_epoch(self) -> None:
        size, net = self._get("SubnetworkN"), (self.subnet.netuid,)
        hotkeys = [self._get("Keys", uid) for uid in range(size)]
        registered = np.array([self._get("BlockAtRegistration", uid) for uid in range(size)], int)
        updated = np.array(self._get("LastUpdate"), int)
        stakes = [self._stakes.get(hotkey, 0) for hotkey in hotkeys]
        active = updated + self.subnet.activity_cutoff >= self.block
        counted = updated[:, None] > registered[None, :]
        for uid, hotkey in enumerate(hotkeys):
            if queue := self._unexpired(hotkey):
                counted[uid] &= registered <= queue[0][2]
        bonds = self._matrix("Bonds", size)
        bonds[:, registered >= self.block - self.subnet.tempo + 1] = 0
        permits = np.array(self._get("ValidatorPermit"), bool)
        found = yuma(self._matrix("Weights", size), stakes, bonds, permits & active, counted=counted)
        peers, validators, _ = split_emission(found.incentive, found.dividends, stakes, self.subnet.emission)
        best = sorted(range(size), key=lambda uid: -stakes[uid])[: self.subnet.max_validators]
        for item, numbers in {
            "Active": active,
            "Consensus": to_u16(found.consensus),
            "Incentive": to_u16(found.incentive),
            "Dividends": to_u16(found.dividends),
            "ValidatorTrust": to_u16(np.minimum(found.trust, 1.0)),
            "Emission": peers + validators,
            "ValidatorPermit": np.array([uid in best and stakes[uid] > 0 for uid in range(size)], bool),
            "StakeWeight": np.array([stake * U16 // max(1, sum(stakes)) for stake in stakes], int),
        }.items():
            self._put(item, net, tuple(numbers.tolist()))
        held = to_u16(found.bonds)
        for uid in range(size):
            row = tuple((other, int(bond)) for other, bond in enumerate(held[uid]) if bond)
            self._put("Bonds", (*net, uid), row if self._get("ValidatorPermit")[uid] else None)

    def _matrix(self, item: str, size: int) -> np.ndarray:
        matrix = np.zeros((size, size))
        for uid in range(size):
            for other, value in self._get(item, uid) or ():
                matrix[uid, other] = value
        return matrix


class MemoryClient:
    """One wallet's ``ChainClient``, through one endpoint."""

    def __init__(self, chain: MemoryChain, hotkey: str, coldkey: str, endpoint: str) -> None:
        self.chain = chain
        self.hotkey = hotkey
        self.coldkey = coldkey
        self.endpoint = endpoint
        self.is_closed = False

    def head(self) -> int:
        self._answer(None)
        return self.chain.block

    def block_hash(self, block: int) -> bytes:
        self._answer(None)
        assert block <= self.chain.block
        return hashlib.blake2b(f"block {block}".encode(), digest_size=32).digest()

    def storage(self, pallet: str, item: str, keys: tuple[Any, ...], block: int) -> Any:
        self._answer(block)
        return self.chain.state(pallet, item, keys, block)

    def storage_map(self, pallet: str, item: str, keys: tuple[Any, ...], block: int) -> list[tuple[Any, Any]]:
        self._answer(block)
        return self.chain.entries(pallet, item, keys, block)

    def submit(self, call: Call, signer: Signer, *, lifetime: int) -> None:
        self._answer(None)
        self.chain.take(call, self.hotkey, self.coldkey, signer, lifetime)

    def close(self) -> None:
        self.is_closed = True

    def _answer(self, block: int | None) -> None:
        assert not self.is_closed
        self.chain.reads += 1
        if self.endpoint in self.chain.down:
            raise ChainDown(f"{self.endpoint} refuses connections")
        keeps = self.chain.keeps.get(self.endpoint)
        if block is not None and keeps is not None and block < self.chain.block - keeps:
            raise HistoryPruned(f"the state of block {block} is gone")


def ss58(name: str) -> str:
    """A made-up hotkey's address."""
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    body = b"\x2a" + hashlib.sha256(name.encode()).digest()
    number = int.from_bytes(body + hashlib.blake2b(b"SS58PRE" + body).digest()[:2], "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = alphabet[digit] + digits
    return digits


def no_page(url: str, most: int) -> bytes:
    """Nothing lies below any URL."""
    raise OSError("nobody is there")


def ledger_of(
    chain: MemoryChain,
    hotkey: str,
    times: BlockTimes,
    *,
    client: Any = None,
    fetch: Fetch = no_page,
    url: str = "",
    most_burn: int = 10**6,
    version_key: int = 0,
    wait_blocks: int = 0,
    call_seconds: float = 600.0,
) -> BittensorLedger:
    """A node's ledger; its signing key is made of its hotkey."""
    return BittensorLedger(
        client or chain.client(hotkey, f"{hotkey} pays"),
        chain.subnet.netuid,
        times,
        card=NodeCard(key_of(hotkey), url, most_burn),
        policy=WeightPolicy(version_key, wait_blocks),
        fetch=fetch,
        clock=chain.clock,
        sleep=chain.sleep,
        call_seconds=call_seconds,
    )


def key_of(hotkey: str) -> str:
    return hashlib.sha256(hotkey.encode()).hexdigest()
