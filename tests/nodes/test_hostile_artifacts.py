"""What a hostile peer uploads is refused with a clear word, and nobody else's numbers move by a bit."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gauntlet_jax.build import build_simulation
from gauntlet_jax.nodes.peer import Opening, artifact_key
from gauntlet_jax.nodes.record import PeerRecord
from gauntlet_jax.nodes.validator import Verdict
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.artifact import (
    array_digests,
    payload_digest,
    read_artifact,
    write_artifact,
)
from gauntlet_jax.storage.bucket import MemoryBucket
from gauntlet_jax.storage.commit import commit_digest, write_commit
from gauntlet_jax.storage.digest import params_digest
from gauntlet_jax.storage.identity import Identity

VICTIM = 1
Objects = dict[str, bytes]
Arrays = Mapping[str, np.ndarray]


class Bench:
    """A round in which all have uploaded, judged again and again with other objects in one peer's bucket."""

    def __init__(self, simulation):
        for _ in range(2):
            simulation.run_round()
        t = simulation.round
        start = t * simulation._times.seconds
        self._window = simulation._times.window(start)
        self._commits = simulation._times.commit_window(start)
        self._params = simulation.params
        self._closing = simulation._beacon.closing(t)
        self._opening = Opening(
            simulation.name, t, self._window, self._commits, simulation._beacon.opening(t), 3e-3
        )
        self._clock = simulation._clock
        self._clock.move_to(self._commits.opens + 1)
        prepared = [(peer, peer.prepare(self._opening, simulation.params)) for peer in simulation._peers]
        for peer, contribution in prepared:
            peer.commit(contribution)
        self._clock.move_to(self._window.opens + 1)
        for peer, contribution in prepared:
            peer.upload(contribution)
        self._validator = simulation._panel.seats[0].validator
        self._state = simulation._panel.seats[0].validator.state()
        self.identity = simulation._peers[VICTIM]._identity
        self.stranger = simulation._peers[0]._identity
        name, _, self._bucket, key = self._validator.members[VICTIM]
        self._folder = artifact_key(t) + "/"
        self.of_the_stranger = objects_in(self._validator.members[0].bucket, self._folder)
        self.schema = self._validator._inspector._schema
        self.honest = objects_in(self._bucket, self._folder)
        received = read_artifact(
            self._bucket,
            artifact_key(t),
            self.schema,
            run="tiny",
            round=t,
            peer=name,
            public_key=key,
            max_declared=16,
        )
        self.arrays, self.manifest = received.arrays, received.manifest
        steps = simulation._peers[VICTIM]._steps
        nothing = jax.tree.map(jnp.zeros_like, simulation.params)
        self.silence = steps.encode(steps.init(simulation.params), nothing)[0]
        other, _, bucket, key = self._validator.members[0]
        self.arrays_of_the_stranger = read_artifact(
            bucket,
            artifact_key(t),
            self.schema,
            run="tiny",
            round=t,
            peer=other,
            public_key=key,
            max_declared=16,
        ).arrays
        self.missing = self.judge({})

    def sealed(self, arrays: Arrays, *, identity: Identity | None = None, **claims) -> Objects:
        """A whole artifact of any arrays and its commit, as a peer's own software would write them."""
        bucket, signer = MemoryBucket(lambda: 0.0), identity or self.identity
        manifest = dataclasses.replace(self.manifest, arrays=array_digests(arrays), **claims)
        write_artifact(bucket, "x", arrays, manifest, signer)
        opens = ("tiny", self.manifest.round, self.identity.public_key, bytes.fromhex(self.manifest.salt))
        commit = commit_digest(*opens, payload_digest(array_digests(arrays)))
        write_commit(
            bucket,
            "x",
            run="tiny",
            round=self.manifest.round,
            peer=self.manifest.peer,
            commit=commit,
            identity=signer,
        )
        return objects_in(bucket, "x/")

    def judge(
        self, objects: Objects, *, committed: float | None = None, uploaded: float | None = None
    ) -> Verdict:
        """The verdict if the victim had uploaded just these, in good time or when it is said."""
        self._bucket.delete_prefix(self._folder)
        for name, data in objects.items():
            if name == "commit.json":
                self._clock.time = self._commits.opens + 1 if committed is None else committed
            else:
                self._clock.time = self._window.opens + 1 if uploaded is None else uploaded
            self._bucket.put(self._folder + name, data)
        self._validator.restore(self._state)
        return self._validator.judge(self._opening, self._closing, self._params)

    def refused(self, objects: Objects, **times: float) -> PeerRecord:
        """The refused peer's record, after a look at everybody else's."""
        verdict = self.judge(objects, **times)
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
    with closing(build_simulation(tiny(commit_reveal=True), tmp_path_factory.mktemp("bench"))) as simulation:
        yield Bench(simulation)


