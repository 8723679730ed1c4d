import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauntlet_jax.storage.journal import CorruptJournal, read_journal, write_journal

DOCUMENT = {"round": 7, "peers": [{"name": "ada", "rating": [25.0, 8.3]}], "text": "\u00e9\n\r\U0001f600"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node" / "journal"


def test_there_is_none(path):
    assert read_journal(path) is None


def test_what_was_written_last_is_read(path):
    write_journal(path, {"round": 6})
    write_journal(path, DOCUMENT)
    assert read_journal(path) == DOCUMENT
    assert list(path.parent.iterdir()) == [path]


def test_the_file_by_hand(path):
    write_journal(path, {"b": 1, "a": "x"})
    body = b'{"a": "x", "b": 1}'
    assert path.read_bytes() == hashlib.sha256(body).hexdigest().encode() + b"\n" + body


@given(
    st.dictionaries(
        st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.integers()
    )
)
def test_any_document_survives_to_the_bit(tmp_path_factory, document):
    path = tmp_path_factory.getbasetemp() / "any"
    write_journal(path, document)
    assert json.dumps(read_journal(path), sort_keys=True) == json.dumps(document, sort_keys=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("journal") / "journal"
    write_journal(path, DOCUMENT)
    return path, path.read_bytes()


@given(st.data())
def test_a_byte_that_changed_is_found(written, data):
    path, good = written
    at, byte = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 255))
    altered = good[:at] + bytes([byte]) + good[at + 1 :]
    path.write_bytes(altered)
    if altered == good:
        assert read_journal(path) == DOCUMENT
        return
    with pytest.raises(CorruptJournal):
        read_journal(path)


@pytest.mark.parametrize("length", [0, 1, 64, 65, 100, -1])
def test_a_torn_file_is_refused(written, length):
    path, good = written
    path.write_bytes(good[:length])
    with pytest.raises(CorruptJournal, match=r"journal is damaged: remove it"):
        read_journal(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda good: good + b"\n",
        lambda good: good.replace(b"\n", b"\r\n"),
        lambda good: b"\xff" + good,
        lambda good: good + b"\xff",
        lambda good: b"\n" + good,
        lambda good: good + good,
        lambda good: bytes(len(good)),
    ],
)
def test_an_altered_file_is_refused(written, change):
    path, good = written
    path.write_bytes(change(good))
    with pytest.raises(CorruptJournal):
        read_journal(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_json_leaves_the_one_before(path, number):
    write_journal(path, DOCUMENT)
    with pytest.raises(ValueError, match="JSON"):
        write_journal(path, {"a": number})
    assert read_journal(path) == DOCUMENT


def test_what_cannot_be_written_leaves_the_one_before_and_nothing_else(path, monkeypatch):
    write_journal(path, DOCUMENT)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_journal(path, {"round": 8})
    monkeypatch.undo()
    assert read_journal(path) == DOCUMENT
    assert list(path.parent.iterdir()) == [path]


def test_file_and_name_are_on_the_disk(path, monkeypatch):
    """A name that a power cut takes back would give an older journal: the folder is written through, too."""
    events = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor):
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def noted_replace(self, target):
        events.append("renamed")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_journal(path, DOCUMENT)
    assert events == [f".journal.{os.getpid()}", "renamed", "node"]


def test_a_process_that_is_killed_leaves_a_whole_one(path):
    """Killed at any moment: what is there then is one of those that it wrote, and a later one can be written."""
    script = (
        "import sys; from pathlib import Path; from gauntlet_jax.storage.journal import write_journal\n"
        "path, number = Path(sys.argv[1]), 0\n"
        "while True:\n"
        "    number += 1\n"
        "    write_journal(path, {'number': number, 'body': 'x' * 100_000})\n"
        "    print(number, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        told = [int(line) for line in process.stdout if line.endswith("\n")]
    found = read_journal(path)
    assert found is not None
    assert found["number"] >= max(told, default=20)
    assert found["body"] == "x" * 100_000
    write_journal(path, {"number": 0})
    assert read_journal(path) == {"number": 0}
