"""Where text comes from: files and folders to documents, in an order that no directory listing decides.

A document is UTF-8 bytes: a file, a line of JSONL, a row of Parquet, a record of ArrayRecord. Every reader
is a stream with a budget in bytes, so nothing is read or allocated past it.
"""

import hashlib
import json
import os
import platform
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

# fmt: off
PLAIN_TEXT = frozenset({
    ".txt", ".md", ".rst", ".tex", ".html", ".htm", ".xml", ".py", ".pyi", ".c", ".h", ".cc",
    ".cpp", ".hpp", ".cu", ".js", ".ts", ".java", ".go", ".rs", ".rb", ".sh", ".sql", ".toml", ".yaml",
    ".yml", ".ini", ".cfg", ".css", ".jl", ".scala", ".kt", ".swift", ".r",
})
# fmt: on
"""File name endings that are read as one document of text."""

RECORDS = (".jsonl", ".parquet", ".array_record", ".arrayrecord")
"""File name endings of files that hold many documents."""

MAX_TEXT_BYTES = 8 * 2**30
"""Text is tokenized in memory: more than this must be asked for in part, or tokenized to a memmap
beforehand."""

_MAX_LINE_BYTES = 64 * 2**20
_MAX_ROW_GROUP_BYTES = 2 * 2**30


def standard_library() -> tuple[str, Iterator[bytes]]:
    """The text of the running Python's standard library: a corpus that every machine has.

    Its own test suite is left out, since some distributions ship without it, and so is what describes the
    build (``_sysconfigdata``, ``config-*``): machines with one version of Python have nearly the same text.

    Returns:
      A name for a report, and the documents, one a module.

    Raises:
      FileNotFoundError: this Python has no source files (some embedded builds).
    """
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
    files = [
        file
        for file in _files(root, skipped)
        if file.suffix == ".py"
        and not file.name.startswith("_sysconfigdata")
        and "config-" not in file.parts[-2]
    ]
    if not files:
        raise FileNotFoundError(f"{root}: this Python ships no library source; give a corpus by path")
    version = ".".join(platform.python_version_tuple()[:2])
    return f"standard library of Python {version}", _whole_files(_by_name(files, root))


def from_path(path: Path, *, text_column: str) -> Iterator[bytes]:
    """The documents of a text file, a file of records, or a folder of either.

    Args:
      path: a plain text file, ``.jsonl``, ``.parquet`` or ArrayRecord file, or a folder searched for them.
      text_column: the field of a JSONL object or the column of a Parquet file that holds the text.

    Returns:
      The documents; a folder's files come in the order of a digest of their relative names.

    Raises:
      FileNotFoundError: nothing is there.
      ValueError: the kind of file is unknown, or (while iterating) a file is malformed; it names the place.
    """
    readable = PLAIN_TEXT | set(RECORDS)
    if path.is_dir():
        files = [file for file in _files(path, set()) if file.suffix.lower() in readable]
        if not files:
            raise ValueError(
                f"{path}: the folder holds no text (.txt, .md, .py, ...) and no {', '.join(RECORDS)} file"
            )
        return _each(_by_name(files, path), text_column)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.suffix.lower() not in readable:
        raise ValueError(
            f"{path}: a corpus is a text file, a folder, {', '.join(RECORDS)}, or tokens in .npy or .bin"
            f" (uint16), not {path.suffix or 'a file without an ending'}"
        )
    return _each([path], text_column)


def within(documents: Iterable[bytes], max_bytes: int | None) -> Iterator[bytes]:
    """Passes documents on until a budget is spent; the last one is cut to fit, at a character.

    Args:
      documents: UTF-8.
      max_bytes: the budget; None for all there is, up to ``MAX_TEXT_BYTES``.

    Returns:
      The documents, blank ones left out.

    Raises:
      ValueError: (while iterating) there is more than ``MAX_TEXT_BYTES`` and no budget was given.
    """
    left = MAX_TEXT_BYTES if max_bytes is None else max_bytes
    for document in documents:
        if not document.strip():
            continue
        if len(document) > left and max_bytes is None:
            raise ValueError(
                f"the corpus exceeds {MAX_TEXT_BYTES} bytes: give max_bytes, or tokenize it to a .bin file"
            )
        if len(document) >= left:
            cut = document if len(document) == left else document[: _character_start(document, left)]
            if cut.strip():
                yield cut
            return
        left -= len(document)
        yield document


