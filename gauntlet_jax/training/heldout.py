"""The held-out split: set apart for good, by document, and free of what training text repeats."""

from collections.abc import Sequence
from itertools import islice

import numpy as np

_MARGIN = 1.5  # more than is asked for, since repeats are dropped
_DOCUMENTS = 24  # a mean over one or two documents would say little about the corpus
_MOST = 0.5  # of the corpus that may be set apart in the search for windows without repeats
_SHORTEST_LINE = 20
_CHUNK = 2**18
_LARGEST_SCAN = 2**28


def pack(documents: Sequence[np.ndarray], separator: int | None, width: int) -> np.ndarray:
    """Joins documents, each ended by the separator, and cuts them into windows; the remainder is left out.

    Args:
      documents: arrays of token ids, all of one type.
      separator: the id after each document; None for none.
      width: tokens a window.

    Returns:
      [windows, width] of the documents' type.
    """
    if not documents:
        return np.empty((0, width), np.uint8)
    kind = documents[0].dtype
    end = np.array([] if separator is None else [separator], kind)
    joined = np.concatenate([part for document in documents for part in (document, end)])
    return cut(joined, width)


def cut(tokens: np.ndarray, width: int) -> np.ndarray:
    """Windows of one token array without overlap, as a view [windows, width]; the remainder is left out."""
    windows = len(tokens) // width
    return tokens[: windows * width].reshape(windows, width)


def split_documents(
    texts: Sequence[bytes], tokens: Sequence[np.ndarray], *, width: int, windows: int, separator: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sets whole documents apart and packs both sides into windows.

    The first documents in the given order are set apart, until they hold ``windows`` windows and a margin,
    and are at least 24 (or a twentieth of the text). Among them, a document is dropped if more than half of
    its lines of >= 20 characters stand in training documents (licence headers, generated tables), then
    every window that occurs verbatim in training text. Whatever is dropped here is not trained on either.

    Args:
      texts: distinct documents, in an order that their content decides.
      tokens: their token ids.
      width: tokens a window, length + 1.
      windows: how many held-out windows to return, spread evenly over the documents set apart.
      separator: the id after each document; None for none.

    Returns:
      The training pool [pool, width], and the held-out windows [windows, width].

    Raises:
      ValueError: half of the corpus does not hold that many windows free of repeats.
    """
    ends = np.cumsum([len(document) + (separator is not None) for document in tokens])
    margin, found = _MARGIN, 0
    while margin * windows * width <= _MOST * ends[-1]:
        apart = int(np.searchsorted(ends, margin * windows * width)) + 1
        apart = max(apart, min(_DOCUMENTS, int(np.searchsorted(ends, ends[-1] / 20)) + 1))
        if apart >= len(texts):
            break
        pool = pack(tokens[apart:], separator, width)
        kept = [tokens[index] for index in _original(texts[:apart], texts[apart:])]
        candidates = without_repeats(pack(kept, separator, width), pool.reshape(-1))
        found = len(candidates)
        if found >= windows:
            return pool, spread(candidates, windows)
        margin *= 2
    raise ValueError(
        f"too small a corpus: half of its {ends[-1]} tokens hold {found} of {windows} held-out windows"
        f" of {width} tokens that training text does not repeat: give more or ask for fewer"
    )


def split_tokens(tokens: np.ndarray, *, width: int, windows: int) -> tuple[np.ndarray, np.ndarray]:
    """Sets the end of a token file apart, so that the training pool stays a view of the file.

    Held-out windows that occur verbatim in the training tokens are dropped (looked for in the first 2**28
    of them, since a file may be larger than anyone would wait for).

    Args:
      tokens: [tokens], perhaps a memmap.
      width: tokens a window, length + 1.
      windows: how many held-out windows to return, spread evenly over the stretch set apart.

    Returns:
      The training pool [pool, width] as a view, and the held-out windows [windows, width].

    Raises:
      ValueError: half of the file does not hold that many windows free of repeats.
    """
    rows = cut(tokens, width)
    apart, found = int(np.ceil(_MARGIN * windows)), 0
    while apart <= _MOST * len(rows):
        pool = rows[:-apart]
        candidates = without_repeats(np.asarray(rows[-apart:]), tokens[: min(pool.size, _LARGEST_SCAN)])
        found = len(candidates)
        if found >= windows:
            return pool, spread(candidates, windows)
        apart *= 2
    raise ValueError(
        f"too small a corpus: half of its {len(tokens)} tokens hold {found} of {windows} held-out windows"
        f" of {width} tokens that training tokens do not repeat: give more or ask for fewer"
    )


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """``count`` rows at even distances, so that every document set apart is heard."""
    return rows[np.arange(count) * len(rows) // count]


def without_repeats(windows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The windows that neither occur verbatim in a token array, at any offset, nor equal an earlier window.

    A rolling hash over the ring of 64-bit integers finds candidates (h_i = sum_j (x_{i+j} + 1) r^j, from one
    cumulative sum), and a comparison of the tokens decides.

    Args:
      windows: [windows, width] token ids.
      tokens: [tokens] token ids; read in chunks.

    Returns:
      The rows of ``windows`` that are left, in order.
    """
    if not len(windows):
        return windows
    first = np.sort(np.unique(windows, axis=0, return_index=True)[1])
    windows = windows[first]
    width = windows.shape[1]
    # The multiplier is odd, so it has an inverse and its powers can be divided away.
    multiplier = 0x9E3779B97F4A7C15
    powers = np.cumprod(np.full(_CHUNK + width, multiplier, np.uint64))
    inverses = np.cumprod(np.full(_CHUNK, pow(multiplier, -1, 2**64), np.uint64))
    hashes = ((windows.astype(np.uint64) + np.uint64(1)) * powers[:width]).sum(
        axis=1, dtype=np.uint64
    ) * inverses[0]
    rows = {int(value): row for row, value in enumerate(hashes)}
    likely = np.zeros(2**16, bool)
    likely[hashes >> np.uint64(48)] = True
    repeated = np.zeros(len(windows), bool)
    for start in range(0, len(tokens) - width + 1, _CHUNK):
        chunk = tokens[start : start + _CHUNK + width - 1]
        sums = np.zeros(len(chunk) + 1, np.uint64)
        np.cumsum((chunk.astype(np.uint64) + np.uint64(1)) * powers[: len(chunk)], out=sums[1:])
        found = (sums[width:] - sums[:-width]) * inverses[: len(chunk) - width + 1]
        places = np.flatnonzero(likely[found >> np.uint64(48)])
        values, earliest = np.unique(found[places], return_index=True)
        for value, place in zip(values.tolist(), places[earliest].tolist(), strict=True):
            row = rows.get(value)
            if row is not None and np.array_equal(chunk[place : place + width], windows[row]):
                repeated[row] = True
    return windows[~repeated]


def _original(apart: Sequence[bytes], training: Sequence[bytes]) -> list[int]:
    """Which documents set apart do not mostly repeat lines of training documents."""
    lines = [_lines(document) for document in apart]
    wanted = set[bytes]().union(*lines)
    known = set[bytes]()
    remaining = iter(training)
    while batch := list(islice(remaining, 1024)):
        for document in batch:
            known.update(wanted.intersection(_lines(document)))
    return [index for index, own in enumerate(lines) if 2 * sum(line in known for line in own) <= len(own)]


def _lines(document: bytes) -> list[bytes]:
    return [line for line in map(bytes.strip, document.splitlines()) if len(line) >= _SHORTEST_LINE]
