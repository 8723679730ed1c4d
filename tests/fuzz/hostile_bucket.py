"""A stranger's bucket: it holds anything, of any size, and counts what it hands out."""

from collections.abc import Mapping

from gauntlet_jax.storage.bucket import Head, Object, ObjectTooLarge

Objects = Mapping[str, bytes | int]
"""Objects by key. A number stands for an object of so many bytes that nobody may ask for: it is not even made."""


class HostileBucket:
    """A bucket to read.

    Attributes:
      handed_out: bytes given to its reader so far.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.handed_out = 0

    def head(self, key: str) -> Head | None:
        found = self._objects.get(key)
        return None if found is None else Head(10.0, _size(found))

    def get(self, key: str, *, max_bytes: int) -> Object:
        found = self._objects.get(key)
        if found is None:
            raise FileNotFoundError(f"no object {key}")
        if _size(found) > max_bytes:
            raise ObjectTooLarge(f"object {key} has {_size(found)} bytes")
        assert isinstance(found, bytes), f"{key} of {found} bytes would have been read"
        self.handed_out += len(found)
        return Object(found, Head(10.0, len(found)))

    def one(self, key: str, *, max_bytes: int) -> bytes:
        """What a reader without a bucket of its own is given."""
        return self.get(key, max_bytes=max_bytes).data


class Recording(dict[str, bytes]):
    """A bucket to write; the dict is what it holds."""

    def put(self, key: str, data: bytes) -> None:
        self[key] = data

    def head(self, key: str) -> Head | None:
        return HostileBucket(self).head(key)

    def get(self, key: str, *, max_bytes: int) -> Object:  # type: ignore[override]
        return HostileBucket(self).get(key, max_bytes=max_bytes)

    def list(self, prefix: str, *, limit: int) -> list[str]:
        return sorted(key for key in self if key.startswith(prefix))[:limit]

    def delete_prefix(self, prefix: str) -> None:
        for key in self.list(prefix, limit=len(self)):
            del self[key]


def _size(found: bytes | int) -> int:
    return found if isinstance(found, int) else len(found)
