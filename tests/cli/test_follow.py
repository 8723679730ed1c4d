"""Following a run from outside: real processes once, and an onlooker whose ledger and buckets are made up."""

import contextlib
import dataclasses
import io
import json
import re
import signal
import subprocess
import sys
import threading

import pytest
import synthetic_run
from rich.console import Console
from soak.fleet import Fleet, Home

from gauntlet_jax.cli import onlooker as watching
from gauntlet_jax.cli import report, run_folder
from gauntlet_jax.cli.followed_run import config_for_onlookers, config_text, summary
from gauntlet_jax.cli.main import main
from gauntlet_jax.cli.overrides import load_config
from gauntlet_jax.cli.run_folder import UsageError
from gauntlet_jax.config import Config
from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.nodes.published_record import publish, record_key
from gauntlet_jax.nodes.record import RoundRecord, ValidatorRecord, as_judged, read_records, to_json
from gauntlet_jax.rewards.ledger import Epoch, LedgerUnreachable, Posting, Registration, RunStatus
from gauntlet_jax.storage.bucket import FolderBucket
from gauntlet_jax.storage.endpoints import EndpointPolicy
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.public_bucket import PublicReader
from gauntlet_jax.terms import terms_of

CONFIG = """
from gauntlet_jax.config import *
from gauntlet_jax.training.model import DecoderConfig

def get_config():
    return Config(
        name="tiny",
        peers=tuple(PeerConfig(f"P{i}") for i in range(1, 4)),
        rounds=4,
        slots=5,
        model=DecoderConfig(width=16, layers=1, heads=2, kv_heads=1, intermediate=32),
        data=DataConfig(max_bytes=400_000, length=16, batch=8, capacity=2, heldout=64),
        compression=CompressionConfig(beta=0.9, k=8),
        learning_rate=ScheduleConfig(peak=4e-3, warmup_rounds=2, schedule_rounds=20),
        validator=ValidatorRules(top_g=3, max_sync_score=1.5),
        rewards=RewardRules(payable_after=0, payable_proof=-1.0),
        validators=(ValidatorConfig("V1", 2.0), ValidatorConfig("V2", 1.0)),
        commit_reveal=True,
        beacon="ledger",
        times=RoundTimes(seconds=8, commit_opens=0, commit_closes=2, opens=2, closes=4),
        finality=FinalityConfig(weights_seconds=1.5, succession_seconds=2, veto_seconds=1),
        checkpoint_every=2,
    )
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def terms(config_file):
    return json.loads(json.dumps(terms_of(load_config(str(config_file), Config)) | {"anchor": "ab" * 32}))


@pytest.fixture(scope="module")
def followed(config_file, tmp_path_factory):
    """What became of a real run: its folder, the ledger's last answers, and the output of four followers."""
    folder = tmp_path_factory.mktemp("run")
    store = folder / "store"
    store.mkdir()
    allowed = ["--allow-folder", str(store)]
    seen = {"folder": folder, "store": store}

    def follow(url, out, *words):
        command = [
            sys.executable,
            "-m",
            "gauntlet_jax.cli.main",
            "follow",
            url,
            "--out",
            str(folder / out),
            *words,
        ]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def home(name):
        return Home((store / name).as_uri(), allowed)

    with Fleet(folder, config_file, home, seconds=180) as fleet:
        early = follow(fleet.url, "early", *allowed)
        assert early.stdout is not None
        first = early.stdout.readline()  # before there is a ledger
        fleet.ledger()
        for name in ("V1", "V2"):
            fleet.validator(name)
        for name in ("P1", "P2", "P3"):
            fleet.peer(name)
        broken = follow(fleet.url, "broken", *allowed)
        for _ in fleet.rounds(2):
            pass
        broken.send_signal(signal.SIGINT)
        seen["broken"] = (broken.communicate(timeout=30)[0], broken.returncode)
        seen["digest"] = fleet.wait_for("V1", "the run is over, parameters ")
        seen["early"] = (first + early.communicate(timeout=30)[0], early.returncode)
        for name, out, words in (
            ("resumed", "broken", allowed),
            ("late", "late", allowed),
            ("refused", "refused", []),
            ("other", "..", allowed),
        ):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                code = main(["follow", fleet.url, "--out", str(folder / out), *words])
            seen[name] = (printed.getvalue(), code)
        seen["balances"] = fleet.client.balances()
        seen["postings"] = [fleet.client.record(t) for t in range(4)]
    return seen


