"""The doctor: what it makes of numbers, and what it finds out of a real ledger and real buckets."""

import dataclasses
import importlib
import math
import threading
import time
from contextlib import closing

import jax
import numpy as np
import pytest
from s3_server import s3_server

from gauntlet_jax import compression, scoring
from gauntlet_jax.cli.main import main
from gauntlet_jax.cli.overrides import load_config
from gauntlet_jax.config import Config
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.planning import doctor
from gauntlet_jax.planning.needs import Needs, needs_of
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.rewards.ledger_http import application, listen, server_of
from gauntlet_jax.rewards.ledger_service import LedgerService
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.storage.bucket import FolderBucket
from gauntlet_jax.storage.identity import load_or_create
from gauntlet_jax.terms import terms_of
from gauntlet_jax.training.model import init_params, stacked_axes

SMALL = """
from gauntlet_jax.config import *
from gauntlet_jax.training.model import DecoderConfig

def get_config():
    return Config(
        name="doctored",
        peers=(PeerConfig("P1"), PeerConfig("P2")),
        validators=(ValidatorConfig("V1"),),
        rounds=3,
        model=DecoderConfig(width=16, layers=1, heads=2, kv_heads=1, intermediate=32),
        data=DataConfig(length=16, batch=8, capacity=2, heldout=64),
        compression=CompressionConfig(beta=0.9, k=8),
        commit_reveal=True,
        times=RoundTimes(seconds=15, commit_closes=4, opens=4, closes=8),
    )
"""
TIMES = RoundTimes(seconds=12, opens=4, closes=8)
NEEDS = Needs(parameters=10, values=5, params=1000, residual=1000, activations=2000, artifact=100)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return path


@pytest.fixture
def config(config_file):
    return load_config(str(config_file), Config)


@pytest.fixture
def ledger_url(tmp_path, config):
    """The URL of a ledger that answers on loopback."""
    socket = listen("127.0.0.1", 0)
    servers = []

    def serve():
        ledger = SharedRunLedger(tmp_path / "ledger.sqlite", time.time)
        ledger.found(terms_of(config), anchor=None, start_delay=None)
        ledger.begin(None)
        servers.append(server_of(application(LedgerService(ledger))))
        servers[0].run(sockets=[socket])
        ledger.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        servers[0].should_exit = True
        thread.join()


@pytest.fixture
def register(ledger_url):
    """Registers a peer with a key."""

    def register(name, identity):
        with closing(LedgerClient(ledger_url, identity=identity, name=name)) as client:
            client.register_peer(name, "file:///x")

    return register


@pytest.fixture
def examine(ledger_url, tmp_path, capsys, monkeypatch):
    """Runs the command; returns its exit code and its lines as ``(level, subject, text)``."""
    monkeypatch.chdir(tmp_path)

    def run(*words, bucket=None, name="P1", ledger=None):
        bucket = (tmp_path / "store" / name).as_uri() if bucket is None else bucket
        url = ledger_url if ledger is None else ledger
        given = [
            "--ledger",
            url,
            "--bucket",
            bucket,
            "--name",
            name,
            "--allow-folder",
            str(tmp_path / "store"),
        ]
        code = main(["doctor", *map(str, words), *given])
        printed = capsys.readouterr().out
        lines = printed.split("\n\n", maxsplit=1)[0].splitlines()
        return code, [tuple(line.split(maxsplit=2)) for line in lines], printed

    return run


def levels(lines, subject):
    return [level for level, about, _ in lines if about == subject]


