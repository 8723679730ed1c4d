"""An audit finds a single changed digit anywhere: in the records, in the ledger, in the artifacts, in config and summary."""

import dataclasses
import hashlib
import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gauntlet_jax.build import audit as building
from gauntlet_jax.build.parts import read_corpus
from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import make_task
from gauntlet_jax.cli import main, run_folder
from gauntlet_jax.config import Config
from gauntlet_jax.nodes.record import PeerRecord, RoundRecord, ValidatorRecord
from gauntlet_jax.stored_config import from_json

CONFIG = """
from gauntlet_jax import scoring
from gauntlet_jax.config import *
from gauntlet_jax.nodes.rules import ValidatorRules
from gauntlet_jax.rewards.rules import RewardRules
from gauntlet_jax.training.model import DecoderConfig

def get_config():
    return Config(
        name="small",
        peers=(
            PeerConfig("ada"), PeerConfig("ben", "double_data"), PeerConfig("cleo", "copycat"), PeerConfig("dov", "late"),
            PeerConfig("eva", "sign_flip"), PeerConfig("fay"),
        ),
        validators=(
            ValidatorConfig("lex", stake=3, behavior="lying_lead", friend="eva"), ValidatorConfig("uma", stake=2),
            ValidatorConfig("vic", stake=2),
        ),
        rounds=4,
        baseline="adamw",
        commit_reveal=True,
        model=DecoderConfig(width=16, layers=1, heads=2, kv_heads=1, intermediate=32),
        data=DataConfig(max_bytes=400_000, length=16, batch=8, capacity=2, heldout=64),
        compression=CompressionConfig(beta=0.9, k=8),
        learning_rate=ScheduleConfig(peak=4e-3, warmup_rounds=2, schedule_rounds=20),
        validator=ValidatorRules(top_g=3, max_sync_score=1.5, sample_size=3),
        rewards=RewardRules(emission=1_000_003, payable_after=1, payable_proof=-0.5),
        peer_score=scoring.gated_peer_score(threshold=0.5),
        checkpoint_every=2,
    )
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run in which a lead lies and is vetoed, with honest peers and cheats."""
    base = tmp_path_factory.mktemp("audited")
    (base / "small.py").write_text(CONFIG)
    assert main.main(["simulate", str(base / "small.py"), "--out", str(base / "run")]) == 0
    return base / "run"


@pytest.fixture(scope="module")
def quick(made):
    """All audits of this file share compiled steps: they would make the same ones."""
    config = from_json((made / "config.json").read_text())
    corpus = read_corpus(config)
    task = make_task(config, corpus)
    steps = Steps(config, task)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(building, "read_corpus", lambda _: corpus)
        monkeypatch.setattr(building, "make_task", lambda *_: task)
        monkeypatch.setattr(building, "Steps", lambda *_: steps)
        monkeypatch.setattr(building, "compile_all", lambda *_: None)
        yield


@pytest.fixture
def run(made, quick, tmp_path) -> Path:
    """A copy to change, without the times that files had."""
    shutil.copytree(made, tmp_path / "run", copy_function=shutil.copyfile)
    return tmp_path / "run"