def records_in(folder):
    return list(read_records(folder / "rounds.jsonl"))


def test_the_records_are_the_final_ones(followed):
    records = records_in(followed["folder"] / "early")
    assert [record.round for record in records] == [0, 1, 2, 3]
    paid = dict.fromkeys(followed["balances"], 0)
    for record in records:
        paid["reserve"] += record.reserve
        paid["remainder"] += record.remainder
        for one in (*record.peers, *record.validators):
            paid[one.name] += one.payout
    assert paid == followed["balances"]
    assert records[-1].params_digest == followed["digest"]


def test_early_late_and_interrupted_followers_keep_the_same(followed):
    folder = followed["folder"]
    for other in ("late", "broken"):
        for name in ("rounds.jsonl", "config.json", "summary.json"):
            assert (folder / other / name).read_text() == (folder / "early" / name).read_text(), (other, name)
    for name in ("early", "resumed", "late"):
        printed, code = followed[name]
        assert code == 0, printed
        assert f"the run is over, parameters {followed['digest']}" in printed


def test_the_early_one_says_what_is_waited_for(followed):
    printed, _ = followed["early"]
    assert re.search(r"does not answer .* Trying for 60 s", printed)
    assert re.search(r"^the run waits for .*P3", printed, re.MULTILINE)
    assert re.search(r"^round 4/4  loss \d\.\d{3}", printed, re.MULTILINE)


def test_ctrl_c_is_no_failure_and_says_how_to_go_on(followed):
    printed, code = followed["broken"]
    assert code == 0, printed
    kept = re.search(r"followed (\d) of 4 rounds; follow on with: (gauntlet follow .*)", printed)
    assert kept is not None, printed
    assert 1 <= int(kept[1]) < 4
    assert f"--out {followed['folder'] / 'broken'} --allow-folder {followed['store']}" in kept[2]


def test_buckets_that_may_not_be_read_are_named_with_the_flag(followed):
    printed, code = followed["refused"]
    assert code == 2
    assert f"V1's, {followed['store'].as_uri()}/V1, is a folder that is below no --allow-folder" in printed


def test_a_folder_of_something_else_is_left_alone(followed):
    printed, code = followed["other"]
    assert code == 2
    assert "is not empty and holds no run of gauntlet" in printed


def test_report_and_explain_work_on_it(followed, capsys):
    folder = followed["folder"] / "late"
    assert main(["explain", str(folder), "--peer", "P1"]) == 0
    assert "P1 (unknown), rounds 0 to 3" in capsys.readouterr().out
    assert main(["explain", str(folder), "--peer", "P1", "--round", "2"]) == 0
    assert "P1, round 2" in capsys.readouterr().out
    assert main(["report", str(folder), "--out", str(folder / "again.html")]) == 0
    page = (folder / "again.html").read_text()
    assert page == (folder / "report.html").read_text()
    assert "Paid to peers" in page
    assert "cheat" not in page.split("<script")[0].split("</style>")[1]
    assert re.search(r"<td>V1</td><td>unknown</td><td class=\"n\">2</td><td class=\"n\">1\.00</td>", page)


