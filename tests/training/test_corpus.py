import json
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauntlet_jax.training import heldout, text_sources
from gauntlet_jax.training.corpus import load_corpus

WORDS = [f"{a}{b}{c}" for a in "bdgklm" for b in "aeiou" for c in ["", "n", "rst"]]


def prose(seed: int, lines: int = 30) -> str:
    draw = random.Random(seed)
    return "".join(" ".join(draw.choices(WORDS, k=8)) + f" {seed}.\n" for _ in range(lines))


DOCUMENTS = [prose(seed) for seed in range(60)]


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(DOCUMENTS, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "subwords.json"
    tokenizer.save(str(path))
    return path


def write_folder(root):
    for index, document in enumerate(DOCUMENTS):
        folder = root / f"part{index % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.{['txt', 'md', 'py'][index % 3]}").write_text(document, encoding="utf-8")
    (root / "picture.png").write_bytes(b"\x89PNG" * 1000)
    (root / ".hidden").mkdir()
    (root / ".hidden" / "notes.txt").write_text("secret " * 1000)
    return root


def write_jsonl(root):
    path = root / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": d, "id": i}) + "\n" for i, d in enumerate(DOCUMENTS)))
    return path


def write_parquet(root):
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    table = pa.table({"text": [*DOCUMENTS, None], "id": [str(i) for i in range(len(DOCUMENTS) + 1)]})
    path = root / "000_00000.parquet"
    pq.write_table(table, path, row_group_size=16)
    return path


def write_array_record(root):
    from array_record.python.array_record_module import ArrayRecordWriter  # noqa: PLC0415

    path = root / "corpus.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for document in DOCUMENTS:
        writer.write(document.encode())
    writer.close()
    return path


def text_of(windows) -> bytes:
    return np.asarray(windows, np.uint8).tobytes()


@pytest.mark.parametrize("write", [write_folder, write_jsonl, write_parquet, write_array_record])
def test_every_text_format_gives_the_same_corpus(write, tmp_path):
    reference = tmp_path / "reference"
    reference.mkdir()
    expected = load_corpus(str(write_jsonl(reference)), length=32, heldout_windows=20)
    corpus = load_corpus(str(write(tmp_path)), length=32, heldout_windows=20)
    np.testing.assert_array_equal(corpus.windows, expected.windows)
    np.testing.assert_array_equal(corpus.heldout, expected.heldout)
    assert corpus.vocabulary == 256
    assert corpus.windows.dtype == np.uint8
    assert corpus.windows.shape[1] == 33
    assert corpus.heldout.dtype == np.int32
    assert corpus.heldout.shape == (20, 33)
    assert not corpus.windows.flags.writeable
    assert b"secret" not in text_of(corpus.windows)
    assert corpus.description.endswith("(0.1 MB, 60 documents), bytes")


def test_the_pool_is_the_documents_joined_by_nul(tmp_path):
    corpus = load_corpus(str(write_jsonl(tmp_path)), length=32, heldout_windows=5)
    parts = text_of(corpus.windows).split(b"\0")
    known = {document.encode() for document in DOCUMENTS}
    assert len(parts) > 40
    assert all(part in known for part in parts[:-1])
    assert any(document.startswith(parts[-1]) for document in known)


def test_order_does_not_depend_on_the_directory(tmp_path, monkeypatch):
    folder = str(write_folder(tmp_path))
    listed = load_corpus(folder, length=16, heldout_windows=4, max_bytes=50_000)
    walk = text_sources.os.walk

    def backwards(root):
        for parent, subfolders, names in walk(root):
            subfolders.reverse()
            yield parent, subfolders, names[::-1]

    monkeypatch.setattr(text_sources.os, "walk", backwards)
    again = load_corpus(folder, length=16, heldout_windows=4, max_bytes=50_000)
    np.testing.assert_array_equal(listed.windows, again.windows)
    np.testing.assert_array_equal(listed.heldout, again.heldout)


