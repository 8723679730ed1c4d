import contextlib
import errno
import os
import tempfile
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauntlet_jax.storage.bucket import FolderBucket, Head, Object, ObjectTooLarge, check_key, open_bucket


class Clock:
    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "file"])
def bucket(request, tmp_path, clock):
    url = "memory://" if request.param == "memory" else (tmp_path / "a store").as_uri()
    return open_bucket(url, clock=clock)


def test_put_head_get(bucket, clock):
    clock.time = 12.25
    bucket.put("rounds/3/ada", b"hello")
    assert bucket.head("rounds/3/ada") == Head(12.25, 5)
    assert bucket.get("rounds/3/ada", max_bytes=5) == Object(b"hello", Head(12.25, 5))
    bucket.put("empty", b"")
    assert bucket.get("empty", max_bytes=0) == Object(b"", Head(12.25, 0))


def test_the_time_is_the_one_of_the_last_put(bucket, clock):
    for clock.time in (5.0, 2.5, 1e6 + 0.1, -3.75):
        bucket.put("k", str(clock.time).encode())
        head = bucket.head("k")
        assert head is not None
        assert head.last_modified == pytest.approx(clock.time, abs=1e-9)
        assert bucket.get("k", max_bytes=20) == Object(str(clock.time).encode(), head)


def test_times_agree_to_the_bit_between_kinds_of_bucket(tmp_path, clock):
    memory, folder = open_bucket("memory://", clock=clock), open_bucket(tmp_path.as_uri(), clock=clock)
    for clock.time in (0.1, 1 / 3, 1234567.891234567, 2.0**31 + 1e-7):
        memory.put("k", b"1")
        folder.put("k", b"1")
        assert memory.head("k") == folder.head("k")


def test_missing_objects(bucket):
    bucket.put("a/b", b"1")
    for key in ("a", "a/c", "a/b/c", "z"):
        assert bucket.head(key) is None
        with pytest.raises(FileNotFoundError, match="no object"):
            bucket.get(key, max_bytes=10)


def test_a_read_is_bounded(bucket):
    bucket.put("k", b"123456")
    with pytest.raises(ObjectTooLarge, match="has 6 bytes, at most 5 expected"):
        bucket.get("k", max_bytes=5)


def test_an_object_is_replaced_whole_while_it_is_read(bucket, clock, monkeypatch):
    """What is put in the middle of a read shows in the next one: bytes, size and time are of one object."""
    bucket.put("k", b"x" * 10)
    measured = type(bucket)._check_size

    def replaced_now(self, *arguments):
        if isinstance(self, FolderBucket):  # the one in memory holds its lock
            clock.time = 7.0
            self.put("k", b"y" * 1000)
        return measured(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(type(bucket), "_check_size", replaced_now)
        assert bucket.get("k", max_bytes=10) == Object(b"x" * 10, Head(0.0, 10))
    if isinstance(bucket, FolderBucket):
        assert bucket.get("k", max_bytes=1000) == Object(b"y" * 1000, Head(7.0, 1000))


def test_without_a_clock_the_time_is_the_file_systems_and_not_its_owners(tmp_path):
    bucket = FolderBucket(tmp_path, None)
    before = time.time()
    bucket.put("a/b", b"1")
    # Some kernels stamp with the time of their last tick.
    assert before - 0.1 <= bucket.get("a/b", max_bytes=1).head.last_modified <= time.time() + 0.1
    os.utime(tmp_path / "a" / "b", (1000.0, 1000.0))
    head = bucket.head("a/b")
    assert head is not None
    assert head.last_modified >= before - 0.1
    assert (tmp_path / "a" / "b").stat().st_mtime == 1000.0


def test_list_is_sorted_and_limited(bucket):
    for key in ("b/2", "b/1", "a", "b/10/x", "bc"):
        bucket.put(key, b"")
    assert bucket.list("", limit=10) == ["a", "b/1", "b/10/x", "b/2", "bc"]
    assert bucket.list("b/", limit=10) == ["b/1", "b/10/x", "b/2"]
    assert bucket.list("b/1", limit=10) == ["b/1", "b/10/x"]
    assert bucket.list("", limit=2) == ["a", "b/1"]
    assert bucket.list("z", limit=2) == []


@given(
    st.sets(st.from_regex(r"[ab.=_-]{1,3}(/[ab.=_-]{1,2}){0,2}", fullmatch=True), max_size=12),
    st.sampled_from(["", "a", "a/", "a/b", "ab", "a.", "a/b/", "b-"]),
    st.integers(0, 5),
)
def test_both_kinds_list_alike(keys, prefix, limit):
    with tempfile.TemporaryDirectory() as folder:
        memory, file = (
            open_bucket("memory://", clock=lambda: 0.0),
            open_bucket(f"file://{folder}", clock=lambda: 0.0),
        )
        put = []
        for key in sorted(keys):
            # In a folder a key cannot be the beginning of another one's path.
            if not any(other.startswith(f"{key}/") for other in keys):
                with contextlib.suppress(ValueError):
                    file.put(key, b"")
                    memory.put(key, b"")
                    put.append(key)
        expected = sorted(key for key in put if key.startswith(prefix))[:limit]
        assert memory.list(prefix, limit=limit) == file.list(prefix, limit=limit) == expected


def test_a_limited_list_of_a_folder_looks_no_further_than_it_must(tmp_path, clock, monkeypatch):
    bucket = open_bucket(tmp_path.as_uri(), clock=clock)
    for number in range(20):
        bucket.put(f"rounds/{number:02}/manifest", b"")
    looked, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked.append(path) or scan(path))
    assert bucket.list("rounds/", limit=2) == ["rounds/00/manifest", "rounds/01/manifest"]
    assert len(looked) <= 4


