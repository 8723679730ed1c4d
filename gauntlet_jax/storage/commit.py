"""Commits: a peer binds itself to an artifact before anybody may show one, so that there is nothing to copy in time.

    commit = sha256("gauntlet commit" | run | round | public key | salt | payload digest)

Bound to the key, a commit cannot be reposted by another; with a salt of 32 bytes that only its owner knows, it tells nothing.
"""

import hashlib
import re
from typing import NamedTuple

from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.artifact import MalformedArtifact
from gauntlet_jax.storage.bucket import Bucket, ObjectTooLarge, ReadableBucket
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.storage.signed_json import BadDocument

MAX_COMMIT_BYTES = 4096
_DOMAIN = "commit"
_FIELDS = {"run", "round", "peer", "commit", "key"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SALT_BYTES = 32


class MissingCommit(Exception):
    """There is no commit."""


class Commit(NamedTuple):
    """A commit that its peer has signed.

    Attributes:
      commit: 64 hexadecimal characters.
      committed_at: the provider's time.
    """

    commit: str
    committed_at: float


def commit_key(key: str) -> str:
    """Key of the commit to the artifact at ``key``."""
    return f"{key}/commit.json"


def commit_digest(run: str, round: int, public_key: str, salt: bytes, payload_digest: str) -> str:
    """What binds one key, in one round of one run, to one payload: 64 hexadecimal characters."""
    running = hashlib.sha256(b"gauntlet commit")
    for part in (run.encode(), str(round).encode(), public_key.encode(), salt, payload_digest.encode()):
        running.update(len(part).to_bytes(8, "little") + part)
    return running.hexdigest()


def write_commit(
    bucket: Bucket, key: str, *, run: str, round: int, peer: str, commit: str, identity: Identity
) -> None:
    """Publishes a commit to the artifact that will be at ``key``.

    Raises:
      OSError: the bucket cannot be written.
    """
    fields = {"run": run, "round": round, "peer": peer, "commit": commit}
    bucket.put(commit_key(key), signed_json.sign(identity, _DOMAIN, fields))


def read_commit(
    bucket: ReadableBucket, key: str, *, run: str, round: int, peer: str, public_key: str
) -> Commit:
    """Reads and checks a stranger's commit.

    Raises:
      MissingCommit: there is none.
      MalformedArtifact: it is not what is expected.
      OSError: the provider failed.
    """
    try:
        found = bucket.get(commit_key(key), max_bytes=MAX_COMMIT_BYTES)
        raw = signed_json.read(found.data, domain=_DOMAIN, key=public_key, max_bytes=MAX_COMMIT_BYTES)
    except FileNotFoundError as error:
        raise MissingCommit from error
    except ObjectTooLarge as error:
        raise MalformedArtifact(f"more than {MAX_COMMIT_BYTES} bytes") from error
    except BadDocument as error:
        raise MalformedArtifact(str(error)) from error
    if set(raw) != _FIELDS:
        raise MalformedArtifact("other fields than the protocol's")
    if type(raw["round"]) is not int or (raw["run"], raw["round"], raw["peer"]) != (run, round, peer):
        raise MalformedArtifact("of another run, round or peer")
    if type(raw["commit"]) is not str or _SHA256.fullmatch(raw["commit"]) is None:
        raise MalformedArtifact("no sha256")
    return Commit(raw["commit"], found.head.last_modified)


def reveals(commit: str, run: str, round: int, public_key: str, salt: bytes, payload_digest: str) -> bool:
    """Whether a salt of 32 bytes and a payload are what a commit was made of."""
    return len(salt) == _SALT_BYTES and commit == commit_digest(run, round, public_key, salt, payload_digest)
