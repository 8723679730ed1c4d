import hashlib

import jax.numpy as jnp
import numpy as np
import pytest

from gauntlet_jax.storage.digest import ParamsDigest, array_bytes, params_digest


def test_against_a_stream_written_by_hand():
    params = {"w": np.array([[1.0, -2.0]], np.float32), "a": {"b": np.array([7], np.uint8)}}
    bytes_of_w = b"\x00\x00\x80\x3f\x00\x00\x00\xc0"
    stream = b'["a/b","uint8",[1]]\n' + hashlib.sha256(b"\x07").digest()
    stream += b'["w","float32",[1,2]]\n' + hashlib.sha256(bytes_of_w).digest()
    assert params_digest(params) == hashlib.sha256(stream).hexdigest()


def test_one_digest_for_one_tree_wherever_it_lies():
    params = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32(3).reshape(())}
    digest = params_digest(params)
    assert params_digest(dict(reversed(params.items()))) == digest
    assert params_digest({name: jnp.asarray(leaf) for name, leaf in params.items()}) == digest
    assert params_digest({**params, "b": np.asfortranarray(params["b"])}) == digest
    assert params_digest({**params, "b": params["b"].astype(">f4")}) == digest


def test_a_leaf_that_is_dealt_out_is_the_digests_of_its_parts():
    w, v = np.arange(12, dtype=np.float32).reshape(2, 6), np.ones(2, np.float32)
    digest = ParamsDigest(parts=3, axes={"w": 1, "v": None})
    parts = b"".join(hashlib.sha256(w[:, at : at + 2].tobytes()).digest() for at in (0, 2, 4))
    stream = b'["v","float32",[2]]\n' + hashlib.sha256(v.tobytes()).digest()
    stream += b'["w","float32",[2,6]]\n' + parts
    assert digest({"w": w, "v": v}) == hashlib.sha256(stream).hexdigest()
    assert (
        digest({"w": jnp.asarray(w), "v": v}) == digest({"w": w, "v": v}) != params_digest({"w": w, "v": v})
    )


def test_what_another_host_holds_is_asked_of_it():
    w = np.arange(12, dtype=np.float32).reshape(2, 6)
    asked = []

    def exchanged(own):
        asked.append(own)
        return {**own, "w#1": "11" * 32}

    first = hashlib.sha256(w[:, :3].tobytes()).digest()
    stream = b'["w","float32",[2,6]]\n' + first + bytes([0x11] * 32)
    found = ParamsDigest(parts=2, axes={"w": 1}, exchanged=exchanged)({"w": w})
    assert found == hashlib.sha256(stream).hexdigest()
    assert set(asked[0]) == {"w#0", "w#1"}


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