def text(lines, subject):
    return " | ".join(told for _, about, told in lines if about == subject)


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (doctor.judge_devices(1, ["cpu"]), "ok"),
        (doctor.judge_devices(8, ["H100"] * 8), "ok"),
        (doctor.judge_devices(8, ["H100"] * 4), "FAIL"),
        # A peer of NEEDS takes 4 x 1000 + 1000 + 2000 = 7000 bytes, a validator 5 x 1000 + 2000 = 7000 as well.
        (doctor.judge_memory(NEEDS, role="peer", available=6999), "FAIL"),
        (doctor.judge_memory(NEEDS, role="peer", available=7000), "warning"),
        (doctor.judge_memory(NEEDS, role="peer", available=8749), "warning"),
        (doctor.judge_memory(NEEDS, role="peer", available=8751), "ok"),
        (doctor.judge_memory(NEEDS, role="validator", available=6999), "FAIL"),
        (doctor.judge_memory(NEEDS, role="validator", available=None), "warning"),
        (doctor.judge_protocol(2, 2), "ok"),
        (doctor.judge_protocol(3, 2), "FAIL"),
        (doctor.judge_protocol(None, 2), "FAIL"),
        (doctor.judge_ledger_clock(0.4, 0.01), "ok"),
        (doctor.judge_ledger_clock(-0.52, 0.01), "warning"),
        (doctor.judge_ledger_clock(2.4, 2.0), "ok"),  # a slow answer says little
        # The put window of TIMES has 4 s.
        (doctor.judge_store_clock(-0.7, 0.3, TIMES), "ok"),
        (doctor.judge_store_clock(0.6, 1.6, TIMES), "warning"),
        (doctor.judge_store_clock(-1.6, -0.6, TIMES), "warning"),
        (doctor.judge_store_clock(2.1, 3.1, TIMES), "FAIL"),
        (doctor.judge_store_clock(-3.1, -2.1, TIMES), "FAIL"),
        (doctor.judge_uploads([0.1, 2.0, 0.2], 10, TIMES), "ok"),
        (doctor.judge_uploads([0.1, 2.1, 0.2], 10, TIMES), "warning"),
        (doctor.judge_uploads([0.1, 4.1, 0.2], 10, TIMES), "FAIL"),
        (doctor.judge_key_mode("k", 0o100600), "ok"),
        (doctor.judge_key_mode("k", None), "ok"),
        (doctor.judge_key_mode("k", 0o100640), "FAIL"),
        (doctor.judge_key_mode("k", 0o100604), "FAIL"),
        (doctor.judge_refusal(403, "so"), "ok"),
        (doctor.judge_refusal(401, "so"), "ok"),
        (doctor.judge_refusal(200, "so"), "FAIL"),
        (doctor.judge_refusal(204, "so"), "FAIL"),
        (doctor.judge_refusal(500, "so"), "warning"),
        (doctor.judge_refusal(None, "so"), "warning"),
    ],
)
def test_a_number_is_judged(found, level):
    assert found.level == level


@pytest.mark.parametrize(
    ("times", "commit_reveal", "fits"),
    [
        (RoundTimes(seconds=12, opens=4, closes=8), False, True),
        (RoundTimes(seconds=12, opens=4, closes=7), False, True),
        (RoundTimes(seconds=12, opens=4, closes=6), False, False),
        (RoundTimes(seconds=12, opens=4.5, closes=8), False, False),
        (RoundTimes(seconds=12.5, opens=4, closes=8), False, False),
        (RoundTimes(seconds=12, opens=4, closes=8, commit_closes=2), False, True),
        (RoundTimes(seconds=12, opens=4, closes=8, commit_closes=2), True, False),
        (RoundTimes(seconds=12, opens=4, closes=8, commit_opens=0.5, commit_closes=4), True, False),
        (RoundTimes(seconds=12, opens=4, closes=8, commit_closes=4), True, True),
    ],
)
def test_windows_of_object_stores_are_whole_seconds(times, commit_reveal, fits):
    assert (doctor.window_fault(times, commit_reveal=commit_reveal) is None) == fits


@pytest.mark.parametrize("method", ["demo", "sparseloco"])
def test_needs_are_those_of_the_real_arrays(config, method):
    config = dataclasses.replace(config, compression=dataclasses.replace(config.compression, method=method))
    params = init_params(config.model, jax.random.key(0))
    make = compression.demo if method == "demo" else compression.sparseloco
    compressor = make(params, beta=0.9, k=8, bits=8, stacked=stacked_axes(params))
    state = compressor.init(params)
    sent, _ = compressor.update(state, jax.tree.map(lambda leaf: leaf + 1.0, params))
    arrays = {
        "packed": compression.pack(compressor.format, sent),
        "probe": scoring.take_probe(params, jax.random.key(0)),
    }

    def count(tree):
        return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))

    needs = needs_of(config)
    assert needs.params == count(params)
    assert needs.parameters == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert needs.residual == count(state)
    assert needs.artifact == count(arrays)
    # One float32 of each of 8 x 16 tokens' logits over 256 bytes is the least that a backward pass keeps.
    assert needs.activations > 8 * 16 * 256 * 4


