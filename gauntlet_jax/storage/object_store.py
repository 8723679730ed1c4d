"""A node's own bucket: ``file://``, ``s3://`` (any S3-compatible service) or ``gs://``.

Objects are written through tensorstore; times, sizes and listings come from obstore, since tensorstore knows no time but the
client's. Every object is written by one plain PUT: conditional writes and multipart uploads are where S3-like services differ.
"""

import dataclasses
import datetime
import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import obstore
import tensorstore as ts
from obstore.exceptions import BaseError
from obstore.store import GCSStore, S3Store

from gauntlet_jax.storage.bucket import (
    Bucket,
    BucketUnavailable,
    FolderBucket,
    Head,
    Object,
    ObjectTooLarge,
    check_key,
)
from gauntlet_jax.storage.endpoints import Address, parse_address

_PUT_SECONDS = 15.0
_RETRIES = {"max_retries": 4, "initial_delay": "200ms", "max_delay": "1s"}
_LIST_PAGE = 500
_KEY = re.compile(r"[!-~]{1,256}")
# As whole words: a port or an identifier of a request may have the same digits in it.
_DENIED = re.compile(r"\b(401|403|AccessDenied|PERMISSION_DENIED)\b|credentials")


@dataclasses.dataclass(frozen=True)
class Credentials:
    """A pair of keys; the secret one shows in no representation.

    Attributes:
      access_key: the public half.
      secret_key: the other.
    """

    access_key: str
    secret_key: str = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        # They go into headers, URLs and a file of lines, and must be nothing but a word in any of these.
        if not all(map(_KEY.fullmatch, (self.access_key, self.secret_key))):
            raise ValueError(
                "access and secret key are printable ASCII characters without spaces, 256 at most"
            )


