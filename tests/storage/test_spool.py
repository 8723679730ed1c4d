import gc
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gauntlet_jax.storage.artifact import schema_of
from gauntlet_jax.storage.spool import Spool

ARRAYS = {
    "codes": np.arange(7, dtype=np.uint8),
    "tables": np.array([[1.5, -0.0, 3e38], [1e-45, -2.0, 0.25]], np.float32),
    "steps": np.array([[[-(2**31), 2**31 - 1]]], np.int32),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where spools are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def spool():
    return Spool(schema_of(ARRAYS))


def same(one, other):
    assert list(one) == list(other)
    for name, array in one.items():
        assert (array.shape, array.dtype) == (other[name].shape, other[name].dtype)
        assert array.tobytes() == other[name].tobytes()


def test_what_was_put_is_there_to_the_bit(spool):
    spool.put(3, ARRAYS)
    same(spool.get(3), ARRAYS)
    same(spool.get(3), ARRAYS)


@given(
    npst.arrays(np.float32, npst.array_shapes(max_dims=3, max_side=5)),
    npst.arrays(np.uint16, st.integers(1, 9)),
)
def test_any_arrays_survive(floats, numbers):
    arrays = {"zz": floats, "a": numbers}
    spool = Spool(schema_of(arrays))
    spool.put(0, arrays)
    same(spool.get(0), arrays)


def test_each_number_has_its_own(spool):
    other = {name: array[::-1] for name, array in ARRAYS.items()}
    spool.put(1, ARRAYS)
    spool.put(11, other)
    same(spool.get(1), ARRAYS)
    same(spool.get(11), other)


def test_the_last_one_counts(spool):
    spool.put(1, {name: np.zeros_like(array) for name, array in ARRAYS.items()})
    spool.put(1, ARRAYS)
    same(spool.get(1), ARRAYS)


def test_arrays_in_another_order_and_not_in_one_piece(spool):
    wide = {name: np.repeat(array, 2, axis=-1)[..., ::2] for name, array in reversed(ARRAYS.items())}
    assert not wide["tables"].flags.c_contiguous
    spool.put(1, wide)
    same(spool.get(1), ARRAYS)


def test_an_array_that_is_not_of_the_schema_is_left_out(spool):
    spool.put(1, {**ARRAYS, "probe": np.ones(3)})
    assert sorted(spool.get(1)) == sorted(ARRAYS)


def test_there_is_none(spool):
    with pytest.raises(FileNotFoundError):
        spool.get(5)


def test_what_is_put_aside_is_not_kept_in_memory(spool, folder):
    """It lies on the disk, as many bytes as the arrays have, readable for nobody else."""
    spool.put(5, ARRAYS)
    (own,) = folder.iterdir()
    assert [(file.name, file.stat().st_size) for file in own.iterdir()] == [("5", 7 + 24 + 8)]
    assert own.stat().st_mode & 0o077 == 0


def test_two_spools_do_not_meet(spool):
    other = Spool(schema_of(ARRAYS))
    other.put(1, ARRAYS)
    with pytest.raises(FileNotFoundError):
        spool.get(1)


def test_it_is_gone_with_its_object(folder: Path):
    spool = Spool(schema_of(ARRAYS))
    spool.put(1, ARRAYS)
    kept = spool.get(1)
    del spool
    gc.collect()
    assert list(folder.iterdir()) == []
    same(kept, ARRAYS)
