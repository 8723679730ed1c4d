"""Signed documents: JSON whose every byte is covered by a signature, and how a stranger's is read within bounds.

A document is one JSON object with its fields, ``key`` and ``signature``. The signature is over the canonical form (sorted
keys, no spaces) of all but itself, and a document that is not written in its canonical form is refused: there are no two
texts of one document.
"""

import json
from collections.abc import Mapping
from typing import Any

from gauntlet_jax.storage.identity import Identity, verify

_SIGNATURE = "signature"
_KEY = "key"
_SURROGATE = b"\\ud"
"""How half of a character that JSON writes as two begins, in the canonical form."""


class BadDocument(ValueError):
    """A document is not what it must be; the text is one clause and repeats nothing of the sender's."""


def canonical(document: Any) -> bytes:
    """The one way to write a JSON value."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse(data: bytes, *, max_bytes: int) -> dict[str, Any]:
    """Reads a stranger's JSON object, in its canonical form.

    Args:
      data: what came.
      max_bytes: the most that such a document may have.

    Raises:
      BadDocument: it is longer, no object, nested too deeply, not canonical, or no Unicode.
    """
    if len(data) > max_bytes:
        raise BadDocument(f"longer than {max_bytes} bytes")
    document = json_of(data)
    try:
        rewritten = canonical(document)
    except (ValueError, RecursionError) as error:
        raise BadDocument("not JSON") from error
    if rewritten != data:
        raise BadDocument("not in its canonical form")
    if _SURROGATE in data:
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            # Half a character, which nobody could print, hash or store.
            raise BadDocument("text that is no Unicode") from error
    return document


def json_of(data: bytes) -> dict[str, Any]:
    """A JSON object in any form, from a source that is trusted with its size.

    Raises:
      BadDocument: it is none.
    """
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise BadDocument("not JSON") from error
    if not isinstance(document, dict):
        raise BadDocument("no JSON object")
    return document


def sign(identity: Identity, domain: str, fields: Mapping[str, Any]) -> bytes:
    """A signed document.

    Args:
      identity: who signs.
      domain: what the document is for.
      fields: plain JSON, without ``key`` and ``signature``.
    """
    assert not {_KEY, _SIGNATURE} & set(fields)
    document = {**fields, _KEY: identity.public_key}
    return canonical({**document, _SIGNATURE: identity.sign(domain, canonical(document))})


def read(data: bytes, *, domain: str, key: str | None, max_bytes: int) -> dict[str, Any]:
    """Checks a signed document.

    Args:
      data: what came.
      domain: what it must be for.
      key: the public key that must have signed it; None takes the one that it names, in ``key``.
      max_bytes: the most that it may have.

    Returns:
      Its fields, with ``key`` and without the signature.

    Raises:
      BadDocument: it is no such document; which check failed is in the text.
    """
    document = parse(data, max_bytes=max_bytes)
    signature, signer = document.pop(_SIGNATURE, None), document.get(_KEY)
    if type(signature) is not str or type(signer) is not str:
        raise BadDocument("not signed")
    if key is not None and signer != key:
        raise BadDocument("signed by another key")
    if not verify(signer, domain, canonical(document), signature):
        raise BadDocument("its signature does not hold")
    return document
