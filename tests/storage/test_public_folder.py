"""A stranger's folder on this machine: links, pipes, and files that change while they are read."""

import os
import socket
import time
from contextlib import closing, suppress

import pytest

from gauntlet_jax.storage import public_bucket
from gauntlet_jax.storage.bucket import BucketUnavailable, Head, Object, ObjectTooLarge
from gauntlet_jax.storage.endpoints import EndpointPolicy, RefusedAddress
from gauntlet_jax.storage.public_bucket import PublicReader


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "open" / "eve" / "a").mkdir(parents=True)
    (tmp_path / "open" / "eve" / "a" / "b").write_bytes(b"hello")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "b").write_bytes(b"private")
    return tmp_path / "open" / "eve"


@pytest.fixture
def bucket(folder):
    reader = PublicReader(EndpointPolicy(folders=(folder.parent,)))
    with closing(reader):
        yield reader.open(folder.as_uri())


def test_a_file_of_an_allowed_folder(bucket, folder):
    head = Head((folder / "a" / "b").stat().st_ctime_ns / 1_000_000_000, 5)
    assert bucket.get("a/b", max_bytes=5) == Object(b"hello", head)
    os.utime(folder / "a" / "b", (1000, 1000))
    assert bucket.head("a/b").last_modified >= head.last_modified
    with pytest.raises(ObjectTooLarge, match="5 bytes, at most 4"):
        bucket.get("a/b", max_bytes=4)


def absent(bucket, key):
    assert bucket.head(key) is None
    with pytest.raises(FileNotFoundError, match="no object"):
        bucket.get(key, max_bytes=100)


def test_what_is_no_file_is_no_object(bucket, folder):
    started = time.monotonic()
    os.mkfifo(folder / "pipe")
    for key in ("a", "a/c", "a/b/c", "none", "pipe"):
        absent(bucket, key)
    assert time.monotonic() - started < 1
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        # A socket's path is short.
        here = os.open(folder, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/sock")
        os.close(here)
        with pytest.raises(BucketUnavailable, match="cannot be read"):
            bucket.get("sock", max_bytes=10)


@pytest.mark.parametrize("key", ["", "../closed/b", "/etc/passwd", "a/../../closed/b", "a//b", ".a", "a\0b"])
def test_keys_do_not_leave_the_folder(bucket, key):
    for use in (bucket.head, lambda key: bucket.get(key, max_bytes=10)):
        with pytest.raises(ValueError, match="key"):
            use(key)


def test_links_are_not_followed(bucket, folder, tmp_path):
    (folder / "file").symlink_to(tmp_path / "closed" / "b")
    (folder / "own").symlink_to(folder / "a" / "b")
    (folder / "out").symlink_to(tmp_path / "closed")
    (folder / "loop").symlink_to(folder / "loop")
    for key in ("file", "own", "loop"):
        with pytest.raises(BucketUnavailable, match="a link"):
            bucket.get(key, max_bytes=100)
        with pytest.raises(BucketUnavailable, match="a link"):
            bucket.head(key)
    absent(bucket, "out/b")


def test_a_folder_that_becomes_a_link_after_it_was_accepted_is_not_followed(bucket, folder, tmp_path):
    folder.rename(tmp_path / "open" / "before")
    folder.symlink_to(tmp_path / "closed")
    absent(bucket, "b")
    folder.unlink()
    folder.parent.rename(tmp_path / "away")
    (tmp_path / "open").symlink_to(tmp_path / "away")
    absent(bucket, "before/a/b")


def read_while(bucket, monkeypatch, change):
    """Reads a/b, and changes it between the first look at it and its content."""
    measured, looks = public_bucket._file_head, []

    def look(descriptor):
        head = measured(descriptor)
        if not looks:
            change()
        looks.append(head)
        return head

    monkeypatch.setattr(public_bucket, "_file_head", look)
    return bucket.get("a/b", max_bytes=10)


def test_a_file_replaced_during_the_read_is_the_old_one(bucket, folder, monkeypatch):
    """One object, whole: its content and its time, or that it changes; never one's time with the other's content."""
    (folder / "new").write_bytes(b"other and longer")
    head = bucket.head("a/b")

    def replace():
        os.replace(folder / "new", folder / "a" / "b")

    try:
        found = read_while(bucket, monkeypatch, replace)
    except BucketUnavailable as error:
        # Some file systems count the loss of a name as a change of state.
        assert "changes while it is read" in str(error)
    else:
        assert found == Object(b"hello", head)


@pytest.mark.parametrize("content", [b"HELLO", b"hel", b"hello and more"])
def test_a_file_written_into_during_the_read_is_none(bucket, folder, monkeypatch, content):
    time.sleep(0.02)  # a tick of the file system's clock

    def write():
        (folder / "a" / "b").write_bytes(content)

    with pytest.raises(BucketUnavailable, match="changes while it is read"):
        read_while(bucket, monkeypatch, write)


def test_reads_of_folders_leave_nothing_open(bucket, folder):
    (folder / "link").symlink_to(folder)
    before = len(os.listdir("/proc/self/fd"))
    for key in ("a/b", "a", "none/x", "link", "a/b/c") * 4:
        with suppress(OSError):
            bucket.get(key, max_bytes=10)
        with suppress(OSError):
            bucket.head(key)
    assert len(os.listdir("/proc/self/fd")) == before


def test_folders_that_are_not_allowed_are_not_opened(folder):
    with closing(PublicReader(EndpointPolicy())) as reader, pytest.raises(RefusedAddress, match="below no"):
        reader.open(folder.as_uri())
