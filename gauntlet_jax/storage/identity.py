"""Identities: an ed25519 key pair a node, and signatures that hold for one purpose only."""

import contextlib
import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_SECRET_BYTES = 32
_SECRET_FILE = re.compile(rb"([0-9a-f]{64})\n?")


class Identity:
    """A node's key pair; the secret half never leaves this object and shows in no representation of it.

    Attributes:
      public_key: 64 hexadecimal characters, what a ledger knows the node by.
    """

    def __init__(self, secret: bytes) -> None:
        """The identity of a secret of 32 random bytes.

        Raises:
          ValueError: it has another length.
        """
        if len(secret) != _SECRET_BYTES:
            raise ValueError(f"an identity's secret has {_SECRET_BYTES} bytes, not {len(secret)}")
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public_key = self._key.public_key().public_bytes_raw().hex()

    def __repr__(self) -> str:
        return f"Identity({self.public_key})"

    def sign(self, domain: str, message: bytes) -> str:
        """Signs a message for one purpose.

        Args:
          domain: the purpose, such as "manifest": a signature for one is none for another.
          message: any bytes.

        Returns:
          128 hexadecimal characters.
        """
        return self._key.sign(_framed(domain, message)).hex()


def verify(public_key: str, domain: str, message: bytes, signature: str) -> bool:
    """Whether a signature is of this key, purpose and message; anything misshapen is not."""
    if _PUBLIC_KEY.fullmatch(public_key) is None or _SIGNATURE.fullmatch(signature) is None:
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), _framed(domain, message))
    except (InvalidSignature, ValueError):
        return False
    return True


def is_public_key(text: str) -> bool:
    """Whether a text is shaped like a public key."""
    return _PUBLIC_KEY.fullmatch(text) is not None


def load_or_create(path: Path) -> Identity:
    """The identity whose secret lies in a file, made with fresh randomness if there is none.

    Raises:
      ValueError: the file holds no secret, or others than its owner may read it.
      OSError: it can be neither read nor made.
    """
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            _create(path)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise ValueError(f"key file {path}: others may read it; mend that with chmod 600")
        # One byte more than there may be. What is no key shows in no message: it may be somebody's secret.
        found = _SECRET_FILE.fullmatch(file.read(2 * _SECRET_BYTES + 2))
    if found is None:
        raise ValueError(f"key file {path} holds no key of this version")
    return Identity(bytes.fromhex(found[1].decode()))


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Complete before it has its name, and linked, not renamed: the first of two processes wins.
    staged = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(os.urandom(_SECRET_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def _framed(domain: str, message: bytes) -> bytes:
    name = domain.encode()
    return b"gauntlet_jax" + len(name).to_bytes(2, "little") + name + message
