"""What a hostile peer uploads is refused with a clear word, and nobody else's numbers move by a bit."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import closing

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gauntlet_jax.build import build_simulation
from gauntlet_jax.nodes.peer import Opening, artifact_key
from gauntlet_jax.nodes.record import PeerRecord
from gauntlet_jax.nodes.validator import Verdict
from gauntlet_jax.storage.artifact import Manifest, array_digests, read_artifact, write_artifact
from gauntlet_jax.storage.bucket import MemoryBucket
from gauntlet_jax.storage.digest import params_digest

VICTIM = 1
Objects = dict[str, bytes]
Arrays = Mapping[str, np.ndarray]


class Bench:
    """A round in which all have uploaded, judged again and again with other objects in one peer's bucket."""

    def __init__(self, simulation):
        for _ in range(2):
            simulation.run_round()
        t = simulation.round
        window = simulation._times.window(t)
        self._params = simulation.params
        self._closing = simulation._beacon.closing(t)
        self._opening = Opening(simulation.name, t, window, simulation._beacon.opening(t), 3e-3)
        simulation._clock.move_to(window.opens + 1)
        for peer in simulation._peers:
            peer.contribute(self._opening, simulation.params)
        self._validator = simulation._validator
        self._state = simulation._validator.state()
        name = self._validator.peers[VICTIM]
        self._bucket = self._validator._inspector._buckets[name]
        self._folder = artifact_key(t) + "/"
        self.schema = self._validator._inspector._schema
        self.honest = {
            key.removeprefix(self._folder): self._bucket.get(key, max_bytes=2**20)
            for key in self._bucket.list(self._folder, limit=100)
        }
        self.arrays, self.manifest = read_artifact(
            self._bucket, artifact_key(t), self.schema, run="tiny", round=t, peer=name, max_declared=16
        )
        self.missing = self.judge({})

    def judge(self, objects: Objects) -> Verdict:
        """The verdict if the victim had uploaded just these."""
        self._bucket.delete_prefix(self._folder)
        for name, data in objects.items():
            self._bucket.put(self._folder + name, data)
        self._validator.restore(self._state)
        return self._validator.judge(self._opening, self._closing, self._params)

    def refused(self, objects: Objects) -> PeerRecord:
        """The refused peer's record, after a look at everybody else's."""
        verdict = self.judge(objects)
        for peer, (got, without) in enumerate(zip(verdict.peers, self.missing.peers, strict=True)):
            assert peer == VICTIM or got == without
        assert params_digest(verdict.update) == params_digest(self.missing.update)
        own = verdict.peers[VICTIM]
        assert (own.scores, own.rank, own.aggregated, own.slashed) == ({}, None, False, (own.refusal,))
        assert own.standing == 0.75
        assert len(own.detail) < 120 and "\n" not in own.detail
        return own


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory):
    with closing(build_simulation(tiny(), tmp_path_factory.mktemp("bench"))) as simulation:
        yield Bench(simulation)


def sealed(arrays: Arrays, manifest: Manifest, **claims) -> Objects:
    """A whole artifact of any arrays, as a peer's own software would write it."""
    bucket = MemoryBucket(lambda: 0.0)
    write_artifact(bucket, "x", arrays, dataclasses.replace(manifest, arrays=array_digests(arrays), **claims))
    return {key.removeprefix("x/"): bucket.get(key, max_bytes=2**20) for key in bucket.list("x/", limit=100)}


def filled(array: np.ndarray, number: float) -> np.ndarray:
    return np.full_like(array, number)


RANDOM_BYTES = np.random.default_rng(0)