def test_twice_the_batch_takes_twice_the_activations(config):
    twice = dataclasses.replace(config, data=dataclasses.replace(config.data, batch=16))
    ratio = needs_of(twice).activations / needs_of(config).activations
    assert 1.8 < ratio < 2.2


def test_a_model_of_ones_own_is_counted(config):
    def build(key):
        return {"w": jax.numpy.zeros((64, 64))}, lambda params, tokens: (params["w"] * tokens.sum()).sum()

    needs = needs_of(dataclasses.replace(config, build_model=build))
    assert (needs.parameters, needs.params) == (4096, 16384)


def test_a_good_node_passes(examine, tmp_path):
    code, lines, printed = examine()
    assert code == 0, printed
    assert {level for level, _, _ in lines} == {"ok"}
    assert printed.endswith("\nnothing fails\n")
    assert {subject for _, subject, _ in lines} >= {
        "ledger",
        "clock",
        "bucket",
        "public",
        "upload",
        "memory",
        "name",
    }
    assert "an estimate" in text(lines, "memory")
    assert "waits for P1, P2, V1" in text(lines, "ledger")
    left = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert left == []
    assert not (tmp_path / "runs").exists()  # no key was made


def test_a_config_file_is_compared_with_the_terms(examine, config_file):
    assert examine(config_file)[0] == 0
    config_file.write_text(SMALL.replace("rounds=3", "rounds=4"))
    code, lines, _ = examine(config_file)
    assert code == 1
    assert levels(lines, "config") == ["FAIL"]
    assert "rounds" in text(lines, "config")
    assert levels(lines, "name") == []  # who takes part in another run says nothing about this one


def test_without_a_ledger_the_rest_is_still_looked_at(examine, config_file):
    with listen("127.0.0.1", 0) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    code, lines, _ = examine(config_file, ledger=url)
    assert code == 1
    assert levels(lines, "ledger") == ["FAIL"]
    assert levels(lines, "bucket") == ["ok", "ok"]
    code, lines, _ = examine(ledger=url)
    assert code == 1
    assert levels(lines, "config") == ["FAIL"]
    assert levels(lines, "bucket") == []


def test_a_name_that_another_key_has_fails(examine, register, tmp_path):
    own = load_or_create(tmp_path / "home" / "identity.key")
    register("P1", own)
    code, lines, _ = examine()
    assert code == 1
    assert "belongs to another key" in text(lines, "name")
    code, lines, _ = examine("--home", tmp_path / "home")
    assert code == 0
    assert "registered with this key" in text(lines, "name")


def test_no_place_is_left(examine, register, tmp_path):
    for name in ("P1", "P2"):
        register(name, load_or_create(tmp_path / name))
    code, lines, _ = examine(name="P3")
    assert code == 1
    assert "all 2 places" in text(lines, "name")
    assert examine(name="V1")[0] == 0


def test_a_key_file_that_others_may_read_fails(examine, tmp_path):
    key = tmp_path / "home" / "identity.key"
    secret = load_or_create(key) and key.read_text().strip()
    key.chmod(0o644)
    code, lines, printed = examine("--home", tmp_path / "home")
    assert code == 1
    assert levels(lines, "key") == ["FAIL"]
    assert "chmod 600" in text(lines, "key")
    assert secret not in printed


def test_a_folder_that_others_do_not_read_fails(examine, tmp_path):
    code, lines, _ = examine(bucket=(tmp_path / "elsewhere").as_uri())
    assert code == 1
    assert levels(lines, "public") == ["FAIL"]
    assert "--allow-folder" in text(lines, "public")


def test_a_folder_that_others_may_write_is_a_warning(examine, tmp_path):
    (tmp_path / "store" / "P1").mkdir(parents=True)
    (tmp_path / "store" / "P1").chmod(0o777)
    code, lines, _ = examine()
    assert code == 0
    assert levels(lines, "rights") == ["warning"]