def test_the_summary_is_what_the_public_knows(followed):
    folder, postings = followed["folder"] / "late", followed["postings"]
    known = json.loads((folder / "summary.json").read_text())
    assert known["wall_seconds"] == postings[-1].final_at - postings[0].start
    assert known["params_digest"] == followed["digest"]
    units = {one["name"]: one["payout"] for one in (*known["peers"], *known["validators"])}
    units |= {name: known[name] for name in ("reserve", "remainder")}
    assert units == followed["balances"]
    assert known["payout_total"] == sum(peer["payout"] for peer in known["peers"])
    assert known["loss"]["initial"] is None and known["loss"]["final"] > 0
    stored = [peer.bytes for record in records_in(folder) for peer in record.peers if peer.bytes is not None]
    assert known["bytes"]["per_peer_round"] == round(sum(stored) / len(stored))


# --- An onlooker whose world is made up.


class MadeUp:
    """A ledger and a validator's folder; ``record(t)`` and buckets answer as a test sets them."""

    def __init__(self, tmp_path, terms):
        self.records = [
            dataclasses.replace(
                record,
                peers=tuple(dataclasses.replace(peer, consensus=0.0) for peer in record.peers),
                validators=(ValidatorRecord("V1", "unknown", 1.0, 1.0, 1.0, 0, ""),),
                validator="V1",
            )
            for record in synthetic_run.records(3)
        ]
        self.identity = Identity(b"\1" * 32)
        self.store = tmp_path / "store"
        self.bucket = FolderBucket(self.store / "V1", None)
        self.address = (self.store / "V1").as_uri()
        self.config = config_for_onlookers({**terms, "config": {**terms["config"], "rounds": 3, "slots": 12}})
        self.final = 3
        self.down = 0
        self.postings = []
        for record in self.records:
            made = publish(
                as_judged(record),
                run="tiny",
                validator="V1",
                corpus="cd" * 32,
                update_planes=0,
                update_sha256="",
                identity=self.identity,
            )
            self.bucket.put(record_key(record.round, made.digest), made.document)
            self.postings.append(Posting(record.round, "V1", made.digest, 5.0, 0.0, 9.0))

    def record(self, round):
        if self.down:
            self.down -= 1
            raise LedgerUnreachable("the ledger is away")
        return self.postings[round] if round < self.final else None

    def epoch(self, round):
        record = self.records[round]
        payouts = {peer.name: peer.payout for peer in record.peers}
        return Epoch(round, {}, {}, {"V1": 1.0}, {"V1": 1.0}, {}, payouts, record.reserve, record.remainder)

    def vetoes(self, round):
        return {}

    def registrations(self, round):
        return [Registration("V1", self.address, 0.0, self.identity.public_key, None, 1.0)]

    def status(self):
        return RunStatus(10.0, self.final, 8.0, None, (), ())


class Polls(threading.Event):
    """An event whose waits take no time, call what a test wants, and end after a few."""

    def __init__(self, each=lambda count: None, most=5):
        super().__init__()
        self._each, self._most, self.count = each, most, 0

    def wait(self, timeout=None):
        self.count += 1
        self._each(self.count)
        if self.count >= self._most:
            self.set()
        return self.is_set()


@pytest.fixture
def made_up(tmp_path, terms):
    return MadeUp(tmp_path, terms)


def watch(made_up, stop, *, records=None, folders=None, terminal=False):
    """Lets an onlooker watch; returns what it printed, its records and its lines."""
    records, lines, out = [] if records is None else records, io.StringIO(), io.StringIO()
    policy = EndpointPolicy(frozenset(), (made_up.store,) if folders is None else folders)
    reader = PublicReader(policy)
    console = Console(file=out, force_terminal=terminal, width=110, highlight=False, _environ={})
    try:
        watching.Onlooker(made_up, policy, reader, made_up.config, records, lines).watch(console, stop)
    finally:
        reader.close()
    return out.getvalue(), records, lines.getvalue()


def test_all_that_is_final_is_read_at_once(made_up):
    stop = Polls()
    _, records, lines = watch(made_up, stop)
    assert records == made_up.records
    assert lines == "".join(to_json(record) + "\n" for record in made_up.records)
    assert stop.count == 0


def test_it_goes_on_where_an_earlier_process_stopped(made_up):
    _, records, lines = watch(made_up, Polls(), records=made_up.records[:2])
    assert records == made_up.records
    assert lines == to_json(made_up.records[2]) + "\n"


