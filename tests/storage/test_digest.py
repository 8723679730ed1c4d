import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from gauntlet_jax.storage.digest import array_bytes, params_digest


def test_against_a_stream_written_by_hand():
    params = {"w": np.array([[1.0, -2.0]], np.float32), "a": {"b": np.array([7], np.uint8)}}
    stream = b'["a/b","uint8",[1]]\n\x07' + b'["w","float32",[1,2]]\n\x00\x00\x80\x3f\x00\x00\x00\xc0'
    assert params_digest(params) == hashlib.sha256(stream).hexdigest()


def test_one_digest_for_one_tree_wherever_it_lies():
    params = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32(3).reshape(())}
    digest = params_digest(params)
    assert params_digest(dict(reversed(params.items()))) == digest
    assert params_digest({name: jnp.asarray(leaf) for name, leaf in params.items()}) == digest
    assert params_digest({**params, "b": np.asfortranarray(params["b"])}) == digest
    assert params_digest({**params, "b": params["b"].astype(">f4")}) == digest


@pytest.mark.parametrize(
    "other",
    [
        {"w": np.zeros(4, np.int32)},
        {"w": np.zeros((4, 1), np.float32)},
        {"v": np.zeros(4, np.float32)},
        {"w": np.zeros(2, np.float32), "x": np.zeros(2, np.float32)},
        {"w": np.array([0, 0, 0, -0.0], np.float32)},
    ],
)
def test_dtype_shape_name_and_every_bit_count(other):
    assert params_digest(other) != params_digest({"w": np.zeros(4, np.float32)})


def test_bfloat16_and_empty_arrays():
    half = jnp.array([1.5, 2.0], jnp.bfloat16)
    assert bytes(array_bytes(np.asarray(half))) == b"\xc0\x3f\x00\x40"
    assert params_digest({"h": half}) != params_digest({"h": half.astype(jnp.float16)})
    assert params_digest({"h": np.zeros((0, 3))}) != params_digest({"h": np.zeros((3, 0))})


def test_what_has_no_bytes_is_refused():
    with pytest.raises(ValueError, match="'w' is a float, not an array"):
        params_digest({"w": 1.0})
