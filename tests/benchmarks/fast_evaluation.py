"""Fast evaluation of many peers' artifacts: how many a second, and what of it is waiting for storage.

    python tests/benchmarks/fast_evaluation.py [--peers 1000]

Real artifacts of the quickstart's model, each signed by its own peer, with a probe and a commit of its own, in a folder a peer.
"Waiting" is the time inside the reads of the one reader that the split is measured with; everything else is checking:
signatures, digests, form, commits, probes, duplicates. Prints the peak of memory after a quarter and after all of them: it must not grow with their number.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "configs"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.peak_memory import peak_bytes
from quickstart import get_config

from gauntlet_jax.build.parts import Data, read_corpus
from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import make_task
from gauntlet_jax.nodes.beacon import derive
from gauntlet_jax.nodes.inspection import Inspector, Member
from gauntlet_jax.nodes.peer import Opening, artifact_key, probe_key
from gauntlet_jax.nodes.stopwatch import Stopwatch
from gauntlet_jax.scoring import Window
from gauntlet_jax.storage.artifact import (
    PROBE,
    PROTOCOL,
    Manifest,
    array_digests,
    payload_digest,
    write_artifact,
)
from gauntlet_jax.storage.bucket import FolderBucket
from gauntlet_jax.storage.commit import commit_digest, write_commit
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.public_bucket import PublicFolder


def main(peers: int) -> dict[str, float]:
    """Writes the artifacts, evaluates a quarter of them and then all, and returns what was measured."""
    config = get_config()
    corpus = read_corpus(config)
    task = make_task(config, corpus)
    data, steps = Data(config, corpus, task.shardings), Steps(config, task)
    now = time.time()
    # The windows are judged by the file system's own time of change.
    opening = Opening("bench", 0, Window(now - 60, now + 3600), Window(now - 60, now + 3600), bytes(32), 1e-3)
    with tempfile.TemporaryDirectory() as folder:
        members = _artifacts(Path(folder), peers, opening, config, task, data, steps)
        evaluate = _evaluation(config, data, steps, task.params, opening)
        evaluate(members[:16], 16)  # compiles
        evaluate(members[: peers // 4], 16)
        quarter = _peak_mebibytes()
        seconds = evaluate(members, 16)
        peak = _peak_mebibytes()
        timed = [member._replace(bucket=_TimedBucket(member.bucket)) for member in members]
        alone = evaluate(timed, 1)
        waiting = sum(member.bucket.seconds for member in timed)
    print(
        f"fast evaluation of {peers} peers: {peers / seconds:.0f} artifacts a second with 16 readers,"
        f" {peers / alone:.0f} with one, of whose {alone:.2f} s {waiting:.2f} are waiting on storage and"
        f" {alone - waiting:.2f} checking; peak memory {quarter:.0f} MiB after a quarter, {peak:.0f} MiB after all"
    )
    return {"artifacts_a_second": peers / seconds, "quarter": quarter, "peak": peak}


class _TimedBucket:
    """A bucket that adds up the time spent in it."""

    def __init__(self, bucket):
        self._bucket = bucket
        self.seconds = 0.0

    def head(self, key: str):
        return self._bucket.head(key)

    def get(self, key: str, *, max_bytes: int):
        began = time.perf_counter()
        try:
            return self._bucket.get(key, max_bytes=max_bytes)
        finally:
            self.seconds += time.perf_counter() - began


def _evaluation(config, data, steps, params, opening):
    """``(members, readers) -> seconds``; everybody must be accepted."""

    def evaluate(members, readers: int) -> float:
        inspector = Inspector(
            schema=steps.schema,
            unpack=steps.validator.inspect,
            probe=steps.validator.probe,
            batch=config.data.batch,
            max_declared=data.assignment.capacity,
            max_sync_score=1.5,
            stopwatch=Stopwatch(),
            readers=readers,
            wait_seconds=300.0,
        )
        began = time.perf_counter()
        seen = inspector.look(opening, params, members)
        refusals = inspector.fast_evaluation(opening, members, seen, {})
        seconds = time.perf_counter() - began
        assert all(refusal is None for refusal in refusals.values())
        return seconds

    return evaluate


def _artifacts(folder, peers, opening, config, task, data, steps) -> list[Member]:
    """One artifact a peer: a real one, with values of its own."""
    batch = data.batches_of(data.assignment.assigned(0, 0, config.data.batch))
    gradient, _ = steps.peer.training.run(task.params, steps.peer.training.init(task.params), batch)
    packed, _ = steps.peer.encode(steps.peer.init(task.params), gradient)
    arrays = {name: np.asarray(array) for name, array in packed.items()}
    generator, spoken = np.random.default_rng(0), arrays["codes"] != 0
    members = []
    for number in range(peers):
        name = f"peer-{number}"
        identity = Identity(derive(b"benchmark", number))
        own = {**arrays, "codes": arrays["codes"].copy()}
        # Those that are zero stay so: a block of nothing may not say anything else.
        own["codes"][spoken] = generator.permutation(own["codes"][spoken])
        probe = np.asarray(steps.peer.probe(task.params, probe_key(opening.beacon, name)))
        digest, salt = payload_digest(array_digests(own)), bytes(32)
        bucket = FolderBucket(folder / name, None)
        key = artifact_key(0)
        commit = commit_digest("bench", 0, identity.public_key, salt, digest)
        write_commit(bucket, key, run="bench", round=0, peer=name, commit=commit, identity=identity)
        own = {**own, PROBE: probe}
        manifest = Manifest("bench", 0, name, config.data.batch, PROTOCOL, array_digests(own), salt.hex())
        write_artifact(bucket, key, own, manifest, identity)
        members.append(Member(name, number, PublicFolder(folder / name), identity.public_key))
    return members


def _peak_mebibytes() -> float:
    return peak_bytes() / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=int, default=1000)
    parser.add_argument(
        "--json", action="store_true", help="print the numbers once more, as one line of JSON"
    )
    given = parser.parse_args()
    found = main(given.peers)
    if given.json:
        print(json.dumps(found))
