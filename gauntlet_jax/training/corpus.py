"""Sources -> documents -> tokens -> windows: the training pool and the held-out split of a run."""

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gauntlet_jax.training import heldout, text_sources
from gauntlet_jax.training.tokens import Bytes, Subwords, read_token_file

_FEW_DOCUMENTS = 16


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Text as windows of tokens. A window is one sequence with its shifted target: inputs [:-1], targets
    [1:].

    Attributes:
      windows: uint8, uint16 or int32 [pool, length + 1], read-only; the training pool, one shuffled whole
        of all documents, from which ``Assignment`` draws indices. May be a memmap.
      heldout: int32[heldout_windows, length + 1], from documents that are never trained on.
      vocabulary: token ids are in [0, vocabulary).
      description: one line for a report.
    """

    windows: np.ndarray
    heldout: np.ndarray
    vocabulary: int
    description: str


def load_corpus(
    path: str | None,
    *,
    length: int,
    heldout_windows: int,
    tokenizer: str | None = None,
    max_bytes: int | None = None,
    text_column: str = "text",
) -> Corpus:
    """Loads a corpus; the same source and arguments give the same windows in any process.

    Exact duplicates among documents are folded, and a digest of a document's content decides its place, so a
    document is on one side of the split however often it occurs. A text of fewer than 16 documents is cut
    into blocks of at most 16 KiB at line ends, which then serve as documents; of a token file, the end is
    held out.

    Args:
      path: None for the running Python's standard library; a text file, ``.jsonl``, ``.parquet`` or
        ArrayRecord file, or a folder of them; or token ids in ``.npy`` (one axis of integers) or ``.bin``
        (little-endian uint16, no header).
      length: tokens that a model sees a sequence; a window has one more.
      heldout_windows: windows to set apart, at least 1.
      tokenizer: a ``tokenizers`` JSON file; None for bytes as tokens, or, for a token file, for a
        vocabulary of its largest id + 1.
      max_bytes: how much of the source to use, in bytes; None for all of it.
      text_column: the field (JSONL) or column (Parquet) that holds the text.

    Returns:
      The corpus.

    Raises:
      FileNotFoundError: nothing is at ``path`` or ``tokenizer``.
      ValueError: a file is malformed, a token id is outside the vocabulary, or the corpus is empty or too
        small.
    """
    if length < 1 or heldout_windows < 1 or (max_bytes is not None and max_bytes < 1):
        raise ValueError(
            "length, heldout_windows and max_bytes are at least 1,"
            f" not {length}, {heldout_windows} and {max_bytes}"
        )
    if path is not None and Path(path).suffix.lower() in (".npy", ".bin") and not Path(path).is_dir():
        return _from_tokens(Path(path), length + 1, heldout_windows, tokenizer, max_bytes)

    encoder = Bytes() if tokenizer is None else Subwords(Path(tokenizer))
    if path is None:
        name, documents = text_sources.standard_library()
    else:
        name, documents = Path(path).name or path, text_sources.from_path(Path(path), text_column=text_column)
    texts = _by_content(text_sources.within(documents, max_bytes))
    if not texts:
        raise ValueError(f"{name}: the corpus is empty: no document holds any text")
    size, count = sum(map(len, texts)), f"{len(texts):,} documents"
    if len(texts) < _FEW_DOCUMENTS:
        block = min(max(size // 64, 1024), 16384)
        texts = _by_content(part for text in texts for part in text_sources.blocks(text, block))
        count += f" in {len(texts):,} blocks"
    tokens = list(encoder.encode(texts))
    try:
        pool, apart = heldout.split_documents(
            texts, tokens, width=length + 1, windows=heldout_windows, separator=encoder.separator
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    description = f"{name} ({size / 1e6:.1f} MB, {count}), {encoder.name}"
    return _corpus(pool, apart, encoder.vocabulary, description)


def _from_tokens(
    path: Path, width: int, windows: int, tokenizer: str | None, max_bytes: int | None
) -> Corpus:
    known = None if tokenizer is None else Subwords(Path(tokenizer))
    vocabulary = None if known is None else known.vocabulary
    tokens, vocabulary = read_token_file(path, max_bytes=max_bytes, vocabulary=vocabulary)
    try:
        pool, apart = heldout.split_tokens(tokens, width=width, windows=windows)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    name = f"{vocabulary:,} ids" if known is None else known.name
    return _corpus(pool, apart, vocabulary, f"{path.name} ({len(tokens):,} tokens), {name}")


def _corpus(pool: np.ndarray, apart: np.ndarray, vocabulary: int, description: str) -> Corpus:
    pool.flags.writeable = False
    return Corpus(pool, np.asarray(apart, np.int32), vocabulary, description)


def _by_content(documents: Iterable[bytes]) -> list[bytes]:
    """Distinct documents in the order of a digest of their content."""
    distinct = {hashlib.sha256(document).digest(): document for document in documents}
    return [distinct[digest] for digest in sorted(distinct)]
