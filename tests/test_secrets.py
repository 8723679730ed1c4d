"""Nothing that a run writes, sends, says or raises repeats a secret: a round of two peers and a validator, and what goes wrong."""

import base64
import contextlib
import logging
import os
import socket
import threading
import time
import traceback
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import pytest

from gauntlet_jax.build.processes import Node, Surroundings, build_peer, build_validator
from gauntlet_jax.config import (
    CompressionConfig,
    Config,
    DataConfig,
    FinalityConfig,
    PeerConfig,
    ScheduleConfig,
    ValidatorConfig,
)
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.rewards import ledger_client
from gauntlet_jax.rewards.beacon_chain import make_chain
from gauntlet_jax.rewards.ledger import LedgerRefused, NotYetKnown
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.rewards.ledger_service import LedgerService
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.storage.bucket import BucketUnavailable, FolderBucket
from gauntlet_jax.storage.identity import Identity, load_or_create
from gauntlet_jax.storage.object_store import Credentials, open_own_bucket, publish
from gauntlet_jax.terms import terms_of
from gauntlet_jax.training.model import DecoderConfig

CONFIG = Config(
    name="tiny",
    peers=(PeerConfig("ada"), PeerConfig("ben")),
    rounds=2,
    model=DecoderConfig(width=16, layers=1, heads=2, kv_heads=1, intermediate=32),
    data=DataConfig(max_bytes=400_000, length=16, batch=8, capacity=2, heldout=64),
    compression=CompressionConfig(beta=0.9, k=8),
    learning_rate=ScheduleConfig(peak=4e-3, warmup_rounds=2, schedule_rounds=20),
    validator=ValidatorRules(top_g=1, max_sync_score=1.5),
    validators=(ValidatorConfig("V1", stake=1.0),),
    commit_reveal=True,
    times=RoundTimes(seconds=12.0, commit_closes=4.0, opens=4.0, closes=8.0),
    finality=FinalityConfig(weights_seconds=1.0, succession_seconds=2.0, veto_seconds=1.0),
    checkpoint_every=1,
)
NAMES = ("ada", "ben", "V1")
WRITE_KEY = "write+Secret/0123456789abcdefghijklmnop"
BEACON_SECRET = b"beacon secret of 32 bytes, fixed"
LINKS = make_chain(BEACON_SECRET, 2 * CONFIG.rounds + 2)[1]


def spellings(secret):
    """A secret as it may turn up: as it is, in hexadecimal, in base 64, as Python or a URL writes it."""
    return {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
        repr(secret)[2:-1].encode(),
        quote(secret, safe="").encode(),
        str(list(secret)).encode(),
    }


def found_in(text, secrets):
    return [name for name, secret in secrets.items() for spelt in spellings(secret) if spelt in text]


class Run:
    """A ledger and nodes in this process; the time is moved by hand, and all that passes is kept."""

    def __init__(self, folder):
        self.folder = folder
        self.time = 1000.0
        self.said = []
        self.sent = []
        self.clients = {}
        self.ledger = SharedRunLedger(folder / "ledger.sqlite", lambda: self.time)
        self.ledger.found(terms_of(CONFIG), anchor=make_chain(BEACON_SECRET, 6)[0], start_delay=None)
        self.ledger.begin(BEACON_SECRET)
        self.service = LedgerService(self.ledger)
        self.identities = {name: load_or_create(folder / "keys" / f"{name}.key") for name in NAMES}
        self.buckets = {name: FolderBucket(folder / "buckets" / name, lambda: self.time) for name in NAMES}

    def answer(self, request):
        what = request.url.path.removeprefix("/v1/")
        if what == "call":
            status, answer = self.service.call(request.content)
        else:
            status, answer = self.service.read(what, dict(request.url.params))
        response = httpx.Response(status, json=answer)
        self.sent += [
            f"{request.method} {request.url} {request.headers}".encode(),
            request.content,
            response.content,
        ]
        return response

    def client(self, identity=None, name=""):
        found = LedgerClient("http://ledger.example", identity=identity, name=name)
        found._http.close()
        found._http = httpx.Client(transport=httpx.MockTransport(self.answer))
        self.clients[name or "reader"] = found
        return found

    def parts(self, name):
        identity = self.identities[name]
        address = (self.folder / "buckets" / name).as_uri()
        node = Node(name, identity, self.buckets[name], address, self.folder / "nodes" / name)
        opened = {(self.folder / "buckets" / other).as_uri(): self.buckets[other] for other in NAMES}
        return node, Surroundings(self.client(identity, name), opened.__getitem__, self.said.append)

    def move_to(self, moment):
        while self.time < moment:
            self.time = min(moment, self.time + 0.5)
            self.ledger.settle()

    def close(self):
        for client in self.clients.values():
            client.close()
        self.ledger.close()


@pytest.fixture
def run(tmp_path, monkeypatch):
    started = Run(tmp_path)
    clock = SimpleNamespace(
        time=lambda: started.time, time_ns=time.time_ns, monotonic=time.monotonic, sleep=lambda seconds: None
    )
    monkeypatch.setattr(ledger_client, "time", clock)
    with contextlib.closing(started):
        yield started


@pytest.fixture
def secrets(run):
    """Name -> secret; of the beacon also the links that are not due before the round is judged."""
    own = {
        f"the identity of {name}": bytes.fromhex((run.folder / "keys" / f"{name}.key").read_text())
        for name in NAMES
    }
    later = {f"link {number} of the beacon": link for number, link in enumerate(LINKS) if number > 2}
    beacon = {"the beacon's secret": BEACON_SECRET, **later}
    return {**own, **beacon, "the write key": WRITE_KEY.encode()}


