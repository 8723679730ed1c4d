"""Strangers' buckets, to read: within a deadline, a size and a number of connections, from accepted addresses alone.

Objects come by plain HTTP GET and HEAD, of URLs that are signed here with the read credentials that their owner has published,
or unsigned. (The clients of the storage libraries follow redirects and connect to wherever a name leads them.) What the
provider says of time and size is taken from the very answer that has the content.
"""

import dataclasses
import datetime
import email.utils
import os
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpcore

from gauntlet_jax.storage.bucket import (
    BucketUnavailable,
    Head,
    Object,
    ObjectTooLarge,
    ReadableBucket,
    check_key,
)
from gauntlet_jax.storage.endpoints import Address, CheckedNetwork, EndpointPolicy, RefusedEndpoint, tls
from gauntlet_jax.storage.signed_url import signed_url

_OK = 200
_MISSING = (404, 410)
_REDIRECTS = range(300, 400)
_SIGNED_SECONDS = 600
# Not to be read, only passed through: folders on the way may allow no more.
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_NANOSECONDS = 1_000_000_000
_LATEST_PLAUSIBLE = 2.0**40
# A socket takes no time at all for not waiting.
_LEAST_SECONDS = 0.001


@dataclasses.dataclass(frozen=True)
class ReadLimits:
    """Bounds on what strangers' storage may cost.

    Attributes:
      seconds: for one object, from the question to its last byte, waiting for a connection included.
      connect_seconds: of these, to be connected.
      connections: open at a time, over all buckets.
      per_host: of these, to one HOST:PORT, so that a slow one leaves the others some.
    """

    seconds: float = 10.0
    connect_seconds: float = 3.0
    connections: int = 32
    per_host: int = 16


class PublicReader:
    """Opens strangers' buckets; all of them share one set of connections."""

    def __init__(
        self,
        policy: EndpointPolicy,
        limits: ReadLimits = ReadLimits(),
        *,
        network: httpcore.NetworkBackend | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """A reader under a policy.

        Args:
          policy: what is read from.
          limits: of each read.
          network: connects; None connects to judged addresses (see ``CheckedNetwork``).
          now: a clock that never goes back, in seconds.
        """
        self._policy = policy
        self._limits = limits
        self._now = now
        self._hosts = weakref.WeakValueDictionary[str, threading.BoundedSemaphore]()
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls(),
            max_connections=limits.connections,
            max_keepalive_connections=limits.connections,
            keepalive_expiry=30.0,
            network_backend=network or CheckedNetwork(policy, limits.seconds),
        )

    def open(self, address: str) -> ReadableBucket:
        """A bucket by its public address; nothing is sent yet.

        Raises:
          RefusedAddress: this reader does not accept the address.
        """
        parsed = self._policy.check(address)
        if parsed.scheme == "file":
            return PublicFolder(parsed.folder)
        room = self._hosts.setdefault(parsed.endpoint, threading.BoundedSemaphore(self._limits.per_host))
        return PublicBucket(parsed, self._pool, room, self._limits, self._now)

    def close(self) -> None:
        """Closes all connections."""
        self._pool.close()


class _BrokenOff(BucketUnavailable):
    """A connection ended before its answer did."""


class PublicBucket:
    """A stranger's bucket behind HTTP."""

    def __init__(
        self,
        address: Address,
        pool: httpcore.ConnectionPool,
        room: threading.BoundedSemaphore,
        limits: ReadLimits,
        now: Callable[[], float],
    ) -> None:
        """See ``PublicReader.open``."""
        self._address = address
        self._pool = pool
        self._room = room
        self._limits = limits
        self._now = now

    def head(self, key: str) -> Head | None:
        """Time and size of an object; None if there is none.

        Raises:
          BucketUnavailable: it did not answer as it must.
        """
        return self._ask("HEAD", key, 0)[0]

    def get(self, key: str, *, max_bytes: int) -> Object:
        """An object; no more than ``max_bytes`` of it are read, whatever is announced.

        Raises:
          FileNotFoundError: there is none.
          ObjectTooLarge: it has more.
          BucketUnavailable: it did not answer as it must.
        """
        head, data = self._ask("GET", key, max_bytes)
        if head is None:
            raise FileNotFoundError(f"no object {key!r}")
        return Object(data, head)

    def _ask(self, method: str, key: str, max_bytes: int) -> tuple[Head | None, bytes]:
        until = self._now() + self._limits.seconds
        check_key(key)
        try:
            return self._ask_once(method, key, max_bytes, until)
        except _BrokenOff:
            # A server may end a connection that it kept open just as it is used again: once is bad luck.
            return self._ask_once(method, key, max_bytes, until)

    def _ask_once(self, method: str, key: str, max_bytes: int, until: float) -> tuple[Head | None, bytes]:
        url = self._url(method, key)
        try:
            with (
                self._turn(),
                self._pool.stream(
                    method,
                    url,
                    headers={"Accept-Encoding": "identity", "User-Agent": "gauntlet_jax"},
                    extensions={"timeout": _Left(until, self._limits.connect_seconds, self._now)},
                ) as response,
            ):
                if response.status in _MISSING:
                    return None, b""
                head = _head_of(response, method)
                if method == "HEAD":
                    return head, b""
                return head, self._body(response, head, max_bytes, until)
        except RefusedEndpoint as error:
            raise BucketUnavailable("its endpoint has an address that is not public") from error
        except httpcore.TimeoutException as error:
            raise BucketUnavailable("it did not answer in time") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError) as error:
            raise _BrokenOff("it broke the connection off, or speaks no HTTP") from error

    def _body(self, response: httpcore.Response, head: Head, max_bytes: int, until: float) -> bytes:
        if head.size > max_bytes:
            raise ObjectTooLarge(f"an object of {head.size} bytes, at most {max_bytes} expected")
        data = bytearray()
        for chunk in response.iter_stream():
            data += chunk
            # A server that sends a byte now and then keeps within every timeout but this one.
            if self._now() > until:
                raise BucketUnavailable("it did not answer in time")
            if len(data) > head.size:
                raise BucketUnavailable("it sends more than it announced")
        if len(data) != head.size:
            raise BucketUnavailable("it sends less than it announced")
        return bytes(data)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._room.acquire(timeout=self._limits.seconds):
            raise httpcore.PoolTimeout("its host has all the connections that it may have")
        try:
            yield
        finally:
            self._room.release()

    def _url(self, method: str, key: str) -> str:
        address = self._address
        path = f"{address.prefix}/{key}" if address.prefix else key
        if address.access_key:
            return signed_url(address, method, path, datetime.datetime.now(datetime.UTC), _SIGNED_SECONDS)
        return f"{address.endpoint}/{address.bucket}/{quote(path)}"