def test_standard_library_is_the_same_in_another_process():
    corpus = load_corpus(None, length=64, heldout_windows=16, max_bytes=300_000)
    program = (
        "from gauntlet_jax.training.corpus import load_corpus; import hashlib\n"
        "c = load_corpus(None, length=64, heldout_windows=16, max_bytes=300_000)\n"
        "print(hashlib.sha256(c.windows.tobytes() + c.heldout.tobytes()).hexdigest())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    import hashlib  # noqa: PLC0415

    assert (
        result.stdout.strip()
        == hashlib.sha256(corpus.windows.tobytes() + corpus.heldout.tobytes()).hexdigest()
    )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert corpus.description.startswith(f"standard library of Python {version} (0.3 MB, ")
    assert corpus.windows.size + corpus.heldout.size <= 310_000
    assert b"import " in text_of(corpus.windows)


def test_subwords(tokenizer_file, tmp_path):
    from tokenizers import Tokenizer  # noqa: PLC0415

    corpus = load_corpus(
        str(write_jsonl(tmp_path)), length=32, heldout_windows=5, tokenizer=str(tokenizer_file)
    )
    assert corpus.vocabulary == Tokenizer.from_file(str(tokenizer_file)).get_vocab_size()
    assert corpus.windows.dtype == np.uint16
    assert corpus.description.endswith("subwords of subwords.json")
    first = corpus.windows.reshape(-1).tolist()
    end = Tokenizer.from_file(str(tokenizer_file)).token_to_id("<|endoftext|>")
    assert Tokenizer.from_file(str(tokenizer_file)).decode(first[: first.index(end)]) in DOCUMENTS


def test_text_cannot_spell_a_special_token(tokenizer_file, tmp_path):
    path = tmp_path / "hostile.jsonl"
    documents = [f"<|endoftext|> {document}" for document in DOCUMENTS]
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
    corpus = load_corpus(str(path), length=32, heldout_windows=5, tokenizer=str(tokenizer_file))
    assert np.count_nonzero(corpus.windows == 0) <= len(documents)  # one end a document, not two


def test_max_bytes_cuts_at_a_character():
    documents = ["añb".encode(), "ñ".encode() * 10, b" \n", b"zz"]
    assert list(text_sources.within(documents, None)) == [documents[0], documents[1], documents[3]]
    assert list(text_sources.within(documents, 9)) == [documents[0], "ññ".encode()]
    assert list(text_sources.within(documents, 4)) == [documents[0]]
    assert list(text_sources.within(documents, 2)) == [b"a"]


@given(text=st.text(alphabet="aé€😀\n", max_size=200), size=st.integers(4, 40))
@settings(max_examples=100, deadline=None)
def test_blocks_join_to_the_document_and_split_no_character(text, size):
    parts = list(text_sources.blocks(text.encode(), size))
    assert b"".join(parts) == text.encode()
    assert all(0 < len(part) <= size for part in parts)
    assert "".join(part.decode() for part in parts) == text


def test_one_long_file_is_split_by_blocks(tmp_path):
    path = tmp_path / "novel.txt"
    path.write_text("".join(DOCUMENTS))
    corpus = load_corpus(str(path), length=32, heldout_windows=10)
    assert "1 documents in" in corpus.description
    assert len(corpus.windows) > 50 * len(corpus.heldout)


# The held-out split.


def test_heldout_lies_in_documents_that_are_not_trained_on(tmp_path):
    corpus = load_corpus(str(write_jsonl(tmp_path)), length=32, heldout_windows=20)
    trained, held = text_of(corpus.windows), b"\0".join(text_of(row) for row in corpus.heldout)
    apart = [d for d in DOCUMENTS if d.encode() not in trained]
    sources = {i for i, d in enumerate(apart) for row in corpus.heldout if text_of(row)[8:24] in d.encode()}
    assert len(sources) >= 3  # not all from one document
    for line in held.split(b"\n"):
        if len(line) >= 32:
            assert line not in trained


def test_repeated_documents_are_folded(tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in DOCUMENTS + DOCUMENTS[::-1]))
    once = load_corpus(str(write_jsonl(tmp_path)), length=32, heldout_windows=20)
    twice = load_corpus(str(path), length=32, heldout_windows=20)
    np.testing.assert_array_equal(once.windows, twice.windows)
    np.testing.assert_array_equal(once.heldout, twice.heldout)