def open_own_bucket(url: str, credentials: Credentials | None) -> Bucket:
    """Opens a bucket to write.

    Args:
      url: ``file:///absolute/folder``, ``s3://bucket/prefix?endpoint=https://HOST&region=REGION`` or ``gs://bucket/prefix``.
      credentials: needed for s3://; file:// and gs:// take None, gs:// finds its own where Google's libraries look for them.

    Raises:
      ValueError: the URL is of no such kind.
      BucketUnavailable: there are no credentials to write with.
      OSError: the folder cannot be made.
    """
    try:
        address = parse_address(url)
    except ValueError as error:
        # What stands before an @ or behind a ? may be a secret.
        shown = "" if "@" in url else f" {url.split('?', maxsplit=1)[0][:80]!r}"
        raise ValueError(
            f"bucket{shown}: {error}; expected file:///absolute/folder,"
            " s3://bucket/prefix?endpoint=https://HOST&region=REGION or gs://bucket/prefix"
        ) from error
    if address.secret_key:
        raise ValueError("a bucket's URL holds no keys: credentials to write come from the environment")
    if address.scheme == "file":
        return FolderBucket(address.folder, None)
    if address.scheme == "s3" and credentials is None:
        # The libraries would go and ask the machine's metadata service.
        raise BucketUnavailable(
            f"bucket s3://{address.bucket} at {address.endpoint}: no credentials to write there;"
            " set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return StoreBucket(address, credentials)


def publish(url: str, read: Credentials | None) -> str:
    """The public address of a bucket, as a node posts it on a ledger.

    Args:
      url: of the bucket, as for ``open_own_bucket``.
      read: keys with which everybody may read it, public by design; None where reads need none.

    Raises:
      ValueError: the URL is none, has no keys to read, or the address would be too long.
    """
    address = parse_address(url)
    if read is not None and address.scheme != "s3":
        raise ValueError("keys to read are published for s3:// buckets alone")
    if address.scheme == "file":
        parse_address(address.folder.as_uri())
        return address.folder.as_uri()
    path = f"{address.scheme}://{address.bucket}/{address.prefix}"
    options = {}
    if address.scheme == "s3":
        options = {"endpoint": address.endpoint, "region": address.region}
        if read is not None:
            options |= {"access_key": read.access_key, "secret_key": read.secret_key}
    public = f"{path}?{urlencode(options, quote_via=quote)}" if options else path
    parse_address(public)
    return public


class StoreBucket:
    """A bucket of an object store, with the rights of its owner."""

    def __init__(self, address: Address, credentials: Credentials | None) -> None:
        """See ``open_own_bucket``."""
        self._where = f"bucket {address.scheme}://{address.bucket} at {address.endpoint}"
        self._prefix = f"{address.prefix}/" if address.prefix else ""
        client: Any = {
            "allow_http": address.endpoint.startswith("http://"),
            "timeout": f"{_PUT_SECONDS:.0f}s",
            "connect_timeout": "5s",
        }
        retry: Any = {"max_retries": 2, "retry_timeout": datetime.timedelta(seconds=_PUT_SECONDS)}
        if credentials is None:
            self._advice = "Google's application default credentials"
            self._store: Any = GCSStore(address.bucket, client_options=client, retry_config=retry)
            spec: dict[str, Any] = {"driver": "gcs", "bucket": address.bucket, "path": self._prefix}
        else:
            self._advice = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            self._store = S3Store(
                address.bucket,
                endpoint=address.endpoint,
                region=address.region,
                virtual_hosted_style_request=False,
                client_options=client,
                retry_config=retry,
                access_key_id=credentials.access_key,
                secret_access_key=credentials.secret_key,
            )
            spec = {
                "driver": "s3",
                "bucket": address.bucket,
                "path": self._prefix,
                "endpoint": address.endpoint,
                "aws_region": address.region,
                "aws_credentials": self._profile(credentials),
            }
        retries = {"s3_request_retries": _RETRIES} if address.scheme == "s3" else {}
        with self._failures():
            self._kvstore = ts.KvStore.open(spec, context=ts.Context(retries)).result()

    def put(self, key: str, data: bytes) -> None:
        """Stores an object; the provider gives it its time.

        Raises:
          BucketUnavailable: it was not stored.
        """
        check_key(key)
        with self._failures():
            self._kvstore.write(key, data).result(timeout=_PUT_SECONDS)

    def head(self, key: str) -> Head | None:
        """Time and size of an object; None if there is none."""
        try:
            with self._failures():
                found = obstore.head(self._store, self._prefix + check_key(key))
        except FileNotFoundError:
            return None
        return Head(found["last_modified"].timestamp(), found["size"])

    def get(self, key: str, *, max_bytes: int) -> Object:
        """An object; errors as for every bucket."""
        with self._failures():
            found = obstore.get(self._store, self._prefix + check_key(key))
            head = Head(found.meta["last_modified"].timestamp(), found.meta["size"])
            if head.size > max_bytes:
                raise ObjectTooLarge(
                    f"{self._where}: object {key!r} has {head.size} bytes, at most {max_bytes} expected"
                )
            return Object(bytes(found.bytes()), head)

    def list(self, prefix: str, *, limit: int) -> list[str]:
        """Keys that begin with ``prefix``, the first ``limit`` of them in the provider's order, sorted."""
        # The library cuts prefixes at slashes: what is behind the last one is compared here.
        folder, _, _ = prefix.rpartition("/")
        keys: list[str] = []
        with self._failures():
            for page in obstore.list(self._store, f"{self._prefix}{folder}" or None, chunk_size=_LIST_PAGE):
                found = (entry["path"].removeprefix(self._prefix) for entry in page)
                keys += [key for key in found if key.startswith(prefix)]
                if len(keys) >= limit:
                    break
        return sorted(keys[:limit])

    def delete_prefix(self, prefix: str) -> None:
        """Deletes every object whose key begins with ``prefix``; the empty prefix is refused."""
        check_key(prefix.removesuffix("/"))
        while keys := self.list(prefix, limit=_LIST_PAGE):
            with self._failures():
                obstore.delete(self._store, [self._prefix + key for key in keys])

    def _profile(self, credentials: Credentials) -> dict[str, str]:
        """tensorstore takes keys of a given pair from a file alone: one that nobody else can read, gone with this object.

        Where the system has files in memory it is one of these, so that a node that is killed leaves no secret on a disk.
        """
        lines = f"[own]\naws_access_key_id={credentials.access_key}\naws_secret_access_key={credentials.secret_key}\n"
        if sys.platform == "linux":
            config, keys = (self._in_memory(text) for text in ("", lines))
            return {"type": "profile", "profile": "own", "config_file": config, "credentials_file": keys}
        folder = Path(tempfile.mkdtemp(prefix="gauntlet-credentials-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for name, text in (("config", ""), ("credentials", lines)):
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
        return {
            "type": "profile",
            "profile": "own",
            "config_file": str(folder / "config"),
            "credentials_file": str(folder / "credentials"),
        }

    def _in_memory(self, text: str) -> str:
        """Path, for this process alone, of a file without a name."""
        assert sys.platform == "linux"
        descriptor = os.memfd_create("gauntlet-credentials")
        weakref.finalize(self, os.close, descriptor)
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, text.encode("ascii"))
        return f"/proc/self/fd/{descriptor}"

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Errors of both libraries as one line, which repeats nothing of theirs."""
        try:
            yield
        except (BucketUnavailable, ObjectTooLarge):
            raise
        except (BaseError, OSError, ValueError, TimeoutError) as error:
            text = str(error)
            if "NoSuchBucket" in text:
                raise BucketUnavailable(f"{self._where}: there is no such bucket; create it first") from None
            if "NoSuchKey" in text or isinstance(error, FileNotFoundError):
                raise FileNotFoundError(f"{self._where}: no such object") from None
            if _DENIED.search(text):
                raise BucketUnavailable(
                    f"{self._where} refuses these credentials: check {self._advice},"
                    " and that they may write there"
                ) from None
            raise BucketUnavailable(
                f"{self._where} does not answer; check the endpoint and the network"
            ) from None