class _Left(dict[str, float]):
    """Time left for a step of a request, worked out when the client begins the step: the steps share one deadline."""

    def __init__(self, until: float, connect_seconds: float, now: Callable[[], float]) -> None:
        super().__init__()
        self._until = until
        self._connect_seconds = connect_seconds
        self._now = now

    def get(self, key: str, default: object = None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        left = max(self._until - self._now(), _LEAST_SECONDS)
        return min(left, self._connect_seconds) if key == "connect" else left


class PublicFolder:
    """A folder of this machine that somebody else writes: regular files below it alone, never a link."""

    def __init__(self, folder: Path) -> None:
        """A folder that the policy has accepted."""
        self._folder = folder

    def head(self, key: str) -> Head | None:
        """Time (the file system's, of the last change of state) and size of an object; None if there is none."""
        try:
            descriptor = self._open(key)
        except FileNotFoundError:
            return None
        try:
            return _file_head(descriptor)
        finally:
            os.close(descriptor)

    def get(self, key: str, *, max_bytes: int) -> Object:
        """An object; errors as for every bucket."""
        descriptor = self._open(key)
        try:
            head = _file_head(descriptor)
            if head is None:
                raise FileNotFoundError(f"no object {key!r}")
            if head.size > max_bytes:
                raise ObjectTooLarge(f"an object of {head.size} bytes, at most {max_bytes} expected")
            # Made into a file only now: of a folder's descriptor that fails, and leaves it open.
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(head.size)
            # Written into, not replaced: the content would be newer than the time that was read before it.
            if _file_head(descriptor) != head or len(data) != head.size:
                raise BucketUnavailable("the file changes while it is read")
            return Object(data, head)
        finally:
            os.close(descriptor)

    def _open(self, key: str) -> int:
        """Opens a file from the root down, no step of which may be a link.

        The policy has followed the links on the way to the folder: one that is there now was put there since.
        """
        *folders, name = check_key(key).split("/")
        here = -1
        try:
            here = os.open(self._folder.anchor, _STEP)
            for folder in (*self._folder.parts[1:], *folders):
                below = os.open(folder, _STEP, dir_fd=here)
                os.close(here)
                here = below
            # Not to wait for the other end of a named pipe.
            return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(f"no object {key!r}") from error
        except OSError as error:
            raise BucketUnavailable("a link, or a file that cannot be read") from error
        finally:
            if here >= 0:
                os.close(here)


def _file_head(descriptor: int) -> Head | None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        return None
    return Head(found.st_ctime_ns / _NANOSECONDS, found.st_size)


def _head_of(response: httpcore.Response, method: str) -> Head:
    """Time and size that an answer announces."""
    if response.status in _REDIRECTS:
        raise BucketUnavailable("it redirects, which is not followed")
    if response.status != _OK:
        raise BucketUnavailable(f"it answers with status {response.status}")
    headers = _single(response)
    if headers.get("content-encoding", "identity") != "identity":
        raise BucketUnavailable("it sends compressed content")
    length = headers.get("content-length", "")
    if not length.isdecimal() or len(length) > 18:
        raise BucketUnavailable("it does not say how much it sends")
    try:
        moment = email.utils.parsedate_to_datetime(headers.get("last-modified", ""))
        at = moment.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise BucketUnavailable("it does not say when the object came") from error
    # In the one form of HTTP's standard: what this parser reads into other forms, another reader may not.
    if not 0 <= at < _LATEST_PLAUSIBLE or headers["last-modified"] != email.utils.formatdate(at, usegmt=True):
        raise BucketUnavailable("it does not say when the object came")
    return Head(at, int(length))


def _single(response: httpcore.Response) -> Mapping[str, str]:
    """Headers by their small-letter names; one that comes twice is none."""
    headers: dict[str, str] = {}
    for name, value in response.headers:
        known = name.decode("latin-1").lower()
        headers[known] = "" if known in headers else value.decode("latin-1").strip()
    return headers
