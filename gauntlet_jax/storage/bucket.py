"""Buckets: where peers upload and everybody reads, with the *provider's* time on every object.

A peer's own clock proves nothing, so the put window is judged by the time at which the provider received an
object (Gauntlet, section on the put window). Here the provider's time is a ``clock`` that the caller passes:
a manual one in a simulation, wall time elsewhere.
"""

import abc
import contextlib
import itertools
import math
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import tensorstore as ts

from gauntlet_jax.storage.failures import storage_failure

MAX_KEY_LENGTH = 512
MAX_SEGMENT_LENGTH = 128
_SEGMENT = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*")
_STAGING = ".incoming"
_NANOSECONDS = 1_000_000_000


class ObjectTooLarge(ValueError):
    """An object is larger than its reader is ready to take."""


class Head(NamedTuple):
    """What the provider says of an object.

    Attributes:
      last_modified: when it was received, seconds of the bucket's clock, kept to the nanosecond.
      size: bytes.
    """

    last_modified: float
    size: int


class Object(NamedTuple):
    """An object's bytes and what the provider said of it in the same answer, so that nothing changes in between."""

    data: bytes
    head: Head


class BucketUnavailable(OSError):
    """A bucket cannot be used now, or not by this node; the text is one line without anything secret."""


class ReadableBucket(Protocol):
    """What anybody can do with a public bucket."""

    def head(self, key: str) -> Head | None:
        """Time and size of an object; None if there is none."""
        ...

    def get(self, key: str, *, max_bytes: int) -> Object:
        """An object, of which no more than ``max_bytes`` are ever read."""
        ...


class Bucket(ReadableBucket, Protocol):
    """A key-value store of whole objects; the last of two concurrent puts wins, never a mixture."""

    def put(self, key: str, data: bytes) -> None:
        """Stores an object and stamps it with the provider's time, both at once."""
        ...

    def list(self, prefix: str, *, limit: int) -> list[str]:
        """Keys that begin with ``prefix``, sorted, the first ``limit`` of them."""
        ...

    def delete_prefix(self, prefix: str) -> None:
        """Deletes every object whose key begins with ``prefix``."""
        ...


def open_bucket(url: str, *, clock: Callable[[], float]) -> Bucket:
    """Opens a bucket.

    Args:
      url: ``memory://`` (a new, empty one that lives as long as the object) or ``file:///absolute/folder``
        (created if need be; objects and their times survive).
      clock: the provider's time, in seconds since the run's genesis.

    Raises:
      ValueError: the URL is of no kind that this version knows.
      OSError: the folder cannot be created.
    """
    if url == "memory://":
        return MemoryBucket(clock)
    parts = urlsplit(url)
    folder = Path(unquote(parts.path))
    if (
        parts.scheme == "file"
        and not (parts.netloc or parts.query or parts.fragment)
        and folder.is_absolute()
    ):
        return FolderBucket(folder, clock)
    raise ValueError(f"bucket {url!r}: expected memory:// or file:///absolute/folder")


def check_key(key: str) -> str:
    """Returns the key if it is harmless on every provider.

    Raises:
      ValueError: it is empty or long, or a segment between slashes is empty, long, begins with a dot, ends in
        ``.__lock`` or has a character besides ASCII letters, digits and ``. _ = -``.
    """
    segments = key.split("/") if len(key) <= MAX_KEY_LENGTH else []
    good = all(
        len(segment) <= MAX_SEGMENT_LENGTH
        and _SEGMENT.fullmatch(segment) is not None
        # tensorstore writes a file under this name before it renames it.
        and not segment.endswith(".__lock")
        for segment in segments
    )
    if not segments or not good:
        raise ValueError(
            f"key {key[:80]!r}: expected segments of ASCII letters, digits and . _ = - between slashes"
        )
    return key


class _KvStoreBucket(abc.ABC):
    """What both buckets share: bounded reads, listing and deletion through tensorstore's key-value store."""

    def __init__(self, spec: dict, clock: Callable[[], float] | None, where: str) -> None:
        # No fsync: a simulation that is cut off plays its last rounds again from a checkpoint.
        self._store = ts.KvStore.open(spec, context=ts.Context({"file_io_sync": False})).result()
        self._clock = clock
        self._where = where

    @abc.abstractmethod
    def head(self, key: str) -> Head | None:
        """Time and size of an object; None if there is none."""

    @abc.abstractmethod
    def get(self, key: str, *, max_bytes: int) -> Object:
        """An object.

        Raises:
          FileNotFoundError: there is no such object.
          ObjectTooLarge: it has more than ``max_bytes`` bytes; none of them was read.
          OSError: the provider failed.
        """

    def _check_size(self, key: str, head: Head | None, max_bytes: int) -> Head:
        if head is None:
            raise FileNotFoundError(f"{self._where}: no object {key!r}")
        if head.size > max_bytes:
            raise ObjectTooLarge(
                f"{self._where}: object {key!r} has {head.size} bytes, at most {max_bytes} expected"
            )
        return head

    def list(self, prefix: str, *, limit: int) -> list[str]:
        """Keys that begin with ``prefix``, sorted, the first ``limit`` of them."""
        found = self._store.list(_range(prefix)).result()
        keys = sorted(key.decode("utf-8", "replace") for key in found)
        return [key for key in keys if not key.startswith(f"{_STAGING}/")][:limit]

    def delete_prefix(self, prefix: str) -> None:
        """Deletes every object whose key begins with ``prefix``; the empty prefix is refused.

        Raises:
          ValueError: the prefix is empty or no beginning of a key.
        """
        check_key(prefix.removesuffix("/"))
        self._store.delete_range(_range(prefix)).result()

    def _stamp(self) -> int:
        assert self._clock is not None
        now = self._clock()
        if not math.isfinite(now):
            raise ValueError(f"{self._where}: the clock says {now}")
        return round(now * _NANOSECONDS)