# What the arrays become -> what the record says of them.
ARRAYS: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "NaN tables": (
        lambda a: {"tables": filled(a["tables"], math.nan)},
        "array tables holds a number that is not finite",
    ),
    "infinite tables": (
        lambda a: {"tables": filled(a["tables"], math.inf)},
        "array tables holds a number that is not",
    ),
    "huge tables": (
        lambda a: {"tables": filled(a["tables"], 3e38)},
        "its indices or values are out of range",
    ),
    "negative steps": (lambda a: {"tables": -np.abs(a["tables"])}, "its indices or values are out of range"),
    "random indices": (
        lambda a: {"indices": RANDOM_BYTES.integers(0, 256, a["indices"].shape, np.uint8)},
        "its indices or values are out of range",
    ),
    "no indices": (lambda a: {"indices": filled(a["indices"], 0)}, "its indices or values are out of range"),
    "all indices": (
        lambda a: {"indices": filled(a["indices"], 255)},
        "its indices or values are out of range",
    ),
    "codes of another dtype": (
        lambda a: {"codes": a["codes"].astype(np.float32)},
        "codes/.* has .* bytes, .* expected",
    ),
    "signed codes": (
        lambda a: {"codes": a["codes"].view(np.int8)},
        "codes/zarr.json has .* bytes, .* expected",
    ),
    "too few codes": (lambda a: {"codes": a["codes"][:-1]}, "codes/.* has .* bytes, .* expected"),
    "too many codes": (
        lambda a: {"codes": np.resize(a["codes"], 9999)},
        "codes/.* has .* bytes, .* expected",
    ),
    "codes of another shape": (lambda a: {"codes": a["codes"][None]}, "it has objects that nobody asked for"),
    "an extra array": (lambda a: {"extra": a["codes"]}, "it has objects that nobody asked for"),
    "NaN probe": (
        lambda a: {"probe": filled(a["probe"], math.nan)},
        "array probe holds a number that is not finite",
    ),
    "short probe": (lambda a: {"probe": a["probe"][:-1]}, "probe/.* has .* bytes, .* expected"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_no_honest_peer_sends(bench: Bench, case: str):
    change, detail = ARRAYS[case]
    own = bench.refused(sealed({**bench.arrays, **change(bench.arrays)}, bench.manifest))
    assert own.refusal == "malformed"
    assert re.match(detail, own.detail)


@pytest.mark.parametrize("name", ["codes", "indices", "probe", "tables"])
def test_a_missing_array(bench: Bench, name: str):
    own = bench.refused(
        sealed({key: array for key, array in bench.arrays.items() if key != name}, bench.manifest)
    )
    assert (own.refusal, own.detail) == ("malformed", f"{name}/zarr.json is missing")


CLAIMS: dict[str, tuple[dict, str]] = {
    "another run": ({"run": "huge"}, "its manifest is of another run, round or peer"),
    "another round": ({"round": 1}, "its manifest is of another run, round or peer"),
    "another peer": ({"peer": "ada"}, "its manifest is of another run, round or peer"),
    "another protocol": ({"protocol": 2}, "it follows another version of the protocol than 1"),
    "nothing declared": ({"declared": 0}, "it declares no sequence"),
    "negative declared": ({"declared": -8}, "it declares no sequence"),
    "too many declared": ({"declared": 17}, "it declares more than 16 sequences"),
    "fewer than a batch": ({"declared": 7}, "it declares fewer than 8 sequences"),
    "no whole number": (
        {"declared": 8.0},
        "its manifest has a round, declared or protocol that is no integer",
    ),
    "a truth value": (
        {"declared": True},
        "its manifest has a round, declared or protocol that is no integer",
    ),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_claims_that_are_not_so(bench: Bench, case: str):
    claims, detail = CLAIMS[case]
    own = bench.refused(sealed(bench.arrays, bench.manifest, **claims))
    assert (own.refusal, own.detail) == ("malformed", detail)


MANIFESTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "its manifest is not JSON"),
    "not JSON": (b"\x80\x04\x95", "its manifest is not JSON"),
    "deep": (b"[" * 60_000, "its manifest is not JSON"),
    "a long number": (b'{"declared": ' + b"9" * 50_000 + b"}", "its manifest is not JSON"),
    "a list": (b"[]", "its manifest has other fields than the protocol's"),
    "no fields": (b"{}", "its manifest has other fields than the protocol's"),
    "10 MB": (b" " * 10_000_000, "manifest.json has more than 65536 bytes"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests_that_are_none(bench: Bench, case: str):
    data, detail = MANIFESTS[case]
    own = bench.refused({**bench.honest, "manifest.json": data})
    assert (own.refusal, own.detail) == ("malformed", detail)


def test_a_manifest_about_other_arrays(bench: Bench):
    claims = {**json.loads(bench.honest["manifest.json"]), "arrays": dict.fromkeys(bench.arrays, "0" * 64)}
    own = bench.refused({**bench.honest, "manifest.json": json.dumps(claims).encode()})
    assert own.refusal == "malformed" and own.detail.endswith("is not the one of its manifest")


def test_metadata_of_the_right_size_that_promises_a_giant_array(bench: Bench):
    own_words = bench.honest["codes/zarr.json"]
    shape = re.search(rb'"shape":\[(\d+)\]', own_words)
    assert shape is not None
    giant = own_words.replace(shape[0], b'"shape":[' + b"9" * len(shape[1]) + b"]")
    own = bench.refused({**bench.honest, "codes/zarr.json": giant})
    assert (own.refusal, own.detail) == ("malformed", "codes/zarr.json describes another array")


def test_a_flipped_bit(bench: Bench):
    data = bench.honest["codes/c/0"]
    own = bench.refused({**bench.honest, "codes/c/0": bytes([data[0] ^ 1]) + data[1:]})
    assert (own.refusal, own.detail) == ("malformed", "array codes fails its checksum")


def test_a_probe_of_something_else(bench: Bench):
    own = bench.refused(
        sealed({**bench.arrays, "probe": bench.arrays["probe"] + np.float32(0.1)}, bench.manifest)
    )
    assert own.refusal == "out_of_sync" and "signed steps from the validator's parameters" in own.detail
    own = bench.refused(
        sealed({**bench.arrays, "probe": filled(bench.arrays["probe"], 3e38)}, bench.manifest)
    )
    assert (own.refusal, own.detail) == ("out_of_sync", "no usable sync probe")


def test_nothing_at_all_and_arrays_that_were_never_committed(bench: Bench):
    assert bench.missing.peers[VICTIM].refusal == "missing"
    uncommitted = {name: data for name, data in bench.honest.items() if name != "manifest.json"}
    assert bench.refused(uncommitted).refusal == "missing"


def test_the_honest_artifact_is_accepted(bench: Bench):
    """Or all the tests above would pass over a broken bench."""
    verdict = bench.judge(bench.honest)
    assert all(peer.refusal is None and peer.rank is not None for peer in verdict.peers)
    assert params_digest(verdict.update) != params_digest(bench.missing.update)


def test_an_update_of_nothing_earns_nothing(bench: Bench):
    own = bench.judge(
        sealed({**bench.arrays, "tables": filled(bench.arrays["tables"], 0)}, bench.manifest)
    ).peers[VICTIM]
    assert own.scores == {"assigned": 0.0, "random": 0.0}
    before = bench._state["histories"][VICTIM][2]
    assert own.proof_of_computation == pytest.approx(0.95 * before - 0.05)


@pytest.mark.parametrize("scale", [1e-30, 1e6])
def test_magnitude_moves_neither_scores_nor_the_update(bench: Bench, scale: float):
    """Same signs, same score; unit length in the aggregate, however small or large it was sent."""
    loud = {**bench.arrays, "tables": bench.arrays["tables"] * np.float32(scale)}
    verdict, honest = bench.judge(sealed(loud, bench.manifest)), bench.judge(bench.honest)
    assert verdict.peers[VICTIM].scores["random"] == pytest.approx(
        honest.peers[VICTIM].scores["random"], abs=2e-4
    )
    same = jax.tree.map(lambda one, other: np.mean(one == other), verdict.update, honest.update)
    assert min(jax.tree.leaves(same)) > 0.95


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_bytes_are_judged_without_an_error(bench: Bench, data: st.DataObject):
    name = data.draw(st.sampled_from(sorted(bench.honest)))
    replaced = data.draw(st.one_of(st.binary(max_size=200), st.just(None), _edited(bench.honest[name])))
    objects = {**bench.honest, name: replaced} if replaced is not None else bench.honest.copy()
    if replaced is None:
        del objects[name]
    if objects != bench.honest:
        assert bench.refused(objects).refusal in ("malformed", "missing")


def _edited(data: bytes) -> st.SearchStrategy[bytes]:
    places = st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1, max_size=3)

    def edit(places: list[tuple[int, int]]) -> bytes:
        edited = bytearray(data)
        for place, byte in places:
            edited[place] = byte
        return bytes(edited)

    return places.map(edit)
