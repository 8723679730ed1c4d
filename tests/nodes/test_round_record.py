import dataclasses
import json
import math
from pathlib import Path

import pytest

from gauntlet_jax.nodes.record import RoundRecord, finite_or_none, from_json, read_records, to_json


def test_records_of_a_run_come_back_as_they_were(finished):
    for record in finished.records:
        line = to_json(record)
        assert "\n" not in line
        assert from_json(line) == record


def test_what_does_not_exist_is_null(finished):
    raw = json.loads(to_json(finished.records[0]))
    late = next(peer for peer in raw["peers"] if peer["name"] == "late")
    absent = ("declared", "digest", "sync_score", "rank")
    assert [late[name] for name in absent] == [None] * 4
    assert (late["scores"], late["refusal"], late["slashed"]) == ({}, "late", ["late"])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_refused(finished, number: float):
    record: RoundRecord = finished.records[0]
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(dataclasses.replace(record, heldout_loss=number))
    peer = dataclasses.replace(record.peers[0], scores={"own": number})
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(dataclasses.replace(record, peers=(peer,)))
    assert finite_or_none(number) is None


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_line_with_a_number_that_json_does_not_know_is_refused(finished, constant: str):
    line = json.dumps({**json.loads(to_json(finished.records[0])), "reserve": "X"}).replace('"X"', constant)
    with pytest.raises(ValueError, match=f"{constant} is no number of JSON"):
        from_json(line)


def test_fields_of_a_later_schema_are_passed_over(finished):
    record: RoundRecord = finished.records[0]
    raw = json.loads(to_json(record))
    raw["later"] = 1
    for peer in raw["peers"]:
        peer["later"] = {"deep": [1]}
    assert from_json(json.dumps(raw)) == record


@pytest.mark.parametrize(
    "field",
    [field.name for field in dataclasses.fields(RoundRecord) if field.default is dataclasses.MISSING],
)
def test_a_record_without_a_field_is_refused(finished, field: str):
    raw = json.loads(to_json(finished.records[0]))
    del raw[field]
    with pytest.raises(ValueError, match=f"lacks a field.*{field}"):
        from_json(json.dumps(raw))


@pytest.mark.parametrize("field", ["name", "slashed", "payout", "scores"])
def test_a_peer_without_a_field_is_refused(finished, field: str):
    raw = json.loads(to_json(finished.records[0]))
    del raw["peers"][1][field]
    with pytest.raises(ValueError, match=f"lacks a field.*{field}"):
        from_json(json.dumps(raw))


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "3", "null", "{}", '{"schema": 2}', '{"schema": 1, "peers": 5}', "[" * 99_999]
)
def test_what_is_no_record_is_refused(line: str):
    with pytest.raises(ValueError):
        from_json(line)


def test_a_bad_line_of_a_file_is_named(finished, tmp_path: Path):
    path = tmp_path / "rounds.jsonl"
    lines = [to_json(record) for record in finished.records[:3]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert list(read_records(path)) == finished.records[:3]
    path.write_text("\n".join([lines[0], lines[1][:50]]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"rounds\.jsonl, line 2: "):
        list(read_records(path))