def objects_in(bucket: MemoryBucket, folder: str) -> Objects:
    return {
        key.removeprefix(folder): bucket.get(key, max_bytes=2**20).data
        for key in bucket.list(folder, limit=100)
    }


def filled(array: np.ndarray, number: float) -> np.ndarray:
    return np.full_like(array, number)


def times(scales: np.ndarray, factor: float) -> np.ndarray:
    """The bits of bfloat16 steps so many times as large."""
    steps = (scales.astype(np.uint32) << 16).view(np.float32) * np.float32(factor)
    return (steps.view(np.uint32) >> 16).astype(np.uint16)


RANDOM_BYTES = np.random.default_rng(0)

# What the arrays become -> what the record says of them.
ARRAYS: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "NaN scales": (
        lambda a: {"scales": filled(a["scales"], 0x7FC0)},
        "its indices or values are out of range",
    ),
    "infinite scales": (
        lambda a: {"scales": filled(a["scales"], 0x7F80)},
        "its indices or values are out of range",
    ),
    "huge scales": (
        lambda a: {"scales": filled(a["scales"], 0x7F61)},
        "its indices or values are out of range",
    ),
    "negative steps": (lambda a: {"scales": a["scales"] | 0x8000}, "its indices or values are out of range"),
    "zeros in another form": (
        lambda a: {"scales": filled(a["scales"], 0)},
        "its indices or values are out of range",
    ),
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
        "payload/zarr.json (has|describes)",
    ),
    "too few codes": (lambda a: {"codes": a["codes"][:-1]}, "payload/zarr.json describes another array"),
    "too many codes": (lambda a: {"codes": np.resize(a["codes"], 99999)}, "payload/zarr.json has more than"),
    "an extra array": (lambda a: {"extra": a["codes"]}, "its manifest lists other arrays than expected"),
    "NaN probe": (
        lambda a: {"probe": filled(a["probe"], math.nan)},
        "array probe holds a number that is not finite",
    ),
    "short probe": (lambda a: {"probe": a["probe"][:-1]}, "payload/zarr.json describes another array"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_no_honest_peer_sends(bench: Bench, case: str):
    change, detail = ARRAYS[case]
    own = bench.refused(bench.sealed({**bench.arrays, **change(bench.arrays)}))
    assert own.refusal == "malformed"
    assert re.match(detail, own.detail)


@pytest.mark.parametrize("name", ["codes", "indices", "probe", "scales"])
def test_a_missing_array(bench: Bench, name: str):
    own = bench.refused(bench.sealed({key: array for key, array in bench.arrays.items() if key != name}))
    assert (own.refusal, own.detail) == ("malformed", "its manifest lists other arrays than expected")


CLAIMS: dict[str, tuple[dict, str]] = {
    "another run": ({"run": "huge"}, "its manifest is of another run, round or peer"),
    "another round": ({"round": 1}, "its manifest is of another run, round or peer"),
    "another peer": ({"peer": "ada"}, "its manifest is of another run, round or peer"),
    "another protocol": ({"protocol": 1}, "it follows another version of the protocol than 3"),
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
    own = bench.refused(bench.sealed(bench.arrays, **claims))
    assert (own.refusal, own.detail) == ("malformed", detail)


MANIFESTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "its manifest: not JSON"),
    "not JSON": (b"\x80\x04\x95", "its manifest: not JSON"),
    "deep": (b"[" * 60_000, "its manifest: not JSON"),
    "a long number": (b'{"declared": ' + b"9" * 50_000 + b"}", "its manifest: not JSON"),
    "a list": (b"[]", "its manifest: no JSON object"),
    "no fields": (b"{}", "its manifest: not signed"),
    "10 MB": (b" " * 10_000_000, "manifest.json has more than 65536 bytes"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests_that_are_none(bench: Bench, case: str):
    data, detail = MANIFESTS[case]
    own = bench.refused({**bench.honest, "manifest.json": data})
    assert (own.refusal, own.detail) == ("malformed", detail)


def test_a_manifest_about_other_arrays(bench: Bench):
    claims = {**vars(bench.manifest), "arrays": dict.fromkeys(bench.arrays, "0" * 64)}
    own = bench.refused(
        {**bench.honest, "manifest.json": signed_json.sign(bench.identity, "manifest", claims)}
    )
    assert own.refusal == "malformed" and own.detail.endswith("is not the one of its manifest")


def test_claims_that_were_changed_after_they_were_signed(bench: Bench):
    changed = bench.honest["manifest.json"].replace(b'"declared":8', b'"declared":9')
    own = bench.refused({**bench.honest, "manifest.json": changed})
    assert (own.refusal, own.detail) == ("malformed", "its manifest: its signature does not hold")


def test_another_peers_key(bench: Bench):
    own = bench.refused(bench.sealed(bench.arrays, identity=bench.stranger))
    assert (own.refusal, own.detail) == ("malformed", "its manifest: signed by another key")


def test_a_manifest_that_is_signed_for_something_else_or_written_otherwise(bench: Bench):
    signed = signed_json.sign(
        bench.identity, "commit", {**vars(bench.manifest), "arrays": dict(bench.manifest.arrays)}
    )
    for data, detail in (
        (signed, "its manifest: its signature does not hold"),
        (bench.honest["manifest.json"] + b"\n", "its manifest: not in its canonical form"),
        (bench.honest["commit.json"], "its manifest: its signature does not hold"),
        (bench.of_the_stranger["manifest.json"], "its manifest: signed by another key"),
    ):
        own = bench.refused({**bench.honest, "manifest.json": data})
        assert (own.refusal, own.detail) == ("malformed", detail)


def test_another_peers_artifact_as_it_is(bench: Bench):
    own = bench.refused(bench.of_the_stranger)
    assert (own.refusal, own.detail) == ("malformed", "its manifest: signed by another key")


def test_metadata_of_the_right_size_that_promises_a_giant_array(bench: Bench):
    own_words = bench.honest["payload/zarr.json"]
    shape = re.search(rb'"shape":\[(\d+)\]', own_words)
    assert shape is not None
    giant = own_words.replace(shape[0], b'"shape":[' + b"9" * len(shape[1]) + b"]")
    own = bench.refused({**bench.honest, "payload/zarr.json": giant})
    assert (own.refusal, own.detail) == ("malformed", "payload/zarr.json describes another array")


def test_a_flipped_bit(bench: Bench):
    data = bench.honest["payload/c/0"]
    own = bench.refused({**bench.honest, "payload/c/0": bytes([data[0] ^ 1]) + data[1:]})
    assert (own.refusal, own.detail) == ("malformed", "array payload fails its checksum")


def test_out_of_time(bench: Bench):
    window, commits = bench._window, bench._commits
    for time, refusal in ((window.opens - 1, "early"), (window.closes, "late")):
        assert bench.refused(bench.honest, uploaded=time).refusal == refusal
        # Whatever it is made of: what is late is not even read.
        assert bench.refused({**bench.honest, "manifest.json": b"garbage"}, uploaded=time).refusal == refusal
    for time, words in ((commits.opens - 1, "before it could know"), (commits.closes, "had closed")):
        own = bench.refused(bench.honest, committed=time)
        assert own.refusal == "uncommitted" and words in own.detail


def test_commits_that_bind_to_nothing(bench: Bench):
    without = {name: data for name, data in bench.honest.items() if name != "commit.json"}
    cases = {
        "no commit in its bucket": without,
        "its commit: not JSON": {**without, "commit.json": b"garbage"},
        "its commit: more than 4096 bytes": {**without, "commit.json": bytes(10**6)},
        "its commit: signed by another key": {
            **without,
            "commit.json": bench.sealed(bench.arrays, identity=bench.stranger)["commit.json"],
        },
        "its commit is to another artifact": {
            **bench.sealed(
                {**bench.arrays, "codes": np.where(bench.arrays["codes"] > 1, bench.arrays["codes"] ^ 1, 0)}
            ),
            "commit.json": bench.honest["commit.json"],
        },
    }
    for detail, objects in cases.items():
        own = bench.refused(objects)
        assert (own.refusal, own.detail) == ("uncommitted", detail)
    for salt in ("", "00" * 32):
        own = bench.refused(bench.sealed(bench.arrays, salt=salt))
        assert (own.refusal, own.detail) == ("uncommitted", "its commit is to another artifact")


def test_another_peers_commit(bench: Bench):
    """Reposted as it is, or its digest under the copier's own signature: it opens for its owner's key alone."""
    theirs = bench.of_the_stranger["commit.json"]
    digest = signed_json.json_of(theirs)["commit"]
    folder = MemoryBucket(lambda: 0.0)
    about = {"run": "tiny", "round": bench.manifest.round, "peer": bench.manifest.peer}
    write_commit(folder, "x", **about, commit=digest, identity=bench.identity)
    copied = objects_in(folder, "x/")["commit.json"]
    for commit, detail in (
        (theirs, "its commit: signed by another key"),
        (copied, "its commit is to another artifact"),
    ):
        # With its own artifact, and with the owner's payload and salt, which are public by then.
        salt = signed_json.json_of(bench.of_the_stranger["manifest.json"])["salt"]
        for objects in (bench.honest, bench.sealed(bench.arrays_of_the_stranger, salt=salt)):
            own = bench.refused({**objects, "commit.json": commit})
            assert (own.refusal, own.detail) == ("uncommitted", detail)


def test_a_probe_of_something_else(bench: Bench):
    own = bench.refused(bench.sealed({**bench.arrays, "probe": bench.arrays["probe"] + np.float32(0.1)}))
    assert own.refusal == "out_of_sync" and "signed steps from the validator's parameters" in own.detail
    own = bench.refused(bench.sealed({**bench.arrays, "probe": filled(bench.arrays["probe"], 3e38)}))
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
    own = bench.judge(bench.sealed({**bench.arrays, **bench.silence})).peers[VICTIM]
    assert own.scores == {"assigned": 0.0, "random": 0.0}
    before = bench._state["histories"][VICTIM][2]
    assert own.proof_of_computation == pytest.approx(0.95 * before - 0.05)


@pytest.mark.parametrize("scale", [2.0**-80, 2.0**20])
def test_magnitude_moves_neither_scores_nor_the_update(bench: Bench, scale: float):
    """Same signs, same score; unit length in the aggregate, however small or large it was sent."""
    loud = {**bench.arrays, "scales": times(bench.arrays["scales"], scale)}
    verdict, honest = bench.judge(bench.sealed(loud)), bench.judge(bench.honest)
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
        assert bench.refused(objects).refusal in ("malformed", "missing", "uncommitted")


def _edited(data: bytes) -> st.SearchStrategy[bytes]:
    places = st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1, max_size=3)

    def edit(places: list[tuple[int, int]]) -> bytes:
        edited = bytearray(data)
        for place, byte in places:
            edited[place] = byte
        return bytes(edited)

    return places.map(edit)
