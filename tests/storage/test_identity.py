import os
import pickle
import subprocess
import sys
import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from gauntlet_jax.storage.identity import Identity, is_public_key, load_or_create, verify

SECRET = bytes(range(32))
ADA, EVE = Identity(SECRET), Identity(bytes(32))
# RFC 8032, 7.1, test 1: what the secret's public half must be.
RFC_SECRET = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
RFC_PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
ORDER = 2**252 + 27742317777372353535851937790883648493
"""Of the group: a signature with this added to its second half would be another text that holds as well."""


def test_a_public_key_by_the_standard():
    assert Identity(bytes.fromhex(RFC_SECRET)).public_key == RFC_PUBLIC


def test_what_is_signed_is_framed_by_its_purpose():
    """By hand: the package's name, the length of the domain in two bytes, the domain, the message."""
    signature = ADA.sign("manifest", b"hello")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(ADA.public_key))
    key.verify(bytes.fromhex(signature), b"gauntlet_jax" + b"\x08\x00" + b"manifest" + b"hello")


@given(st.text("abcdefgh ", max_size=12), st.binary(max_size=80))
def test_a_signature_holds_for_its_key_purpose_and_message_only(domain, message):
    signature = ADA.sign(domain, message)
    assert verify(ADA.public_key, domain, message, signature)
    assert not verify(EVE.public_key, domain, message, signature)
    assert not verify(ADA.public_key, domain + "x", message, signature)
    assert not verify(ADA.public_key, domain, message + b"x", signature)
    # The same bytes, cut elsewhere: a domain never runs into its message.
    assert not verify(ADA.public_key, domain + "m", message[1:], ADA.sign(domain, b"m" + message[1:]))


@given(st.integers(0, 511), st.sampled_from("0123456789abcdef"))
def test_every_character_of_a_signature_counts(place, other):
    signature = ADA.sign("d", b"m")
    place %= len(signature)
    altered = signature[:place] + other + signature[place + 1 :]
    assert verify(ADA.public_key, "d", b"m", altered) == (altered == signature)


def test_there_is_one_signature_of_a_message():
    signature = bytes.fromhex(ADA.sign("d", b"m"))
    other = int.from_bytes(signature[32:], "little") + ORDER
    assert not verify(ADA.public_key, "d", b"m", (signature[:32] + other.to_bytes(32, "little")).hex())
    assert not verify(ADA.public_key, "d", b"m", signature.hex().upper())


@given(st.text(max_size=140), st.text(max_size=140))
def test_anything_misshapen_is_no_signature(key, signature):
    assert not verify(key, "d", b"m", ADA.sign("d", b"m"))
    assert not verify(ADA.public_key, "d", b"m", signature)
    assert not verify("\u0661" * 64, "d", b"m", "\u0661" * 128)  # digits, but no ASCII ones
    assert not verify("f" * 64, "d", b"m", "f" * 128)  # no point of the curve


def test_shape_of_a_public_key():
    assert is_public_key(ADA.public_key)
    assert not any(
        map(is_public_key, ["", ADA.public_key[1:], ADA.public_key + "\n", ADA.public_key.upper()])
    )


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_secret_has_32_bytes(length):
    with pytest.raises(ValueError, match=f"32 bytes, not {length}"):
        Identity(b"s" * length)


def spellings(secret):
    """How 32 bytes could show in a text."""
    return [secret.hex(), repr(secret)[2:-1], str(list(secret))[1:-1], secret.decode("latin-1")]


def test_no_representation_shows_the_secret():
    shown = f"{ADA} {ADA!r} {vars(ADA)} {ADA.__dict__!s}"
    for text in spellings(SECRET):
        assert text not in shown
    assert repr(ADA) == f"Identity({ADA.public_key})"
    with pytest.raises(TypeError):
        pickle.dumps(ADA)


@pytest.mark.parametrize(
    "content",
    [
        SECRET.hex()[:-1].encode(),
        SECRET.hex().upper().encode() + b"A",
        b"\xff" + SECRET.hex().encode(),
        SECRET.hex().encode() + b"\nmore",
        SECRET.hex().encode() * 1000,
        b"",
    ],
)
def test_a_file_without_a_key_is_refused_and_not_repeated(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ValueError, match="holds no key of this version") as caught:
        load_or_create(path)
    shown = "".join(traceback.format_exception(caught.value)).lower()
    assert SECRET.hex()[:20] not in shown
    assert type(caught.value) is ValueError  # no UnicodeDecodeError, which carries the bytes with it
    assert caught.value.__context__ is None


def test_made_once_then_loaded(tmp_path):
    path = tmp_path / "deep" / "er" / "key"
    made = load_or_create(path)
    assert load_or_create(path).public_key == made.public_key
    assert load_or_create(tmp_path / "other").public_key != made.public_key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["key"], "nothing half made is left"


def test_an_existing_key_needs_no_writable_folder(tmp_path, monkeypatch):
    """As where a secret is mounted to be read only."""
    path = tmp_path / "key"
    made = load_or_create(path)

    def refuse(*_arguments):
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "link", refuse)
    assert load_or_create(path).public_key == made.public_key
    with pytest.raises(PermissionError):
        load_or_create(tmp_path / "new")
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604, 0o601])
def test_a_file_that_others_may_touch_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    load_or_create(path)
    path.chmod(mode)
    with pytest.raises(ValueError, match=r"others may read it; mend that with chmod 600"):
        load_or_create(path)


def test_a_wide_umask_changes_nothing(tmp_path):
    before = os.umask(0)
    try:
        load_or_create(tmp_path / "key")
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_processes_that_start_at_once_agree(tmp_path):
    """Each waits until all are ready, then makes keys that the others make at the same moment."""
    script = (
        "import sys, pathlib\n"
        "from gauntlet_jax.storage.identity import load_or_create\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "print([load_or_create(folder / str(number)).public_key for number in range(40)])\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=60)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(answers) == 1
    assert len(list(tmp_path.iterdir())) == 40
