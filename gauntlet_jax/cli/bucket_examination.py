"""What the doctor tries with a bucket: everything that its owner must be able to do there, and that nobody else may."""

import datetime
import os
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import httpx

from gauntlet_jax.cli.node import NodeFlags, credentials
from gauntlet_jax.cli.node_parts import read_credentials
from gauntlet_jax.cli.run_folder import one_line
from gauntlet_jax.config import Config
from gauntlet_jax.planning import doctor
from gauntlet_jax.planning.doctor import Finding
from gauntlet_jax.planning.needs import needs_of
from gauntlet_jax.storage.bucket import Bucket, ObjectTooLarge, ReadableBucket
from gauntlet_jax.storage.endpoints import EndpointPolicy
from gauntlet_jax.storage.object_store import Credentials, open_own_bucket, publish
from gauntlet_jax.storage.public_bucket import PublicReader
from gauntlet_jax.storage.signed_url import signed_url

_FOLDER = "doctor"
_TRIES = 3
_SAMPLE = b"gauntlet doctor was here"
_PUT_SECONDS = 10.0


def examine_bucket(config: Config, flags: NodeFlags, now: Callable[[], float]) -> Iterator[Finding]:
    """Findings about a node's own bucket; what is written there is deleted.

    Args:
      config: of the run.
      flags: that the node will have.
      now: the ledger's time, seconds.

    Raises:
      ValueError: a flag is wrong.
    """
    if not flags.bucket.startswith("file:"):
        fault = doctor.window_fault(config.times, commit_reveal=config.commit_reveal)
        yield Finding(
            "ok" if fault is None else "FAIL",
            "windows",
            fault or "whole seconds, long enough for object stores",
        )
    pair = credentials()
    posted = publish(flags.bucket, read_credentials(flags))
    policy = EndpointPolicy(frozenset(flags.allow_endpoint), tuple(flags.allow_folder))
    try:
        own = open_own_bucket(flags.bucket, None if pair is None else Credentials(*pair))
        own.delete_prefix(f"{_FOLDER}/")  # of a doctor that was killed
        sent = now()
        own.put(f"{_FOLDER}/sample", _SAMPLE)
        stored = now()
    except OSError as error:
        yield Finding("FAIL", "bucket", one_line(error))
        return
    try:
        yield _own_rights(own)
        yield _clock(own, sent, stored, config)
        yield from _public(posted, policy)
        yield from _refusals(posted, policy)
        yield _uploads(own, config)
    except BaseException:
        own.delete_prefix(f"{_FOLDER}/")
        raise
    yield _deleted(own)


def _own_rights(own: Bucket) -> Finding:
    key = f"{_FOLDER}/sample"
    try:
        head, found = own.head(key), own.get(key, max_bytes=len(_SAMPLE))
        listed = own.list(f"{_FOLDER}/", limit=10)
    except (OSError, ObjectTooLarge) as error:
        return Finding("FAIL", "bucket", f"it can be written, but not read or listed: {one_line(error)}")
    if head is None or found.data != _SAMPLE or listed != [key]:
        return Finding(
            "FAIL", "bucket", "it does not give back what was just written: use a store that does at once"
        )
    return Finding("ok", "bucket", "written, read back and listed")


def _clock(own: Bucket, sent: float, stored: float, config: Config) -> Finding:
    head = own.head(f"{_FOLDER}/sample")
    if head is None:
        return Finding("FAIL", "clock", "the bucket does not say when an object came")
    # Whole seconds are cut off, not rounded.
    grain = 1.0 if head.last_modified == int(head.last_modified) else 0.0
    return doctor.judge_store_clock(
        head.last_modified - stored, head.last_modified + grain - sent, config.times
    )


def _public(posted: str, policy: EndpointPolicy) -> Iterator[Finding]:
    """Reads as all others will: by the address that is posted on the ledger."""
    reader = PublicReader(policy)
    try:
        try:
            bucket = reader.open(posted)
        except ValueError as error:
            yield Finding("FAIL", "public", f"others would not read {_shown(posted)}: {one_line(error)}")
            return
        yield _read(bucket, f"{_FOLDER}/sample")
        try:
            absent = bucket.head(f"{_FOLDER}/absent") is None
        except OSError as error:
            text = f"what is not there does not read as missing, but: {one_line(error)}; let everybody list the bucket"
            yield Finding("warning", "public", text)
        else:
            level, text = (
                ("ok", "what is not there reads as missing")
                if absent
                else ("FAIL", "anything seems to be there")
            )
            yield Finding(level, "public", text)
    finally:
        reader.close()


def _read(bucket: ReadableBucket, key: str) -> Finding:
    try:
        found = bucket.get(key, max_bytes=len(_SAMPLE))
    except (OSError, ObjectTooLarge) as error:
        text = f"others cannot read the bucket: {one_line(error)}; let everybody read it, or give --read-access-key"
        return Finding("FAIL", "public", text)
    if found.data != _SAMPLE:
        return Finding(
            "FAIL", "public", "others read something else than was written: the address is another bucket's"
        )
    return Finding("ok", "public", "others can read it")


def _refusals(posted: str, policy: EndpointPolicy) -> Iterator[Finding]:
    """Tries to write without the owner's credentials, and with those that everybody gets to read with."""
    try:
        address = policy.check(posted)
    except ValueError:
        return  # said before
    if address.scheme == "file":
        mode = address.folder.stat().st_mode
        if mode & 0o022:
            text = f"other users of this machine may write into {address.folder}: chmod go-w {address.folder}"
            yield Finding("warning", "rights", text)
        return
    key = f"{address.prefix}/{_FOLDER}/stranger" if address.prefix else f"{_FOLDER}/stranger"
    yield doctor.judge_refusal(
        _put(f"{address.endpoint}/{address.bucket}/{quote(key)}"), "without credentials"
    )
    if address.access_key:
        at = datetime.datetime.now(datetime.UTC)
        yield doctor.judge_refusal(_put(signed_url(address, "PUT", key, at, 60)), "with the public read keys")


def _put(url: str) -> int | None:
    """The status of a write to a URL; None without an answer."""
    try:
        with httpx.Client(timeout=_PUT_SECONDS, follow_redirects=False, trust_env=False) as client:
            return client.put(url, content=_SAMPLE).status_code
    except httpx.HTTPError:
        return None


def _uploads(own: Bucket, config: Config) -> Finding:
    size = needs_of(config).artifact
    seconds = []
    for number in range(_TRIES):
        data = os.urandom(size)
        begun = time.monotonic()
        try:
            own.put(f"{_FOLDER}/artifact-{number}", data)
        except OSError as error:
            return Finding("FAIL", "upload", f"an artifact of {doctor.size(size)}: {one_line(error)}")
        seconds.append(time.monotonic() - begun)
    return doctor.judge_uploads(seconds, size, config.times)


def _deleted(own: Bucket) -> Finding:
    try:
        own.delete_prefix(f"{_FOLDER}/")
        left = own.list(f"{_FOLDER}/", limit=1)
    except OSError as error:
        return Finding(
            "FAIL", "bucket", f"nothing can be deleted there, {_FOLDER}/ is left: {one_line(error)}"
        )
    if left:
        return Finding("FAIL", "bucket", f"what is deleted stays there, such as {left[0]}")
    return Finding("ok", "bucket", "deleted again")


def _shown(address: str) -> str:
    return address.split("?", maxsplit=1)[0]