def test_a_folder_that_may_not_be_listed(tmp_path, clock, monkeypatch):
    bucket = open_bucket(tmp_path.as_uri(), clock=clock)

    def refused(_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(OSError, match="the objects cannot be listed: Permission denied"):
        bucket.list("", limit=1)


def test_delete_prefix(bucket):
    for key in ("a/1", "a/2/x", "ab", "b"):
        bucket.put(key, b"")
    bucket.delete_prefix("a/")
    assert bucket.list("", limit=10) == ["ab", "b"]
    assert bucket.head("a/1") is None
    for refused in ("", "/", "../"):
        with pytest.raises(ValueError, match="key"):
            bucket.delete_prefix(refused)


BAD_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "../a",
    "a/.b",
    "a\\b",
    "a b",
    "a\nb",
    "a\0b",
    "é",
    "C:x",
]


@pytest.mark.parametrize("key", [*BAD_KEYS, "a.__lock", "x" * 129, "x/" * 256 + "x", ".incoming/x"])
def test_bad_keys_are_refused(bucket, key):
    for use in (lambda: bucket.put(key, b""), lambda: bucket.head(key), lambda: bucket.get(key, max_bytes=1)):
        with pytest.raises(ValueError, match="key"):
            use()


@given(st.text(max_size=40))
def test_a_key_never_leaves_its_folder(text):
    try:
        key = check_key(text)
    except ValueError:
        return
    assert key.isascii()
    assert key.isprintable()
    assert all(segment and not segment.startswith(".") for segment in key.split("/"))


def test_a_folder_keeps_objects_and_times(tmp_path, clock):
    clock.time = 41.5
    open_bucket(tmp_path.as_uri(), clock=clock).put("a/b", b"1")
    clock.time = 99.0
    assert open_bucket(tmp_path.as_uri(), clock=clock).head("a/b") == Head(41.5, 1)
    assert (tmp_path / "a" / "b").read_bytes() == b"1"


@pytest.mark.parametrize(
    "url", ["file://host/a", "file:a", "s3://b", "/tmp/x", "", "memory://x", "file:///a?b"]
)
def test_unknown_urls_get_one_clear_line(url, clock):
    with pytest.raises(ValueError, match="expected memory:// or file:///absolute/folder"):
        open_bucket(url, clock=clock)


def test_a_folder_that_cannot_be(tmp_path, clock):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be created: Not a directory"):
        open_bucket((tmp_path / "file" / "x").as_uri(), clock=clock)


def test_the_last_of_concurrent_puts_wins_whole(bucket, clock):
    values = [bytes([i]) * 20_000 for i in range(4)]
    threads = [threading.Thread(target=lambda v=v: [bucket.put("k", v) for _ in range(10)]) for v in values]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if bucket.head("k"):
            assert bucket.get("k", max_bytes=20_000).data in values
    for thread in threads:
        thread.join()
    assert bucket.list("", limit=5) == ["k"]


def test_a_full_disk_gets_one_clear_line_and_leaves_what_was_there(tmp_path, clock, monkeypatch):
    bucket = open_bucket(tmp_path.as_uri(), clock=clock)
    bucket.put("k", b"before")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        with pytest.raises(
            OSError, match="object 'k' cannot be written: No space left on device; free"
        ) as caught:
            bucket.put("k", b"after")
    assert caught.value.errno == errno.ENOSPC
    assert bucket.get("k", max_bytes=9).data == b"before"
    assert not any((tmp_path / ".incoming").iterdir())


def test_a_clock_without_a_time(bucket, clock):
    clock.time = float("nan")
    with pytest.raises(ValueError, match="the clock says nan"):
        bucket.put("k", b"")
    assert bucket.head("k") is None


def test_an_upload_that_was_cut_off_is_no_object(tmp_path, clock):
    bucket = open_bucket(tmp_path.as_uri(), clock=clock)
    (tmp_path / ".incoming" / "1-2-3").write_bytes(b"half")
    bucket.put("k", b"")
    assert bucket.list("", limit=9) == ["k"]
