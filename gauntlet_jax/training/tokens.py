"""Documents to token ids (bytes, or a ``tokenizers`` JSON file), and token files that were made elsewhere."""

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import tokenizers

BYTE_SEPARATOR = 0
"""Ends a document of byte tokens: NUL, which text does not use, so the vocabulary stays at 256."""

_SEPARATORS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[SEP]")
_MAX_TOKENIZER_BYTES = 256 * 2**20
_MAX_COPIED_BYTES = 8 * 2**30
_CHUNK = 2**22


@dataclasses.dataclass(frozen=True)
class Bytes:
    """One token a byte: no file to find, vocabulary 256.

    Attributes:
      vocabulary: 256.
      separator: the id that ends a document.
      name: for a report.
    """

    vocabulary: int = 256
    separator: int | None = BYTE_SEPARATOR
    name: str = "bytes"

    def encode(self, documents: Iterable[bytes]) -> Iterator[np.ndarray]:
        """uint8[bytes] for each document, without its separator."""
        return (np.frombuffer(document, np.uint8) for document in documents)


class Subwords:
    """The subwords of a ``tokenizers`` JSON file.

    Text that spells a special token is encoded as text, so no document can forge the end of another. Bytes
    that are not UTF-8 become U+FFFD.

    Args:
      path: a file as ``tokenizers.Tokenizer.save`` writes it.

    Raises:
      FileNotFoundError: nothing is there.
      ValueError: it is not such a file.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such tokenizer file")
        if path.stat().st_size > _MAX_TOKENIZER_BYTES:
            raise ValueError(f"{path}: a tokenizer file has at most {_MAX_TOKENIZER_BYTES} bytes")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises this very class for every defect of the file
            raise ValueError(
                f"{path}: not a tokenizers JSON file: {' '.join(str(error).split())[:200]}"
            ) from error
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise ValueError(f"{path}: the tokenizer has no tokens")
        self.vocabulary = max(vocabulary.values()) + 1  # not the count: ids may have gaps
        self.separator = next((vocabulary[name] for name in _SEPARATORS if name in vocabulary), None)
        self.name = f"subwords of {path.name}"

    def encode(self, documents: Iterable[bytes]) -> Iterator[np.ndarray]:
        """uint16[tokens] (int32 above 65,536 ids) for each document, without special tokens or separator."""
        kind = np.uint16 if self.vocabulary <= 2**16 else np.int32
        remaining = iter(documents)
        while batch := [document.decode("utf-8", "replace") for document in islice(remaining, 256)]:
            for encoding in self._tokenizer.encode_batch(batch, add_special_tokens=False):
                yield np.array(encoding.ids, kind)


def read_token_file(path: Path, *, max_bytes: int | None, vocabulary: int | None) -> tuple[np.ndarray, int]:
    """A file of token ids, mapped into memory where its type allows it.

    Args:
      path: ``.npy`` (one axis, any integer type; uint8, uint16 and int32 are mapped, others copied to
        int32) or ``.bin`` (little-endian uint16 without a header).
      max_bytes: how much of the file to use; None for all of it.
      vocabulary: ids that a tokenizer has; None to take the largest id of the file + 1.

    Returns:
      uint8, uint16 or int32 [tokens], read-only, and the vocabulary's size.

    Raises:
      FileNotFoundError: nothing is there.
      ValueError: it is malformed or empty, or an id is negative or outside the vocabulary.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty")
    try:
        if path.suffix.lower() == ".bin":
            ids = np.memmap(path, dtype="<u2", mode="r")
        else:
            # Not np.load, which would open archives and pickles too.
            ids = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OverflowError) as error:
        raise ValueError(f"{path}: not a token file: {' '.join(str(error).split())[:200]}") from error
    if ids.ndim != 1 or ids.dtype.kind not in "ui" or not len(ids):
        raise ValueError(
            f"{path}: token ids are integers along one axis, one at least; this is"
            f" {ids.dtype}{list(ids.shape)}"
        )
    if max_bytes is not None:
        ids = ids[: max_bytes // ids.dtype.itemsize]
        if not len(ids):
            raise ValueError(f"{path}: max_bytes={max_bytes} leaves no token")
    # The whole file is read once: an id out of range would index past the embedding without an error.
    chunks = [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
    smallest, largest = min(int(chunk.min()) for chunk in chunks), max(int(chunk.max()) for chunk in chunks)
    size = largest + 1 if vocabulary is None else vocabulary
    if smallest < 0 or largest >= min(size, 2**31 - 1):
        outside = smallest if smallest < 0 else largest
        raise ValueError(
            f"{path}: token id {outside} is outside the vocabulary of {size}: another tokenizer's file?"
        )
    if ids.dtype not in (np.dtype("u1"), np.dtype("<u2"), np.dtype("<i4")):
        if ids.nbytes > _MAX_COPIED_BYTES:
            raise ValueError(f"{path}: {ids.dtype} ids would be copied: save this much as uint16 or int32")
        ids = ids.astype(np.int32)
    return ids, size