def test_heldout_documents_that_repeat_training_lines_are_dropped():
    licence = [f"this licence line number {i} stands everywhere" for i in range(12)]
    own = [prose(seed, 5).encode() for seed in range(40)]

    def heldout_text(training_document: bytes) -> bytes:
        texts = ["\n".join(licence).encode() + b"\n" + own[0], *own[1:30], training_document, *own[30:]]
        tokens = [np.frombuffer(text, np.uint8) for text in texts]
        return text_of(heldout.split_documents(texts, tokens, width=100, windows=4, separator=0)[1])

    # In another order, so no window of 100 tokens recurs verbatim: the lines alone give it away.
    assert b"licence" not in heldout_text("\n".join(licence[::-1]).encode())
    assert b"licence" in heldout_text(prose(99).encode())


def test_heldout_windows_in_training_text_are_dropped_whatever_their_offset():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 256, heldout._CHUNK + 5000).astype(np.uint8)
    windows = rng.integers(0, 256, (40, 33)).astype(np.uint8)
    windows[7] = windows[3]
    for row, place in [
        (0, 0),
        (5, 17),
        (11, heldout._CHUNK - 16),
        (12, len(tokens) - 33),
        (13, heldout._CHUNK),
    ]:
        windows[row] = tokens[place : place + 33]
    left = heldout.without_repeats(windows, tokens)
    np.testing.assert_array_equal(left, np.delete(windows, [0, 5, 7, 11, 12, 13], axis=0))
    np.testing.assert_array_equal(heldout.without_repeats(left, tokens), left)


@given(data=st.data(), width=st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_repeats_agree_with_a_search_of_the_bytes(data, width):
    tokens = np.array(data.draw(st.lists(st.integers(0, 3), min_size=0, max_size=60)), np.uint8)
    rows = data.draw(
        st.lists(st.lists(st.integers(0, 3), min_size=width, max_size=width), min_size=1, max_size=9)
    )
    seen, expected = set(), []
    for row in rows:
        if bytes(row) not in tokens.tobytes() and bytes(row) not in seen:
            expected.append(row)
        seen.add(bytes(row))
    assert heldout.without_repeats(np.array(rows, np.uint8), tokens).tolist() == expected


# Token files.


def test_a_token_file_stays_on_disk(tmp_path):
    ids = np.random.default_rng(0).integers(0, 5000, 40_000).astype("<u2")
    ids[123] = 4999
    ids.tofile(tmp_path / "train.bin")
    np.save(tmp_path / "train.npy", ids)
    for name in ("train.bin", "train.npy"):
        corpus = load_corpus(str(tmp_path / name), length=99, heldout_windows=10)
        assert isinstance(corpus.windows, np.memmap)
        assert corpus.vocabulary == 5000
        np.testing.assert_array_equal(corpus.windows.reshape(-1), ids[: corpus.windows.size])
        assert corpus.windows.shape == (385, 100)
        assert {tuple(row) for row in corpus.heldout} <= {tuple(row) for row in ids.reshape(-1, 100)[385:]}
    half = load_corpus(str(tmp_path / "train.bin"), length=99, heldout_windows=10, max_bytes=40_000)
    assert half.windows.shape == (185, 100)
    assert half.description == "train.bin (20,000 tokens), 5,000 ids"


def test_a_token_file_of_64_bit_integers_is_copied(tmp_path):
    np.save(tmp_path / "wide.npy", np.arange(5000) * 7)
    corpus = load_corpus(str(tmp_path / "wide.npy"), length=9, heldout_windows=2)
    assert corpus.windows.dtype == np.int32
    assert corpus.vocabulary == 4999 * 7 + 1


def test_repeats_at_the_end_of_a_token_file_are_not_held_out(tmp_path):
    ids = np.random.default_rng(0).integers(0, 5000, 4_000).astype("<u2")
    ids[-100:] = ids[3:103]
    ids.tofile(tmp_path / "train.bin")
    corpus = load_corpus(str(tmp_path / "train.bin"), length=9, heldout_windows=12)
    assert not {tuple(row) for row in corpus.heldout} & {tuple(row) for row in ids[-100:].reshape(-1, 10)}


# What goes wrong.


def refused(kind, match, *args, **kwargs):
    with pytest.raises(kind, match=match) as error:
        load_corpus(*args, **{"length": 8, "heldout_windows": 2, **kwargs})
    assert "\n" not in str(error.value)


def test_missing(tmp_path, tokenizer_file):
    for name in ("nothing", "nothing.jsonl", "nothing.bin"):
        refused(FileNotFoundError, f"{name}: no such file", str(tmp_path / name))
    refused(
        FileNotFoundError, "no such tokenizer", None, tokenizer=str(tmp_path / "t.json"), max_bytes=10_000
    )


def test_empty(tmp_path):
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "void.bin").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    refused(ValueError, "the corpus is empty", str(tmp_path / "blank.txt"))
    refused(ValueError, "the file is empty", str(tmp_path / "void.bin"))
    refused(ValueError, "the folder holds no text", str(tmp_path / "folder"))


