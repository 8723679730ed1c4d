import errno
import json

import pytest
import synthetic_run

from gauntlet_jax.cli import run_folder
from gauntlet_jax.cli.run_folder import UsageError
from gauntlet_jax.nodes.record import to_json

MADE = synthetic_run.records(rounds=3)


def opening(folder, resume=False, overwrite=False, **fields):
    return run_folder.open_for_run(
        folder, json.dumps(synthetic_run.config(**fields)), resume=resume, overwrite=overwrite
    )


def test_an_empty_or_new_folder_starts(tmp_path):
    assert opening(tmp_path).action == "start"
    assert opening(tmp_path / "new").action == "start"
    assert not (tmp_path / "new").exists()


def test_a_finished_run_of_the_same_config_is_replaced_with_a_line(tmp_path):
    synthetic_run.write_run(tmp_path, MADE)
    found = opening(tmp_path)
    assert found.action == "replace"
    assert "replacing the finished run" in found.note
    assert opening(tmp_path, resume=True).action == "resume"


def test_an_unfinished_run_needs_a_word(tmp_path):
    synthetic_run.write_run(tmp_path, MADE, finished=False)
    with pytest.raises(UsageError, match="--resume, or --overwrite"):
        opening(tmp_path)
    assert opening(tmp_path, resume=True).action == "resume"
    assert opening(tmp_path, overwrite=True).action == "replace"


@pytest.mark.parametrize("resume", [False, True])
def test_another_configs_run_is_refused_by_its_fields(tmp_path, resume):
    synthetic_run.write_run(tmp_path, MADE)
    with pytest.raises(
        UsageError, match=r"differs in seed \(0 there, 1 here\): give another --out, or --overwrite"
    ):
        opening(tmp_path, resume=resume, seed=1)
    assert opening(tmp_path, overwrite=True, seed=1).action == "replace"


def test_rounds_alone_are_no_difference(tmp_path):
    synthetic_run.write_run(tmp_path, MADE)
    assert opening(tmp_path, resume=True, rounds=99).action == "resume"


def test_differences_name_nested_fields():
    there = {"a": {"b": 1, "c": [1, 2]}, "rounds": 1}
    assert run_folder.differences(there, {"a": {"b": 1, "c": [1, 3]}, "d": None, "rounds": 2}) == [
        "a.c.1 (2 there, 3 here)",
        "d (absent there, null here)",
    ]


@pytest.mark.parametrize("name", ["notes.txt", "config.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path, name, overwrite):
    (tmp_path / name).write_text('{"hidden_size": 2048}')
    with pytest.raises(UsageError, match="holds no run of gauntlet: nothing was touched"):
        opening(tmp_path, overwrite=overwrite)
    assert (tmp_path / name).read_text() == '{"hidden_size": 2048}'


def test_flags_that_contradict_and_nothing_to_resume(tmp_path):
    with pytest.raises(UsageError, match="give one of them"):
        opening(tmp_path, resume=True, overwrite=True)
    with pytest.raises(UsageError, match="nothing to resume"):
        opening(tmp_path, resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        opening(tmp_path / "file")


def test_replacing_removes_our_files_alone(tmp_path):
    synthetic_run.write_run(tmp_path, MADE)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x").write_text("old")
    (tmp_path / "mine.txt").write_text("keep")
    with run_folder.replaced(tmp_path, "replace"):
        (tmp_path / "ledger.sqlite").write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.sqlite", "mine.txt"]


def test_a_failed_build_brings_the_old_run_back(tmp_path):
    synthetic_run.write_run(tmp_path, MADE)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="G is too large"), run_folder.replaced(tmp_path, "replace"):
        (tmp_path / "config.json").write_text("half")
        raise ValueError("G is too large")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_a_failed_build_leaves_no_new_folder(tmp_path):
    folder = tmp_path / "runs" / "new"
    with pytest.raises(ValueError), run_folder.replaced(folder, "start"):
        (folder / "store").mkdir()
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_a_killed_replacement_is_undone(tmp_path):
    aside = tmp_path / ".replaced"
    synthetic_run.write_run(aside, MADE, finished=False)
    (tmp_path / "ledger.sqlite").write_text("half")
    assert opening(tmp_path, resume=True).action == "resume"
    with run_folder.replaced(tmp_path, "resume"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "rounds.jsonl"]


def test_a_linked_store_is_unlinked_and_its_target_kept(tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "x").write_text("keep")
    folder = synthetic_run.write_run(tmp_path / "run", MADE)
    (folder / "store").symlink_to(target)
    with run_folder.replaced(folder, "replace"):
        pass
    assert (target / "x").read_text() == "keep"
    assert list(folder.iterdir()) == []


def test_rounds_are_cut_to_the_checkpoint_and_a_torn_line_is_dropped(tmp_path):
    synthetic_run.write_run(tmp_path, MADE, finished=False)
    path = tmp_path / "rounds.jsonl"
    with path.open("a") as file:
        file.write('{"schema":1,"rou')
    assert run_folder.keep_rounds(path, 2) == MADE[:2]
    assert run_folder.read_run(tmp_path).records == tuple(MADE[:2])
    with pytest.raises(UsageError, match="2 sound records in order, but the checkpoint is at round 3"):
        run_folder.keep_rounds(path, 3)


def test_without_a_number_all_sound_rounds_in_order_are_kept(tmp_path):
    path = tmp_path / "rounds.jsonl"
    assert run_folder.keep_rounds(path, None) == []
    lines = [to_json(record) for record in MADE]
    for text, kept in (
        ("\n".join(lines) + "\n", 3),
        ("\n".join([*lines[:2], lines[2][:-9]]), 2),
        ("\n".join([lines[0], lines[2]]), 1),
        ("\n".join([lines[0], lines[0]]), 1),
        ("\n".join(lines[1:]), 0),
    ):
        path.write_text(text)
        assert run_folder.keep_rounds(path, None) == MADE[:kept]
        assert path.read_text() == "".join(line + "\n" for line in lines[:kept])


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    path.write_text("old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        run_folder.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["summary.json"]


def test_disk_full_in_words():
    assert run_folder.is_disk_full(
        ValueError("RESOURCE_EXHAUSTED: [OS error 28: ENOSPC No space left on device]")
    )
    assert run_folder.is_disk_full(RuntimeError("database or disk is full"))
    assert not run_folder.is_disk_full(OSError(errno.EACCES, "Permission denied"))


@pytest.mark.parametrize("damage", ["config.json", "rounds.jsonl", "summary.json"])
def test_a_damaged_run_is_one_line(tmp_path, damage):
    synthetic_run.write_run(tmp_path, MADE)
    (tmp_path / damage).write_text("{")
    with pytest.raises(UsageError) as error:
        run_folder.read_run(tmp_path)
    assert "\n" not in str(error.value)


def test_cleaning_up_after_a_failed_build_follows_no_link(tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "x").write_text("keep")
    with pytest.raises(ValueError, match="refused"), run_folder.replaced(tmp_path / "run", "start"):
        (tmp_path / "run" / "store").symlink_to(target)
        raise ValueError("refused")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    assert (target / "x").read_text() == "keep"
