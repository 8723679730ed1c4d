import contextlib
import errno
import json
import logging
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gauntlet_jax.storage.checkpoint import CheckpointMismatch, Checkpoints, CorruptCheckpoint
from gauntlet_jax.storage.digest import params_digest
from gauntlet_jax.storage.seal import write_seal


def tree(round):
    return {
        "params": {
            "w": jnp.arange(6, dtype=jnp.float32).reshape(2, 3) / (round + 1),
            "h": jnp.ones(2, jnp.bfloat16),
        },
        "key": np.array([round, 2**32 - 1], np.uint32),
        "step": jnp.int32(round),
    }


def state(round):
    return {"round": round, "ratings": {"ada": [25.0, 1 / 3]}, "none": None, "text": "é", "big": 2**70}


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of rounds 10 and 20."""
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        for round in (10, 20):
            checkpoints.save(round, tree(round), state(round))
    return tmp_path / "checkpoints"


def restore(folder, like=None):
    with Checkpoints(folder, keep=2) as checkpoints:
        return checkpoints.restore_newest(tree(0) if like is None else like), checkpoints.skipped


def same(restored, round):
    got_round, arrays, got_state = restored
    return (
        got_round == round
        and got_state == state(round)
        and params_digest(arrays) == params_digest(tree(round))
    )


def test_a_restored_checkpoint_is_equal_to_the_bit(folder):
    restored, skipped = restore(folder)
    assert same(restored, 20)
    assert skipped == []
    for got, saved in zip(jax.tree.leaves(restored[1]), jax.tree.leaves(tree(20)), strict=True):
        assert (got.dtype, got.shape, type(got)) == (saved.dtype, saved.shape, type(saved))


def test_it_restores_to_the_sharding_that_is_asked_for(folder):
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), "x"), PartitionSpec(None, "x"))
    like = tree(0)
    like["params"]["w"] = jax.ShapeDtypeStruct((2, 3), jnp.float32, sharding=sharding)
    restored, _ = restore(folder, like)
    assert same(restored, 20)
    assert restored[1]["params"]["w"].sharding == sharding


def test_no_checkpoint_at_all(tmp_path):
    assert restore(tmp_path / "new") == (None, [])


def test_only_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for round in (1, 2, 3):
            checkpoints.save(round, tree(round), state(round))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def test_arrays_may_be_donated_and_overwritten_right_after_the_save(tmp_path):
    arrays = {"a": jnp.arange(50_000, dtype=jnp.float32), "b": np.arange(50_000)}
    digest = params_digest(arrays)
    negate = jax.jit(lambda x: -x, donate_argnums=0)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, arrays, {})
        negate(arrays["a"]).block_until_ready()
        arrays["b"][:] = 0
        restored = checkpoints.restore_newest({"a": jnp.zeros(50_000), "b": arrays["b"]})
    assert restored is not None
    assert params_digest(restored[1]) == digest


def test_the_one_before_a_corrupt_one_is_used_and_the_run_goes_on(folder):
    arrays = next((folder / "20" / "arrays" / "d").iterdir())
    arrays.write_bytes(arrays.read_bytes()[:-1])
    reason = f"arrays/d/{arrays.name} was altered"
    with Checkpoints(folder, keep=2) as checkpoints:
        assert same(checkpoints.restore_newest(tree(0)), 10)
        line = f"checkpoint of round 20 is corrupt ({reason}): using the one of round 10"
        assert checkpoints.skipped == [line]
        checkpoints.save(15, tree(15), state(15))
        checkpoints.save(20, tree(20), state(20))
    restored, skipped = restore(folder)
    assert same(restored, 20)
    assert skipped == []


def harm(path, how, rng):
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        altered = bytearray(data)
        altered[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)


@pytest.mark.parametrize("how", ["missing", "cut", "flip", "flip again"])
def test_no_harm_to_any_file_gives_other_numbers(folder, tmp_path, how):
    rng = np.random.default_rng(len(how))
    inside = sorted(path for path in (folder / "20").rglob("*") if path.is_file() and path.stat().st_size)
    # orbax keeps its own notes at the top: times and the like, nothing that a run goes on from.
    notes = ("_CHECKPOINT_METADATA", "commit_success.txt")
    files = [path for path in inside if path.parent != folder / "20" or path.name not in notes]
    for file in files:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        harm(copy / file.relative_to(folder), how, rng)
        restored, skipped = restore(copy)
        assert same(restored, 10), file
        assert len(skipped) == 1
        shutil.rmtree(copy)


def test_a_changed_digit_in_the_state_is_noticed(folder):
    file = folder / "20" / "state" / "metadata"
    document = json.loads(file.read_text())
    document["state"]["ratings"]["ada"][0] = 26.0
    file.write_text(json.dumps(document))
    restored, skipped = restore(folder)
    assert same(restored, 10)
    assert "(state/metadata was altered)" in skipped[0]


def test_an_unsealed_one_or_one_with_an_extra_file_is_passed_over(folder):
    (folder / "20" / "SEAL.json").rename(folder / "20" / "arrays" / "note")
    assert "its seal is missing" in restore(folder)[1][0]
    shutil.copy(folder / "10" / "SEAL.json", folder / "20" / "SEAL.json")
    restored, skipped = restore(folder)
    assert same(restored, 10)
    assert "(arrays/" in skipped[0]


def test_arrays_of_another_checkpoint_are_noticed_even_under_a_fresh_seal(folder):
    shutil.rmtree(folder / "20" / "arrays")
    shutil.copytree(folder / "10" / "arrays", folder / "20" / "arrays")
    write_seal(folder / "20", ("arrays", "state"))
    restored, skipped = restore(folder)
    assert same(restored, 10)
    assert "its arrays are not the ones that were saved" in skipped[0]
    shutil.rmtree(folder / "20")
    shutil.copytree(folder / "10", folder / "20")
    restored, skipped = restore(folder)
    assert same(restored, 10)
    assert "it is one of round 10" in skipped[0]


def test_all_corrupt_gets_one_clear_line(folder):
    for round in (10, 20):
        (folder / str(round) / "state" / "metadata").write_text("{")
    with pytest.raises(
        CorruptCheckpoint, match=r"every checkpoint in .* is corrupt \(round 20: .*; round 10: "
    ) as caught:
        restore(folder)
    assert "\n" not in str(caught.value)
    assert "remove the folder to start from round 0" in str(caught.value)


def test_another_model_is_no_corruption(folder):
    like = tree(0)
    like["params"]["w"] = jnp.zeros((3, 2))
    with pytest.raises(
        CheckpointMismatch, match=r"params/w is float32\[2, 3\] there and float32\[3, 2\] here"
    ):
        restore(folder, like)
    del like["params"]["w"]
    with pytest.raises(CheckpointMismatch, match=r"params/w is float32\[2, 3\] there and nothing here"):
        restore(folder, like)


@contextlib.contextmanager
def files_no_larger_than(limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_write_is_one_clear_error_and_leaves_the_one_before(folder, caplog, capfd):
    # The limit on a file's size stands in for a full disk: the same write fails, with another number.
    noise = np.random.default_rng(0).standard_normal(100_000)
    with Checkpoints(folder, keep=2) as checkpoints:
        with files_no_larger_than(100_000):
            checkpoints.save(30, {"a": noise}, {})
            with pytest.raises(
                OSError, match=r"checkpoint of round 30 in .* cannot be written: File too large"
            ) as caught:
                checkpoints.wait()
        assert "\n" not in str(caught.value)
        assert sorted(path.name for path in folder.iterdir()) == ["10", "20"]
        assert same(checkpoints.restore_newest(tree(0)), 20)
        checkpoints.save(30, tree(30), state(30))
    assert same(restore(folder)[0], 30)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_save_is_cleared_away(folder):
    shutil.copytree(folder / "20", folder / "30.orbax-checkpoint-tmp")
    assert same(restore(folder)[0], 20)
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20"]


@pytest.mark.parametrize(
    "bad", [{"t": (1, 2)}, {1: 2}, {"x": float("nan")}, {"x": np.float32(1)}, {"x": [{"y": {3}}]}]
)
def test_a_state_that_json_does_not_give_back_is_refused(tmp_path, bad):
    with Checkpoints(tmp_path, keep=1) as checkpoints, pytest.raises(ValueError, match="checkpoint state"):
        checkpoints.save(1, tree(1), bad)
    assert list(tmp_path.iterdir()) == []


def test_rounds_go_up(folder):
    with Checkpoints(folder, keep=2) as checkpoints:
        for round in (20, 15, -1):
            with pytest.raises(ValueError, match=f"checkpoint of round {round}"):
                checkpoints.save(round, tree(0), {})


def test_bad_folders_and_arguments(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be opened"):
        Checkpoints(tmp_path / "file", keep=2)
    with pytest.raises(ValueError, match="keep=0"):
        Checkpoints(tmp_path, keep=0)
    assert not logging.getLogger("absl").filters


def test_a_disk_without_room_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=2**20)
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(1, {"a": np.zeros(3, np.float32)}, {})
        checkpoints.wait()
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
        with pytest.raises(OSError, match=r"checkpoint of round 2 needs .* bytes") as caught:
            checkpoints.save(2, {"a": np.zeros(3, np.float32)}, {})
        assert caught.value.errno == errno.ENOSPC
        assert sorted(path.name for path in tmp_path.iterdir()) == ["1"]