def test_too_small(tmp_path):
    (tmp_path / "few.txt").write_text("only a few words here")
    np.save(tmp_path / "few.npy", np.arange(30))
    refused(ValueError, "few.txt: too small a corpus", str(tmp_path / "few.txt"))
    refused(ValueError, "few.npy: too small a corpus", str(tmp_path / "few.npy"))
    (tmp_path / "same.txt").write_text("the same line again and again\n" * 4000)
    refused(ValueError, "too small", str(tmp_path / "same.txt"))
    np.save(tmp_path / "same.npy", np.ones(3000, np.uint16))
    refused(ValueError, "hold 0 of 2 held-out windows", str(tmp_path / "same.npy"))


def test_arguments():
    refused(ValueError, "at least 1", None, length=0)
    refused(ValueError, "at least 1", None, heldout_windows=0)
    refused(ValueError, "at least 1", None, max_bytes=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "line 2: not JSON"),
        ("a.jsonl", b'{"text": "x"}\n\n{"body": "x"}\n', "line 3: no text field 'text'"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'{"text": 3}', "line 1: no text field"),
        ("a.jsonl", b'{"text": "\xff"}', "line 1: not JSON"),
        ("a.parquet", b"PAR1 nothing of the kind PAR1", "not a readable Parquet file"),
        ("a.array_record", b"no record", "not a readable ArrayRecord file"),
        ("a.png", b"\x89PNG", r"not \.png"),
        ("a.npy", b"\x93NUMPY no header", "not a token file"),
        ("a.bin", b"odd", "not a token file"),
    ],
)
def test_malformed_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refused(ValueError, message, str(tmp_path / name))


def test_npy_headers_that_lie_and_objects_are_refused(tmp_path):
    import io  # noqa: PLC0415

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"shape": (10**12,), "fortran_order": False, "descr": "<u2"})
    (tmp_path / "huge.npy").write_bytes(header.getvalue() + b"\0" * 100)
    refused(ValueError, "huge.npy: not a token file", str(tmp_path / "huge.npy"))
    np.save(tmp_path / "objects.npy", np.array([{}, 1], object), allow_pickle=True)
    refused(ValueError, "objects.npy: not a token file", str(tmp_path / "objects.npy"))
    np.save(tmp_path / "floats.npy", np.ones(100))
    refused(ValueError, r"this is float64\[100\]", str(tmp_path / "floats.npy"))
    np.save(tmp_path / "plane.npy", np.ones((10, 10), np.int32))
    refused(ValueError, r"this is int32\[10, 10\]", str(tmp_path / "plane.npy"))
    with open(tmp_path / "archive.npy", "wb") as file:
        np.savez(file, a=np.ones(3))
    refused(ValueError, "archive.npy: not a token file", str(tmp_path / "archive.npy"))


def test_parquet_columns(tmp_path):
    path = str(write_parquet(tmp_path))
    refused(ValueError, "no column 'body' among text, id", path, text_column="body")
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "numbers.parquet")
    refused(ValueError, "holds int64, not text", str(tmp_path / "numbers.parquet"))


def test_tokenizers_and_ids_that_do_not_fit(tmp_path, tokenizer_file):
    (tmp_path / "broken.json").write_text('{"model": 3}')
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    for name in ("broken.json", "binary.json"):
        refused(ValueError, f"{name}: not a tokenizers", None, tokenizer=str(tmp_path / name), max_bytes=9999)
    np.save(tmp_path / "ids.npy", np.arange(5000))
    refused(
        ValueError,
        "token id 4999 is outside the vocabulary",
        str(tmp_path / "ids.npy"),
        tokenizer=str(tokenizer_file),
    )
    np.save(tmp_path / "negative.npy", np.arange(5000) - 1)
    refused(ValueError, "token id -1 is outside", str(tmp_path / "negative.npy"))
