"""Whatever a stranger publishes: read as it was meant, or refused for a reason; never a crash, never more memory."""

import collections
import json
import random
import re
import resource
import tracemalloc

import pytest
from fuzz.hostile_bucket import HostileBucket
from fuzz.mutations import mutated, with_junk
from fuzz.target import ADA
from fuzz.targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gauntlet_jax.storage import signed_json, zarr_arrays

MUTANTS = {
    "artifacts": 5_000,
    "metadata": 2_000,
    "chunks": 2_000,
    "commits": 3_000,
    "records": 2_500,
    "updates": 1_500,
    "checkpoints": 1_500,
    "signed documents": 3_000,
}
FULL = 20
"""Times as many with --full."""
MOST_MEMORY = 8 * 2**20
"""Bytes that reading any of these may take at its peak: manifests of 64 KiB, made objects of, are the most."""


@pytest.fixture(scope="module")
def report():
    """Counts over all formats, printed as one line at the end; what began to be read and came to no end has crashed."""
    total = collections.Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield total
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"\nfuzz: {total['begun']} mutants, {total['begun'] - total['ended']} crashes, {total['accepted']} accepted, "
        f"{total['reasons']} reasons; peak {total['peak'] / 2**20:.1f} MiB (tracemalloc), "
        f"resident set +{grown:.1f} MiB (getrusage)"
    )


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def target(request, monkeypatch):
    monkeypatch.setattr(zarr_arrays, "CHUNK_BYTES", request.param.chunk_bytes)
    return request.param


def outcome(target, objects):
    """The reason for which objects are refused, or None and what they mean; anything else is a crash."""
    bucket = HostileBucket(objects)
    try:
        return None, target.read(bucket)
    except target.refusals as refusal:
        reason = str(refusal) or type(refusal).__name__
        assert "\n" not in reason and len(reason) < 120, reason
        return reason, None
    finally:
        assert bucket.handed_out <= target.most_bytes


def test_the_good_one_is_read(target):
    """Or all the refusals would mean nothing."""
    reason, meaning = outcome(target, target.sample())
    assert reason is None and meaning == outcome(target, target.sample())[1]


def test_each_attack_has_its_own_reason(target):
    for name, (objects, pattern) in target.cases().items():
        reason, _ = outcome(target, objects)
        assert reason is not None, f"{name}: accepted"
        assert re.search(pattern, reason), f"{name}: {reason}"


def test_mutants(target, report, full):
    """Spoiled in random ways, then told apart from the good one."""
    chance = random.Random(target.name)
    good = target.sample()
    mutable = target.mutable or tuple(sorted(good))
    spare = [
        data for objects, _ in target.cases().values() for data in objects.values() if type(data) is bytes
    ]
    reasons, accepted = collections.Counter(), 0
    count = MUTANTS[target.name] * (FULL if full else 1)
    tracemalloc.start()
    highest, done = 0, 0
    while done < count:
        objects = mutated(chance, good, mutable, spare or [b""])
        if objects == good:
            continue
        done += 1
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        report["begun"] += 1
        reason, _ = outcome(target, objects)
        report["ended"] += 1
        highest = max(highest, tracemalloc.get_traced_memory()[1] - before)
        accepted += reason is None
        reasons[re.sub(r"\d+", "N", str(reason))] += 1
    tracemalloc.stop()
    summary = ", ".join(f"{times} {reason}" for reason, times in reasons.most_common())
    print(f"{target.name}: {count} mutants; {summary}; peak {highest / 2**20:.2f} MiB (tracemalloc)")
    report["accepted"] += accepted
    report["reasons"] += len(reasons)
    report["peak"] = max(report["peak"], highest)
    assert accepted == 0
    assert highest < MOST_MEMORY


SIGNED = [target for target in TARGETS if target.signed]


@pytest.mark.parametrize("target", SIGNED, ids=lambda target: target.name)
def test_junk_that_is_well_signed(target, report, full):
    """What only the owner of the key can send: no signature stands in its way."""
    chance = random.Random(target.name)
    good = target.sample()
    meaning = outcome(target, good)[1]
    key, domain = target.signed
    fields = json.loads(good[key])
    del fields["key"], fields["signature"]
    reasons = collections.Counter()
    for _ in range(800 * (FULL if full else 1)):
        document = with_junk(chance, fields)
        document = {name: value for name, value in document.items() if name not in ("key", "signature")}
        report["begun"] += 1
        reason, found = outcome(target, {**good, key: signed_json.sign(ADA, domain, document)})
        report["ended"] += 1
        if reason is None:
            assert target.free or found == meaning, document
        reasons[re.sub(r"\d+", "N", str(reason))] += 1
    report["reasons"] += len(reasons)
    print(f"{target.name}, well signed: {dict(reasons)}")
    assert len(reasons) > 3


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "move"]), st.integers(0, 2**16), st.integers(0, 2**16), st.binary(max_size=9)
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(place=st.integers(0, 99), edits=EDITS)
def test_edits_that_shrink(target, place, edits):
    """The same with the smallest example where one is found."""
    good = target.sample()
    mutable = target.mutable or sorted(good)
    key = mutable[place % len(mutable)]
    data = good[key]
    for kind, first, second, run in edits:
        begin, end = sorted((first % (len(data) + 1), second % (len(data) + 1)))
        data = {
            "set": data[:begin] + run + data[begin + len(run) :],
            "insert": data[:begin] + run + data[begin:],
            "delete": data[:begin] + data[end:],
            "move": data[:begin] + data[end:] + data[begin:end],
        }[kind]
    reason, _ = outcome(target, {**good, key: data})
    assert (reason is None) == (data == good[key])