def blocks(document: bytes, size: int) -> Iterator[bytes]:
    """Cuts one long document into pieces of at most ``size`` bytes, at line ends where there are any.

    Args:
      document: UTF-8.
      size: bytes, at least 4 (a character).

    Returns:
      Pieces whose concatenation is the document.
    """
    start = 0
    while start < len(document):
        end = start + size
        if end < len(document):
            line_end = document.rfind(b"\n", start, end) + 1
            end = line_end if line_end > start else max(_character_start(document, end), start + 1)
        yield document[start:end]
        start = end


def _character_start(document: bytes, position: int) -> int:
    """The largest place <= position that does not split a UTF-8 character (looking back 3 bytes at most)."""
    for place in range(position, max(position - 4, 0), -1):
        if document[place] & 0xC0 != 0x80:
            return place
    return position


def _files(root: Path, skipped: set[str]) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [
            name for name in subfolders if name not in skipped | {"__pycache__"} and name[0] != "."
        ]
        for name in names:
            file = Path(folder, name)
            if name[0] != "." and file.is_file():  # no pipes or devices
                yield file


def _by_name(files: list[Path], root: Path) -> list[Path]:
    def digest(file: Path) -> bytes:
        return hashlib.sha256(file.relative_to(root).as_posix().encode("utf-8", "surrogateescape")).digest()

    return sorted(files, key=digest)


def _whole_files(files: list[Path]) -> Iterator[bytes]:
    for file in files:
        with file.open("rb") as stream:
            document = stream.read(MAX_TEXT_BYTES + 1)
        yield document


def _each(files: list[Path], text_column: str) -> Iterator[bytes]:
    for file in files:
        match file.suffix.lower():
            case ".jsonl":
                yield from _jsonl(file, text_column)
            case ".parquet":
                yield from _parquet(file, text_column)
            case ".array_record" | ".arrayrecord":
                yield from _array_record(file)
            case _:
                yield from _whole_files([file])


def _jsonl(file: Path, field: str) -> Iterator[bytes]:
    with file.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(_MAX_LINE_BYTES + 1), b""), start=1):
            if len(line) > _MAX_LINE_BYTES:
                raise ValueError(f"{file}, line {number}: longer than {_MAX_LINE_BYTES} bytes")
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{file}, line {number}: not JSON: {error}") from error
            if not isinstance(record, dict) or not isinstance(record.get(field), str):
                raise ValueError(f"{file}, line {number}: no text field {field!r}")
            yield record[field].encode("utf-8", "replace")


def _parquet(file: Path, column: str) -> Iterator[bytes]:
    import pyarrow  # noqa: PLC0415  (0.2 s that most corpora do without)
    import pyarrow.parquet  # noqa: PLC0415

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            if column not in schema.names:
                raise ValueError(f"{file}: no column {column!r} among {', '.join(schema.names[:20])}")
            kind = schema.field(column).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise ValueError(f"{file}: column {column!r} holds {kind}, not text")
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group)
                sizes = [rows.column(i) for i in range(rows.num_columns)]
                size = sum(part.total_uncompressed_size for part in sizes if part.path_in_schema == column)
                if size > _MAX_ROW_GROUP_BYTES:
                    raise ValueError(
                        f"{file}: row group {group} holds {size} bytes of text: write smaller groups"
                    )
                for batch in table.iter_batches(1024, row_groups=[group], columns=[column]):
                    yield from (
                        text.encode("utf-8", "replace") for text in batch[0].to_pylist() if text is not None
                    )
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a readable Parquet file: {_line(error)}") from error


def _array_record(file: Path) -> Iterator[bytes]:
    import grain  # noqa: PLC0415  (1 s that other corpora do without)

    try:
        source = grain.sources.ArrayRecordDataSource(str(file))
        with source as records:  # pyright: ignore[reportGeneralTypeIssues]
            for index in range(len(records)):
                document = records[index]
                document.decode("utf-8")
                yield document
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: a record is not UTF-8 text: {_line(error)}") from error
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{file}: not a readable ArrayRecord file: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