class MemoryBucket(_KvStoreBucket):
    """A bucket in this process's memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__({"driver": "memory"}, clock, "memory://")
        self._heads: dict[str, Head] = {}
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes) -> None:
        """Stores an object under the clock's time."""
        check_key(key)
        head = Head(self._stamp() / _NANOSECONDS, len(data))
        with self._lock:
            self._store.write(key, data).result()
            self._heads[key] = head

    def head(self, key: str) -> Head | None:
        """Time and size of an object; None if there is none."""
        return self._heads.get(check_key(key))

    def get(self, key: str, *, max_bytes: int) -> Object:
        """An object; errors as for every bucket."""
        with self._lock:
            head = self._check_size(key, self.head(key), max_bytes)
            return Object(self._store.read(key).result().value, head)

    def delete_prefix(self, prefix: str) -> None:
        """Deletes every object whose key begins with ``prefix``; the empty prefix is refused."""
        with self._lock:
            super().delete_prefix(prefix)
            self._heads = {key: head for key, head in self._heads.items() if not key.startswith(prefix)}


class FolderBucket(_KvStoreBucket):
    """A bucket in a folder: keys are paths of files in it, their modification times the provider's time."""

    def __init__(self, folder: Path, clock: Callable[[], float] | None) -> None:
        """A bucket in a folder, which is made if need be.

        Args:
          folder: of the objects.
          clock: the provider's time; None takes the file system's own, in Unix seconds.

        Raises:
          OSError: the folder cannot be made.
        """
        self._staging = folder / _STAGING
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_failure(error, f"bucket {folder} cannot be created") from error
        super().__init__({"driver": "file", "path": f"{folder}/"}, clock, str(folder))
        self._folder = folder
        self._numbers = itertools.count()

    def put(self, key: str, data: bytes) -> None:
        """Stores an object under the clock's time.

        Raises:
          OSError: the disk is full or the folder cannot be written; what was there before is untouched.
        """
        check_key(key)
        name = f"{os.getpid()}-{threading.get_ident()}-{next(self._numbers)}"
        staged, target = self._staging / name, self._folder / key
        stamp = None if self._clock is None else self._stamp()
        try:
            self._store.write(f"{_STAGING}/{name}", data).result()
            if stamp is not None:
                # Stamped before it is renamed: an object never shows with another time than its own.
                os.utime(staged, ns=(stamp, stamp))
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged, target)
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):  # the folder itself may be gone
                staged.unlink()
            raise storage_failure(error, f"{self._where}: object {key!r} cannot be written") from error

    def head(self, key: str) -> Head | None:
        """Time and size of an object; None if there is none."""
        try:
            return self._head_of(os.stat(self._folder / check_key(key)))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def get(self, key: str, *, max_bytes: int) -> Object:
        """An object; errors as for every bucket."""
        try:
            with open(self._folder / check_key(key), "rb", opener=_open_at_once) as file:
                # Of the open file: what is put in its place meanwhile is another file.
                head = self._check_size(key, self._head_of(os.fstat(file.fileno())), max_bytes)
                return Object(file.read(head.size), head)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(f"{self._where}: no object {key!r}") from error

    def list(self, prefix: str, *, limit: int) -> list[str]:
        """Keys that begin with ``prefix``, sorted, the first ``limit`` of them; folders behind these are not looked into."""
        folder, slash, _ = prefix.rpartition("/")
        try:
            found = self._keys(folder + slash) if not folder or check_key(folder) else ()
            return [*itertools.islice((key for key in found if key.startswith(prefix)), limit)]
        except OSError as error:
            raise storage_failure(error, f"{self._where}: the objects cannot be listed") from error

    def _keys(self, folder: str) -> Iterator[str]:
        """Keys below a folder ("" or ending in a slash) in order, each folder read when its turn comes."""
        try:
            with os.scandir(self._folder / folder) as entries:
                # A folder stands where its keys do: behind its name there comes a slash.
                names = sorted(f"{e.name}/" if e.is_dir(follow_symlinks=False) else e.name for e in entries)
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            if folder or name != f"{_STAGING}/":
                yield from self._keys(folder + name) if name.endswith("/") else (folder + name,)

    def _head_of(self, found: os.stat_result) -> Head | None:
        if not stat.S_ISREG(found.st_mode):
            return None
        # An owner can set a file's modification time to anything, but not the time of its last change of state.
        stamp = found.st_ctime_ns if self._clock is None else found.st_mtime_ns
        return Head(stamp / _NANOSECONDS, found.st_size)


def _open_at_once(path: str, flags: int) -> int:
    """Opens without waiting: a pipe in the place of an object would never open."""
    return os.open(path, flags | os.O_NONBLOCK)


def _range(prefix: str) -> ts.KvStore.KeyRange:
    if not prefix:
        return ts.KvStore.KeyRange()
    return ts.KvStore.KeyRange(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))