def audit(folder: Path, capsys, *flags: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main.main(["audit", str(folder), *flags])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_sound_run_follows(run, capsys):
    code, said = audit(run, capsys)
    assert code == 0
    assert "everything follows: 4 rounds" in said and "4,000,012 units accounted for" in said
    record = run_folder.read_run(run).records[-1]
    assert record.validator == "uma"
    assert [one.vetoed for one in record.validators] == [
        "its parameters do not follow from its artifacts",
        "",
        "",
    ]


def test_a_spot_check_measures_some_rounds(run, capsys):
    code, said = audit(run, capsys, "--sample", "2")
    assert code == 0 and "6 evaluations of 2 rounds measured again" in said


def flipped(value: Any) -> Any:
    """The value with one digit, letter or bit changed; None for what holds none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        text = json.dumps(value)
        at = max(i for i, char in enumerate(text.split("e")[0]) if char.isdigit())
        changed = json.loads(
            text[:at] + ("1" if text[at] == "0" else str(int(text[at]) - 1)) + text[at + 1 :]
        )
        return changed if changed != value else json.loads(f"1{text}")
    if isinstance(value, str) and value:
        return ("x" if value[0] != "x" else "y") + value[1:]
    if isinstance(value, dict) and value:
        name = next(iter(value))
        return {**value, name: flipped(value[name])}
    if isinstance(value, list) and value:
        return [flipped(value[0]), *value[1:]]
    return None


def rewrite(run: Path, t: int, change) -> None:
    path = run / "rounds.jsonl"
    lines = path.read_text().splitlines()
    raw = json.loads(lines[t])
    change(raw)
    lines[t] = json.dumps(raw, separators=(",", ":"))
    path.write_text("\n".join(lines) + "\n")


FIELDS = [
    *(("round", field.name) for field in dataclasses.fields(RoundRecord) if field.name not in ("peers", "validators")),
    *(("peers", field.name) for field in dataclasses.fields(PeerRecord)),
    *(("validators", field.name) for field in dataclasses.fields(ValidatorRecord)),
]  # fmt: skip


@pytest.mark.parametrize(("table", "field"), FIELDS)
def test_a_digit_of_a_record(run, capsys, table, field):
    changed = []

    def change(raw):
        rows = [raw] if table == "round" else raw[table]
        for row in rows:
            other = flipped(row[field])
            if other is not None:
                changed.append((row.get("name", ""), row[field], other))
                row[field] = other
                return

    for t in (3, 2, 1, 0):
        rewrite(run, t, change)
        if changed:
            break
    assert changed, f"nobody has a {field} in this run: it must have every field"
    code, said = audit(run, capsys)
    assert code in (1, 2), said
    if field != "schema":
        assert code == 1 and f"round {t}" in said, said


def test_the_first_difference_is_named_by_round_peer_and_factor(run, capsys):
    def change(raw):
        raw["peers"][1]["scores"]["random"] += 0.001

    rewrite(run, 2, change)
    name = "random"
    code, said = audit(run, capsys)
    was = run_folder.read_run(run).records[2].peers[1].scores.get(name)
    assert code == 1
    assert f"differs: round 2, ben, scores.{name}: the run says {was!r}, what follows is" in said


def test_a_number_that_is_written_otherwise(run, capsys):
    path = run / "rounds.jsonl"
    path.write_text(path.read_text().replace('"emission":1000003', '"emission": 1000003', 1))
    code, said = audit(run, capsys)
    assert code == 1 and "round 0, the record's line" in said


def entries(run: Path) -> list[list[Any]]:
    with sqlite3.connect(run / "ledger.sqlite") as database:
        return [list(row) for row in database.execute("SELECT * FROM entries ORDER BY seq")]


def forge(run: Path, rows: list[list[Any]], *, rechain: bool) -> None:
    """Writes the table anew; with ``rechain`` as someone who knows how the hashes are made."""
    database = sqlite3.connect(run / "ledger.sqlite")
    triggers = [row[0] for row in database.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
    for name in ("no_update", "no_delete"):
        database.execute(f"DROP TRIGGER {name}")
    database.execute("DELETE FROM entries")
    previous = "0" * 64
    for *row, claimed, stored in rows:
        hashes = [claimed, stored]
        if rechain:
            text = f"{previous}|{json.dumps(row, separators=(',', ':'))}"
            hashes = [previous, hashlib.sha256(text.encode()).hexdigest()]
        database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [*row, *hashes])
        previous = hashes[1]
    for trigger in triggers:
        database.execute(trigger)
    database.commit()
    database.close()


KINDS = ("inputs", "register", "validator", "commit", "veto", "record", "weights", "epoch", "emission")


def test_every_kind_of_entry_is_flipped_below(made):
    assert {row[1] for row in entries(made)} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rechain", [False, True])
def test_a_digit_of_the_ledger(run, capsys, kind, rechain):
    """Found by the hash chain; and where the chain was made anew, by what follows from the artifacts."""
    rows = entries(run)
    bodies = {}
    for row in rows:
        if row[1] == kind:
            bodies[row[0]] = json.loads(row[4])
    paths = {name for body in bodies.values() for name in body if name != "total"}
    for name in sorted(paths):
        changed = [list(row) for row in rows]
        seq = max(seq for seq, body in bodies.items() if body.get(name) not in ({}, "", None))
        body = bodies[seq]
        body = {**body, name: flipped(body[name])}
        changed[seq - 1][4] = json.dumps(body, sort_keys=True, separators=(",", ":"))
        forge(run, changed, rechain=rechain)
        code, said = audit(run, capsys)
        assert code == 1, (name, said)
        if not rechain:
            assert "the ledger's hash chain" in said and f"entry {seq}" in said


def test_a_payout_that_is_forged_everywhere_but_in_the_artifacts(run, capsys):
    """Records, weights, commits and payouts that fit each other: only measuring again finds it."""
    rows = entries(run)
    record = run_folder.read_run(run).records[3]

    def change(raw):
        raw["peers"][0]["incentive"], raw["peers"][1]["incentive"] = (
            raw["peers"][1]["incentive"],
            raw["peers"][0]["incentive"],
        )

    rewrite(run, 3, change)
    assert record.peers[0].incentive != record.peers[1].incentive
    forge(run, rows, rechain=True)
    code, said = audit(run, capsys)
    assert code == 1 and "round 3, ada, incentive" in said


def objects(run: Path, peer: str, t: int) -> list[Path]:
    return sorted(
        path for path in (run / "store" / peer / "rounds" / f"{t:08d}").rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("peer", ["ada", "ben", "cleo", "eva"])
def test_a_bit_of_an_artifact(run, capsys, peer):
    for path in objects(run, peer, 1):
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        code, said = audit(run, capsys)
        assert code == 1 and f"round 1, {peer}" in said, (path, said)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert audit(run, capsys)[0] == 1, path
        path.write_bytes(data)
    assert audit(run, capsys)[0] == 0


def test_an_artifact_that_is_gone(run, capsys):
    shutil.rmtree(run / "store" / "ada" / "rounds" / "00000002")
    code, said = audit(run, capsys)
    assert code == 1 and "round 2, ada" in said


def test_a_digit_of_the_config(run, capsys):
    path = run / "config.json"
    text = path.read_text()
    digits = [i for i, char in enumerate(text) if char.isdigit()]
    for i in digits[:: max(1, len(digits) // 25)]:
        other = "1" if text[i] == "0" else str(int(text[i]) - 1)
        changed = text[:i] + other + text[i + 1 :]
        try:
            if json.loads(changed) == json.loads(text):
                continue
        except ValueError:
            continue
        path.write_text(changed)
        code, said = audit(run, capsys)
        assert code == 1 and ("the config's sha256" in said or "config.json, rounds" in said), changed[
            i - 40 : i + 5
        ]


SUMMARY = (
    "seed",
    "rounds",
    "params_digest",
    "loss",
    "payout_total",
    "reserve",
    "remainder",
    "validators",
    "peers",
)


@pytest.mark.parametrize("field", SUMMARY)
def test_a_digit_of_the_summary(run, capsys, field):
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    summary[field] = flipped(summary[field])
    path.write_text(json.dumps(summary))
    code, said = audit(run, capsys)
    assert code == 1 and f"summary.json, {field}" in said


@pytest.mark.parametrize(
    ("break_it", "line"),
    [
        (lambda run: shutil.rmtree(run / "store"), "it keeps no artifacts"),
        (lambda run: (run / "ledger.sqlite").unlink(), "it has no ledger.sqlite"),
        (lambda run: (run / "rounds.jsonl").unlink(), "has no finished round yet"),
    ],
)
def test_what_cannot_be_audited_is_one_line(run, capsys, break_it, line):
    break_it(run)
    code, said = audit(run, capsys)
    assert code == 2 and line in said and len(said.strip().splitlines()) == 1


def appended(run: Path, kind: str, round: int | None, account: str, body: dict[str, Any]) -> None:
    rows = entries(run)
    rows.append(
        [
            len(rows) + 1,
            kind,
            round,
            account,
            json.dumps(body, sort_keys=True, separators=(",", ":")),
            999.0,
            "",
            "",
        ]
    )
    forge(run, rows, rechain=True)


@pytest.mark.parametrize(
    ("kind", "round", "account", "body"),
    [
        ("grant", None, "eva", {"units": 999_999_999}),
        ("transfer", None, "ada r", {"to": "eva", "units": 27}),
        ("emission", 99, "", {"payouts": {"eva": 5}, "reserve": 0, "remainder": 0, "emission": 5, "total": 4_000_017}),
        ("commit", 4, "uma", {"digest": "ab" * 32}),
    ],
)  # fmt: skip
def test_money_from_nowhere(run, capsys, kind, round, account, body):
    appended(run, kind, round, account, body)
    code, said = audit(run, capsys)
    assert (code == 1 and "on the ledger" in said) or "the ledger's entries" in said, said


def nested(path: Path) -> None:
    path.write_text('{"name":' + "[" * 100_000)


def planted_bytes(run: Path) -> None:
    rows = entries(run)
    rows[3][4] = b"\x00"
    database = sqlite3.connect(run / "ledger.sqlite")
    database.execute("DROP TRIGGER no_update")
    database.execute("UPDATE entries SET body = ? WHERE seq = 4", [b"\x00"])
    database.execute(
        "CREATE TRIGGER no_update BEFORE UPDATE ON entries\nBEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    )
    database.commit()
    database.close()


def endless_view(run: Path) -> None:
    database = sqlite3.connect(run / "ledger.sqlite")
    database.execute("DROP TABLE entries")
    database.execute(
        "CREATE VIEW entries AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        " SELECT i AS seq, 'a' AS kind, 0 AS round, '' AS account, '{}' AS body, 0.0 AS at, '' AS previous_hash, '' AS hash FROM n"
    )
    database.commit()
    database.close()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HOSTILE = {
    "nested config": lambda run: nested(run / "config.json"),
    "nested summary": lambda run: nested(run / "summary.json"),
    "pipe for records": lambda run: pipe(run / "rounds.jsonl"),
    "pipe for the ledger": lambda run: pipe(run / "ledger.sqlite"),
    "pipe for an artifact": lambda run: pipe(objects(run, "ada", 1)[0]),
    "link for records": lambda run: (
        (run / "rounds.jsonl").unlink(),
        (run / "rounds.jsonl").symlink_to("/dev/zero"),
    ),
    "bytes in the ledger": planted_bytes,
    "an endless table": endless_view,
    "text for a time": lambda run: rewrite(run, 1, lambda raw: raw["peers"][0].update(uploaded_at="x")),
    "a huge time": lambda run: rewrite(run, 1, lambda raw: raw["peers"][0].update(uploaded_at=10**400)),
    "half a score": lambda run: rewrite(run, 1, lambda raw: raw["peers"][0].update(scores={"assigned": 1.0})),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("flags", [(), ("--sample", "0")])
def test_a_strangers_folder_neither_crashes_nor_hangs(run, capsys, name, flags):
    HOSTILE[name](run)
    code, said = audit(run, capsys, *flags)
    assert code in (1, 2) and "Traceback" not in said
    assert len(said.strip().splitlines()) <= 2, said


def test_an_unfinished_run_is_said_to_be_one(made, quick, capsys, tmp_path):
    base = tmp_path / "unfinished"
    shutil.copytree(made, base, copy_function=shutil.copyfile)
    (base / "summary.json").unlink()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "rounds": 9}))
    code, said = audit(base, capsys)
    assert code == 0 and "the run is unfinished: its config has 9 rounds" in said
    assert "refusals that rest on what validators saw at the time: late x4" in said


@pytest.mark.parametrize(
    "flags", [("--sample", "-1"), ("--seed", "-1"), ("--tolerance", "2"), ("--nonsense",)]
)
def test_wrong_flags(run, capsys, flags):
    assert audit(run, capsys, *flags)[0] == 2


def test_a_config_with_code_of_its_own_needs_its_file(run, made, capsys):
    raw = json.loads((run / "config.json").read_text())
    with pytest.raises(ValueError, match="mine:score, which is code of its own: give the config file"):
        from_json(json.dumps({**raw, "peer_score": "mine:score"}))
    with pytest.raises(ValueError, match="mine:model, which is code of its own"):
        from_json(json.dumps({**raw, "build_model": "mine:model"}))
    code, said = audit(run, capsys, "--config", str(made.parent / "small.py"))
    assert code == 0, said
    other = made.parent / "other.py"
    other.write_text(CONFIG.replace("k=8", "k=9"))
    code, said = audit(run, capsys, "--config", str(other))
    assert code == 2 and "is not the config that the run was made with" in said


def test_a_stored_config_is_the_config_it_was(made):
    """But for behaviors, which decide nothing for who looks on."""
    found = from_json((made / "config.json").read_text())
    assert isinstance(found, Config) and found.peer_score.keywords == {"threshold": 0.5, "gamma": 0.95}
    assert [peer.behavior for peer in found.peers] == ["honest"] * 6
    assert found.validator.sample_size == 3 and found.rewards.emission == 1_000_003