def test_a_slow_disk_and_a_wrong_clock_are_found(examine, monkeypatch):
    put, seconds = FolderBucket.put, []

    def slow(self, key, data):
        if "artifact" in key:
            seconds.append(4.5)
        put(self, key, data)

    module = importlib.import_module("gauntlet_jax.cli.bucket_examination")
    monkeypatch.setattr(FolderBucket, "put", slow)
    monkeypatch.setattr(module.time, "monotonic", lambda: sum(seconds))
    code, lines, _ = examine()
    assert code == 1
    assert levels(lines, "upload") == ["FAIL"]

    head = FolderBucket.head
    monkeypatch.setattr(
        FolderBucket,
        "head",
        lambda self, key: (
            (found := head(self, key)) and found._replace(last_modified=found.last_modified + 30)
        ),
    )
    _, lines, _ = examine()
    assert levels(lines, "clock") == ["ok", "FAIL"]
    assert "30.0 s ahead" in text(lines, "clock")


def test_what_is_interrupted_leaves_nothing(examine, tmp_path, monkeypatch):
    module = importlib.import_module("gauntlet_jax.cli.bucket_examination")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_uploads", interrupted)
    assert examine()[0] == 130
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "needs --ledger"),
        (["--ledger", "http://127.0.0.1:1"], "needs --bucket"),
        (["--ledger", "ftp://x", "--bucket", "file:///x", "--name", "P1"], "expected a URL"),
        (["--ledger", "http://127.0.0.1:1", "--bucket", "file:///x", "--name", "no/name"], "name"),
        (["--ledgr", "x"], "nearest is --ledger"),
        (
            ["none.py", "--ledger", "http://127.0.0.1:1", "--bucket", "file:///x", "--name", "P1"],
            "no config file",
        ),
    ],
)
def test_wrong_use_is_one_line(words, told, capsys):
    assert main(["doctor", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def server():
    with s3_server() as running:
        yield running


@pytest.fixture
def examine_s3(examine, server, monkeypatch):
    def run(account, *words, secret=None):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", account.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", account.secret_key if secret is None else secret)
        allowed = ["--allow-endpoint", f"127.0.0.1:{server.port}"]
        return examine(*words, *allowed, bucket=server.url(account))

    return run


def test_a_public_bucket_passes_and_is_left_as_it_was(examine_s3, server):
    account = server.account("good")
    code, lines, printed = examine_s3(account)
    assert code == 0, printed
    assert {level for level, _, _ in lines} == {"ok"}
    assert "without credentials is refused (status 403)" in text(lines, "rights")
    assert account.secret_key not in printed
    assert server.client(account).list_objects_v2(Bucket=account.bucket)["KeyCount"] == 0


def test_a_private_bucket_fails(examine_s3, server):
    code, lines, _ = examine_s3(server.account("private", public=False))
    assert code == 1
    assert levels(lines, "public") == ["FAIL", "warning"]
    assert levels(lines, "bucket") == ["ok", "ok"]


def test_wrong_credentials_fail(examine_s3, server):
    code, lines, printed = examine_s3(server.account("wrong"), secret="not-the-secret")
    assert code == 1
    assert levels(lines, "bucket") == ["FAIL"]
    assert "not-the-secret" not in printed


def test_read_keys_that_may_write_fail(examine_s3, server):
    account = server.account("both")
    keys = ["--read-access-key", account.access_key, "--read-secret-key", account.secret_key]
    code, lines, _ = examine_s3(account, *keys)
    assert code == 1
    assert levels(lines, "rights") == ["ok", "FAIL"]


def test_a_bucket_that_anybody_may_write_fails(examine_s3, server):
    account = server.account("open")
    server.client(account).put_bucket_acl(Bucket=account.bucket, ACL="public-read-write")
    code, lines, _ = examine_s3(account)
    assert code == 1
    assert levels(lines, "rights") == ["FAIL"]
    assert server.client(account).list_objects_v2(Bucket=account.bucket)["KeyCount"] == 0