def test_a_round_that_is_not_final_is_waited_for(made_up):
    made_up.final = 1

    def each(count):
        made_up.final = count

    _, records, _ = watch(made_up, Polls(each))
    assert records == made_up.records


def test_an_outage_is_said_once(made_up):
    made_up.down = 4
    printed, records, _ = watch(made_up, Polls())
    assert records == made_up.records
    assert printed.count("the ledger is away; trying again") == 1


def test_a_record_that_is_nowhere_is_waited_for_and_said_once(made_up):
    key = record_key(1, made_up.postings[1].digest)
    document = (made_up.store / "V1" / key).read_bytes()
    made_up.bucket.delete_prefix(key)

    def each(count):
        if count == 3:
            made_up.bucket.put(key, document)

    printed, records, _ = watch(made_up, Polls(each))
    assert records == made_up.records
    assert printed.count("round 1: the record of V1 is in no validator's bucket; trying again") == 1


def test_waiting_in_vain_ends(made_up, tmp_path):
    with pytest.raises(UsageError, match="no --allow-folder"):
        watch(made_up, Polls(), folders=(tmp_path / "elsewhere",))


def test_another_runs_records_are_not_mixed_with_this_ones(made_up):
    other = synthetic_run.records(2, seed=1)
    with pytest.raises(UsageError, match="another run of the same config"):
        watch(made_up, Polls(), records=other)
    with pytest.raises(UsageError, match="another run of the same config"):
        watch(made_up, Polls(), records=synthetic_run.records(3, seed=1))
    made_up.down = 2  # a complete folder is not believed before it was compared
    with pytest.raises(UsageError, match="another run of the same config"):
        watch(made_up, Polls(), records=synthetic_run.records(3, seed=1))
    made_up.final = 1
    with pytest.raises(UsageError, match="another run of the same config"):
        watch(made_up, Polls(), records=made_up.records[:2])


def test_what_strangers_wrote_commands_no_terminal(made_up):
    made_up.down = 1
    made_up.status = lambda: RunStatus(10.0, None, None, None, (), ("\x1b[2J",))
    made_up.final = 0
    printed, _, _ = watch(made_up, Polls())
    assert "the run waits for ?[2J" in printed
    made_up.address = "file:///\x1b[2J"
    made_up.final = 1
    with pytest.raises(UsageError) as refused:
        watch(made_up, Polls())
    assert "\x1b" not in str(refused.value)


def test_a_round_that_is_not_paid_is_waited_for(made_up):
    paid = made_up.epoch
    made_up.epoch = lambda round: None if round else paid(round)

    def each(count):
        if count == 3:
            made_up.epoch = paid

    printed, records, _ = watch(made_up, Polls(each))
    assert printed.count("round 1: final, and not paid yet") == 1
    assert records == made_up.records


def test_a_terminal_sees_the_table_and_what_happens(made_up):
    made_up.final = 1
    printed, _, _ = watch(made_up, Polls(most=3), terminal=True)
    assert "LossRating" in printed
    assert "round 1: peers train and upload, 2 s until their time is up" in printed


def test_what_a_terminal_shows_below_the_bar_it_is_not_told_above(made_up):
    made_up.final = 0
    made_up.status = lambda: RunStatus(10.0, None, None, None, (), ("P1",))
    printed, _, _ = watch(made_up, Polls(), terminal=True)
    assert "\x1b[2mthe run waits for P1" in printed
    assert re.search(r"(?<!\x1b\[2m)the run waits", printed) is None
    printed, _, _ = watch(made_up, Polls())
    assert printed == "the run waits for P1\n"


TIMES = RoundTimes(seconds=12, opens=4, closes=8)
PENDING = Posting(3, "V1", "d", 9.0, 100.0, None)