def a_round(run):
    """Two peers commit and upload, the validator judges and posts, and everybody follows the final record."""
    nodes = {name: build_peer(CONFIG, *run.parts(name), behavior="honest") for name in ("ada", "ben")}
    nodes["V1"] = build_validator(CONFIG, *run.parts("V1"))
    reader, stop = run.client(), threading.Event()
    while reader.status().round is None:
        run.move_to(run.time + 1.0)
    status = reader.status()
    start = status.start
    contributions = {}
    for name in ("ada", "ben"):
        node = nodes[name]
        contributions[name] = node._peer.prepare(node._run.opening(status), node._replica.params)
        node._peer.commit(contributions[name])
    run.move_to(start + 4.5)
    for name, contribution in contributions.items():
        nodes[name]._peer.upload(contribution)
    run.move_to(start + 8.1)
    nodes["V1"]._turn(reader.status(), stop)
    run.move_to(start + 9.1)  # commits to weights are closed
    nodes["V1"]._turn(reader.status(), stop)
    run.move_to(start + 10.5)
    for node in nodes.values():
        node._run.catch_up(node._replica, 1, stop=stop)
    for name in ("ada", "ben"):
        nodes[name].save()
        nodes[name].close()
    assert reader.record(0) is not None
    assert {node._replica.round for node in nodes.values()} == {1}


def what_goes_wrong(run):
    """Errors that come near a secret."""
    key = run.folder / "keys" / "ada.key"
    loose, broken = run.folder / "keys" / "loose.key", run.folder / "keys" / "broken.key"
    loose.write_text(key.read_text())
    loose.chmod(0o644)
    broken.write_text("x" + key.read_text())
    broken.chmod(0o600)
    with contextlib.closing(open_nowhere()) as nowhere:
        endpoint = f"http://127.0.0.1:{nowhere.getsockname()[1]}"
    keys = Credentials("AKOWNER", WRITE_KEY)
    bucket = open_own_bucket(f"s3://bucket?endpoint={endpoint}&region=x", keys)
    secret = bytes.fromhex(key.read_text())
    eve = run.client(Identity(b"e" * 32), "ada")
    attempts = [
        (ValueError, lambda: load_or_create(loose)),
        (ValueError, lambda: load_or_create(broken)),
        (ValueError, lambda: Identity(secret + secret)),
        (BucketUnavailable, lambda: bucket.put("a", b"x")),
        (BucketUnavailable, lambda: bucket.list("a", limit=1)),
        (BucketUnavailable, lambda: bucket.head("a")),
        (
            ValueError,
            lambda: open_own_bucket(f"s3://bucket?access_key=AK&secret_key={quote(WRITE_KEY)}", keys),
        ),
        (ValueError, lambda: open_own_bucket(f"s3://AK:{quote(WRITE_KEY, safe='')}@bucket", keys)),
        (ValueError, lambda: publish(f"s3://bucket/{'x' * 480}", keys)),
        (ValueError, lambda: publish("gs://bucket", keys)),
        (ValueError, lambda: Credentials("AK OWNER", WRITE_KEY)),
        (LedgerRefused, lambda: eve.register_peer("ada", "file:///srv")),
        (NotYetKnown, lambda: eve.beacon(1, "closing")),
        (LedgerRefused, lambda: eve.commit_weights(1, {"ada": 1.0}, bytes(32))),
        (
            ValueError,
            lambda: SharedRunLedger(run.folder / "ledger.sqlite", lambda: 0.0).begin(BEACON_SECRET[::-1]),
        ),
    ]
    for kind, attempt in attempts:
        with pytest.raises(kind) as caught:
            attempt()
        yield "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    yield repr([keys, bucket, run.identities, run.parts("ada"), run.ledger])


def open_nowhere():
    return socket.create_server(("127.0.0.1", 0))


def test_no_secret_leaves_its_place(run, secrets, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    a_round(run)
    errors = list(what_goes_wrong(run))
    printed = capfd.readouterr()
    produced = {
        "said": "\n".join(run.said).encode(),
        "sent": b"\n".join(run.sent),
        "logged": caplog.text.encode(),
        "printed": (printed.out + printed.err).encode(),
        **{f"error {number}": text.encode() for number, text in enumerate(errors)},
    }
    for folder, _, names in os.walk(run.folder):
        for name in names:
            if not folder.endswith("/keys"):
                with open(os.path.join(folder, name), "rb") as file:
                    produced[os.path.join(folder, name)] = file.read()
    kinds = [
        "manifest.json",
        "commit.json",
        "records/00000000",
        "updates/00000000",
        "ledger.sqlite",
        "journal.json",
    ]
    for kind in [*kinds, "checkpoints/"]:
        assert any(kind in name for name in produced), f"nothing of {kind} was looked through"
    assert any(b"posted" in text for text in produced.values())
    leaks = {name: found for name, text in produced.items() if (found := found_in(text, secrets))}
    assert not leaks


@pytest.mark.parametrize("spelling", range(8))
def test_the_search_finds_what_is_there(spelling):
    secrets = {"identity": bytes(range(100, 132)), "key": WRITE_KEY.encode()}
    for name, secret in secrets.items():
        spelt = sorted(spellings(secret))
        text = b"something " + spelt[spelling % len(spelt)] + b" more"
        assert set(found_in(text, secrets)) == {name}
