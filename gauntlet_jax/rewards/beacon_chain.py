"""A reversed chain of hashes: randomness that was fixed before a run and that nobody can know before its time.

    x_i = sha256(x_{i+1}),  anchor = sha256(x_0)

The keeper publishes the anchor, and then x_0, x_1, ... each when it is due. Anybody can check a link by hashing it down to one
that it knows already; nobody can go the other way. Whoever holds the secret can foretell all of it, so the keeper is trusted
with that, and with nothing else about it.
"""

import hashlib
from collections.abc import Sequence


def make_chain(secret: bytes, length: int) -> tuple[str, Sequence[bytes]]:
    """The anchor (hex) and the links x_0 ... x_{length-1} of a secret, 32 bytes each."""
    links = [hashlib.sha256(b"gauntlet beacon" + secret).digest()]
    for _ in range(length):
        links.append(hashlib.sha256(links[-1]).digest())
    links.reverse()
    return links[0].hex(), links[1:]


def leads_to(link: bytes, known: bytes, steps: int) -> bool:
    """Whether a link becomes a known one when it is hashed ``steps`` times."""
    for _ in range(steps):
        link = hashlib.sha256(link).digest()
    return link == known
