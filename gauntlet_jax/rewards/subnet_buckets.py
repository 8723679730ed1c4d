"""Where the nodes of a subnet upload, from what they have committed to on the chain."""

from collections.abc import Mapping
from typing import NamedTuple

from gauntlet_jax.rewards import bucket_commitment
from gauntlet_jax.rewards.bucket_commitment import BucketLink, Fetch, NoBucket
from gauntlet_jax.rewards.subnet_view import SubnetView

_RETRY_BLOCKS = 25
# A URL may answer as slowly as its deadline allows, and there may be as many as nodes.
_FETCHES_A_LOOK = 4


class NamedBucket(NamedTuple):
    """A node's bucket, as it says.

    Attributes:
      address: "" for none.
      public_key: of its signatures, 64 hexadecimal characters; "" for none.
      reason: why there is none; "" if there is one.
    """

    address: str
    public_key: str
    reason: str


_NOTHING = NamedBucket("", "", "it has committed to nothing")


class SubnetBuckets:
    """The buckets of a subnet's nodes, by hotkey."""

    def __init__(self, view: SubnetView, fetch: Fetch) -> None:
        """The buckets of a subnet.

        Args:
          view: of the subnet.
          fetch: reads below strangers' URLs, within its own deadline.
        """
        self._view = view
        self._fetch = fetch
        self._found: dict[BucketLink, str] = {}
        self._failed: dict[BucketLink, tuple[int, str]] = {}
        self._fetches = 0

    def all(self, block: int) -> dict[str, NamedBucket]:
        """By hotkey, for whoever has committed to anything.

        A signing key is that of who committed to it first: another node that names it too has no bucket. (Who moves its bucket
        commits anew, so who finds its key claimed by then takes a new one.)
        """
        owners: dict[str, str] = {}
        found: dict[str, NamedBucket] = {}
        links: set[BucketLink] = set()
        self._fetches = 0
        commitments = self._view.commitments(block)
        for hotkey in sorted(commitments, key=lambda name: (commitments[name][0], name)):
            try:
                link = bucket_commitment.decode(commitments[hotkey][1])
                links.add(link)
                if owners.setdefault(link.public_key, hotkey) != hotkey:
                    raise NoBucket("its signing key is another node's")
                found[hotkey] = NamedBucket(self._address(link, block), link.public_key, "")
            except NoBucket as error:
                found[hotkey] = NamedBucket("", "", str(error))
        self._found = {link: address for link, address in self._found.items() if link in links}
        self._failed = {link: failure for link, failure in self._failed.items() if link in links}
        return found

    def know(self, link: BucketLink, address: str) -> None:
        """Notes what has been read already."""
        self._found[link] = address

    @staticmethod
    def named(buckets: Mapping[str, NamedBucket], hotkey: str) -> NamedBucket:
        """One node's among all."""
        return buckets.get(hotkey, _NOTHING)

    def _address(self, link: BucketLink, block: int) -> str:
        if not link.url:
            return link.address
        if link in self._found:
            return self._found[link]
        failed = self._failed.get(link)
        if failed is not None and block < failed[0] + _RETRY_BLOCKS:
            # A URL that leads nowhere must not slow everybody down at each look.
            raise NoBucket(failed[1])
        if self._fetches >= _FETCHES_A_LOOK:
            raise NoBucket("its URL has not been looked at yet")
        self._fetches += 1
        try:
            self._found[link] = bucket_commitment.address_of(link, self._fetch)
        except NoBucket as error:
            self._failed[link] = (block, str(error))
            raise
        return self._found[link]
