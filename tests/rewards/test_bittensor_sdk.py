"""The chain's kit behind ``ChainClient``, with a kit that is made up: which of its errors mean what."""

import sys
import types
from typing import ClassVar

import pytest

from gauntlet_jax.rewards import bittensor_sdk
from gauntlet_jax.rewards.bittensor_sdk import Deadlines, WalletPlace, connector
from gauntlet_jax.rewards.chain_client import Call, CallFailed, CallLost, ChainDown, HistoryPruned
from gauntlet_jax.rewards.ledger import LedgerRefused

CALL = Call("SubtensorModule", "set_weights", {"netuid": 3})
ENDPOINT = "wss://user:s3cret@node.example:443/s3cret"


class BittensorError(Exception):
    pass


class KeyfileError(Exception):
    pass


class WrongPasswordError(KeyfileError):
    pass


class Keyfile:
    def __init__(self, address, password=None, exists=True):
        self.address, self.password, self.exists = address, password, exists

    def exists_on_device(self):
        return self.exists

    def is_encrypted(self):
        return self.password is not None

    def get_keypair(self, password=None):
        if password != self.password:
            raise WrongPasswordError(f"{password} is wrong")
        return types.SimpleNamespace(ss58_address=self.address)


class Wallet:
    coldkey_file = Keyfile("5Cold", "s3cret")
    hotkey_file = Keyfile("5Hot")
    coldkeypub = types.SimpleNamespace(ss58_address="5Cold")

    def __init__(self, name, hotkey, path):
        pass

    @property
    def hotkeypub(self):
        raise FileNotFoundError


class Node:
    """What ``RpcSubstrate`` offers; ``error`` is raised, ``result`` is a submission's."""

    submitted: ClassVar[list[tuple[str, str, int]]] = []
    error = None
    result = types.SimpleNamespace(success=True, error=None)

    def __init__(self, endpoint, *, fallback_endpoints, archive_endpoints):
        assert (endpoint, fallback_endpoints, archive_endpoints) == (ENDPOINT, [], [])

    async def connect(self):
        self.fail()

    async def close(self):
        pass

    async def block_number(self):
        self.fail()
        return 7

    async def block_hash(self, block):
        self.fail()
        return "0x" + f"{block:064x}" if block <= 7 else None

    async def query(self, pallet, item, keys, block_hash):
        self.fail()
        return [pallet, item, keys, block_hash[-1]]

    async def query_map(self, pallet, item, keys, block_hash):
        return [(1, "one")]

    async def compose(self, call):
        return call

    async def submit(self, composed, keys, *, period):
        self.fail()
        self.submitted.append((composed[1], keys.ss58_address, period))
        return self.result

    def fail(self):
        if Node.error is not None:
            raise Node.error


@pytest.fixture
def kit(monkeypatch):
    module, keyfiles = types.ModuleType("bittensor"), types.ModuleType("bittensor.keyfiles")
    module.BittensorError, module.RpcSubstrate, module.Wallet = BittensorError, Node, Wallet
    keyfiles.KeyfileError, keyfiles.WrongPasswordError = KeyfileError, WrongPasswordError
    module.keyfiles = keyfiles
    monkeypatch.setitem(sys.modules, "bittensor", module)
    monkeypatch.setitem(sys.modules, "bittensor.keyfiles", keyfiles)
    monkeypatch.setattr(Node, "error", None)
    monkeypatch.setattr(Node, "submitted", [])


@pytest.fixture
def client(kit):
    opened = connected(lambda: "s3cret")
    yield opened
    opened.close()
    opened.close()


def connected(password):
    return connector(WalletPlace("w", "h", "/wallets", password, None), Deadlines(read=1.0, submit=1.0))(
        ENDPOINT
    )


def test_reads(client):
    assert client.head() == 7
    assert client.block_hash(5) == bytes(31) + b"\x05"
    assert client.storage("System", "Account", ("5Cold",), 6) == ["System", "Account", ["5Cold"], "6"]
    assert client.storage_map("SubtensorModule", "Keys", (3,), 6) == [(1, "one")]
    assert (client.hotkey, client.coldkey) == ("5Hot", "5Cold")
    with pytest.raises(ChainDown, match=r"wss://node\.example:443 has no block 8 yet"):
        client.block_hash(8)


@pytest.mark.parametrize("error", [BittensorError("s3cret"), OSError("s3cret"), TimeoutError()])
def test_an_endpoint_that_does_not_answer(client, monkeypatch, error):
    monkeypatch.setattr(Node, "error", error)
    with pytest.raises(ChainDown, match=rf"{type(error).__name__} at wss://node.example:443") as caught:
        client.head()
    assert "s3cret" not in str(caught.value)
    with pytest.raises(CallLost):
        client.submit(CALL, "hotkey", lifetime=16)
    with pytest.raises(ChainDown):
        connected(None)


def test_state_that_is_gone(client, monkeypatch):
    client.block_hash(2)
    monkeypatch.setattr(Node, "error", BittensorError("State discarded for 0x02"))
    with pytest.raises(HistoryPruned):
        client.storage("Timestamp", "Now", (), 2)


def test_a_call_is_signed_and_lives_for_a_while(client, monkeypatch):
    client.submit(CALL, "hotkey", lifetime=16)
    client.submit(CALL, "coldkey", lifetime=8)
    assert Node.submitted == [("set_weights", "5Hot", 16), ("set_weights", "5Cold", 8)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("SettingWeightsTooFast", CallFailed), (None, CallLost), ("Usurped", CallLost), ("Stale", CallLost)],
)
def test_what_the_chain_says_of_a_call(client, monkeypatch, name, kind):
    failed = types.SimpleNamespace(success=False, error=types.SimpleNamespace(name=name))
    monkeypatch.setattr(Node, "result", failed)
    with pytest.raises(kind) as caught:
        client.submit(CALL, "hotkey", lifetime=16)
    assert kind is CallLost or caught.value.name == name


@pytest.mark.parametrize(
    ("password", "match"),
    [
        (lambda: "wrong s3cret", "^wrong password for the coldkey of wallet w$"),
        (lambda: "", "is encrypted: give its password"),
        (None, "is encrypted: give its password"),
    ],
)
def test_a_wallet_that_does_not_open(kit, password, match):
    client = connected(password)
    with pytest.raises(LedgerRefused, match=match) as caught:
        client.submit(CALL, "coldkey", lifetime=16)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert not Node.submitted
    client.close()


def test_a_wallet_that_is_not_there(kit, monkeypatch):
    monkeypatch.setattr(Wallet, "hotkey_file", Keyfile("5Hot", exists=False))
    client = connected(None)
    with pytest.raises(LedgerRefused, match="wallet w below /wallets has no hotkey h: make it with btcli"):
        _ = client.hotkey
    client.close()


def test_without_the_kit_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "bittensor", None)
    with pytest.raises(ValueError, match=r"pip install gauntlet-jax\[bittensor\]"):
        connected(None)
    assert bittensor_sdk.SdkClient is not None