@pytest.mark.parametrize(
    ("status", "known", "told"),
    [
        (RunStatus(90.0, None, None, None, (), ("P1", "V1")), 0, "the run waits for P1, V1"),
        (RunStatus(90.0, None, None, None, (), ()), 0, "the first round is about to begin"),
        (RunStatus(102.5, 3, 100.0, None, (), ()), 3, "round 3: peers train and upload, 6 s until"),
        (RunStatus(108.5, 3, 100.0, None, (), ()), 3, "round 3: validators judge"),
        (RunStatus(108.5, 3, 100.0, PENDING, (), ()), 3, "round 3: V1 has posted its record"),
        (RunStatus(108.5, 3, 100.0, None, ("V1",), ()), 3, "validators judge (vetoed: V1)"),
        (RunStatus(111.0, 3, 100.0, None, (), ()), 4, "round 4 is about to begin"),
        (RunStatus(111.0, 3, 100.0, None, (), ()), 2, "reading the record of round 2"),
    ],
)
def test_what_a_run_does_is_put_in_words(status, known, told):
    assert told in watching.phase(status, TIMES, known)


def test_the_config_of_terms_is_one_of_a_run_folder(terms, tmp_path):
    config = config_for_onlookers(terms)
    text = config_text(terms, config)
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "rounds.jsonl").write_text("".join(to_json(one) + "\n" for one in synthetic_run.records(2)))
    found = run_folder.read_run(tmp_path)
    assert (found.config["name"], found.config["rounds"], found.config["beacon_anchor"]) == (
        "tiny",
        4,
        "ab" * 32,
    )
    assert found.config["validator"] == terms["config"]["validator"]
    assert (
        run_folder.differences(found.config, json.loads(config_text({**terms, "anchor": "ef" * 32}, config)))
        != []
    )


def test_a_model_that_is_code_is_no_hindrance(terms, tmp_path):
    functions = {**terms["config"]["functions"], "build_model": "mine:build"}
    terms = {**terms, "config": {**terms["config"], "functions": functions}}
    config = config_for_onlookers(terms)
    assert json.loads(config_text(terms, config))["functions"]["build_model"] == "mine:build"
    posting = Posting(0, "V1", "d", 9.0, 4.0, 11.0)
    records = synthetic_run.records(2)
    known = summary(terms, config, records, first=posting, last=posting)
    assert (known["parameters"], known["bytes"]["compression"]) == (None, None)
    assert known["wall_seconds"] == 7.0
    for peer, last in zip(known["peers"], records[-1].peers, strict=True):
        assert (peer["name"], peer["rating_mu"]) == (last.name, last.rating_mu)
    page = report.render(
        run_folder.Run(tmp_path, json.loads(config_text(terms, config)), tuple(records), known)
    )
    assert "from the first round to the last record" in page
    assert "Compression" not in page and "Parameters</" not in page


def test_a_run_without_any_artifact_has_a_summary(terms):
    record = RoundRecord(0, 0.1, None, None, "ab" * 32, 10, 10, ())
    posting = Posting(0, "V1", "d", 9.0, 4.0, 11.0)
    known = summary(terms, config_for_onlookers(terms), [record], first=posting, last=posting)
    assert known["bytes"] == {"per_peer_round": None, "bits_per_value": None, "compression": None}
    assert known["peers"] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda terms: {**terms, "protocol": 99},
        lambda terms: {**terms, "config": None},
        lambda terms: {**terms, "run": "../elsewhere"},
        lambda terms: {},
    ],
)
def test_terms_that_are_none_are_refused(terms, spoil):
    with pytest.raises(ValueError):
        config_for_onlookers(spoil(terms))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "needs the URL of a ledger"),
        (["--out", "x"], "the URL comes first"),
        (["http://127.0.0.1:1", "--allow-endpoint", "x"], "expected HOST:PORT"),
        (["file:///x"], "expected a URL"),
        (["http://127.0.0.1:1", "--ot", "x"], "nearest is --out"),
    ],
)
def test_wrong_use_is_one_line(words, told, capsys):
    assert main(["follow", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
