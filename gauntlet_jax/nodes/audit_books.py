"""The audit of a run's own ledger: its hash chain, what it is bound to, and what it has of each round's record and commits."""

from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec

from gauntlet_jax.nodes.audit import Difference
from gauntlet_jax.nodes.record import RoundRecord, digest_of
from gauntlet_jax.rewards.hash_chain import LedgerTampered
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.rewards.weight_commit import weights_digest
from gauntlet_jax.types import PeerId

_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Units = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Weight = Annotated[float, msgspec.Meta(ge=0)]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """What an entry's body must look like; whoever writes a ledger's file anew may write anything."""


class _Inputs(_Entry):
    config: _Sha256
    corpus: _Sha256


class _Register(_Entry):
    bucket: str


class _Validator(_Entry):
    stake: _Weight


class _Digest(_Entry):
    digest: _Sha256


class _Veto(_Entry):
    fault: str


class _Weights(_Entry):
    weights: dict[str, _Weight]
    salt: _Sha256


class _Outcome(_Entry):
    consensus: dict[str, _Weight]
    incentive: dict[str, _Weight]
    trust: dict[str, _Weight]
    dividends: dict[str, _Weight]
    bonds: dict[str, dict[str, _Units]]


class _Emission(_Entry):
    payouts: dict[str, _Units]
    reserve: _Units
    remainder: _Units
    emission: _Units
    total: _Units


_SHAPES: Mapping[str, type[_Entry]] = {
    "inputs": _Inputs,
    "register": _Register,
    "validator": _Validator,
    "commit": _Digest,
    "record": _Digest,
    "veto": _Veto,
    "weights": _Weights,
    "epoch": _Outcome,
    "emission": _Emission,
}


class BooksAudit:
    """Compares the ledger of a run in one process with the run's records."""

    def __init__(self, ledger: SqliteLedger) -> None:
        """The audit of a ledger.

        Args:
          ledger: of the run, to be read.
        """
        self._ledger = ledger
        self._total = 0

    def inputs(self, config: str) -> Difference | None:
        """Whether the chain is sound, and what it is bound to: to be looked at before anything is made of the config.

        Args:
          config: sha256 of the run's config.
        """
        try:
            self._ledger.verify()
        except LedgerTampered as tampered:
            return Difference(None, "", "the ledger's hash chain", str(tampered), "a sound one")
        strange = [kind for kind in self._ledger.chain.kinds() if kind not in _SHAPES]
        if strange:
            return Difference(
                None, "", "the ledger's entries", strange, "none of these kinds in a simulation"
            )
        for kind, shape in _SHAPES.items():
            for entry in self._ledger.chain.entries(kind):
                try:
                    msgspec.convert(entry.body, shape, strict=True)
                except msgspec.ValidationError as error:
                    where = f"the ledger's entry {kind}"
                    return Difference(entry.round, entry.account, where, entry.body, str(error))
        bound = (self._ledger.inputs() or {}).get("config", "absent")
        return None if bound == config else Difference(None, "", "the config's sha256", bound, config)

    def whole(
        self, *, corpus: str, peers: Mapping[PeerId, str], stakes: Mapping[str, float], rounds: int
    ) -> Iterator[Difference]:
        """What else belongs to no round.

        Args:
          corpus: sha256 of the training text that this audit has.
          peers: of the config, in its order, each with its bucket.
          stakes: of the config, by validator.
          rounds: how many records there are.
        """
        bound = (self._ledger.inputs() or {}).get("corpus", "absent")
        if bound != corpus:
            yield Difference(None, "", "the training text's sha256", bound, corpus)
        registered = {name: entry.bucket for name, entry in self._ledger.peers().items()}
        if list(registered.items()) != list(peers.items()):
            yield Difference(None, "", "registered peers", registered, dict(peers))
        if self._ledger.validators() != dict(stakes):
            yield Difference(None, "", "stakes", self._ledger.validators(), dict(stakes))
        newest = self._ledger.chain.newest_round()
        if newest != rounds - 1:
            yield Difference(None, "", "newest round on the ledger", newest, rounds - 1)

    def round(self, record: RoundRecord) -> Iterator[Difference]:
        """What the ledger has of a round, beside its epoch."""
        t, ledger = record.round, self._ledger
        digest = digest_of(record)
        if ledger.record(t) != digest:
            yield Difference(t, "", "the record's sha256", ledger.record(t), digest)
        vetoed = {one.name: one.vetoed for one in record.validators if one.vetoed}
        if vetoed != ledger.vetoes(t):
            yield Difference(t, "", "vetoes", vetoed, ledger.vetoes(t))
        for entry in ledger.chain.entries("emission", t):
            follows = {"emission": record.emission, "total": self._total + record.emission}
            said = {name: entry.body[name] for name in follows}
            if said != follows:
                yield Difference(t, "", "emission on the ledger", said, follows)
        self._total += record.emission
        for name, weights, salt in ledger.reveals(t):
            follows = weights_digest(t, name, weights, salt)
            if ledger.commit(t, name) != follows:
                yield Difference(t, name, "commit to weights", ledger.commit(t, name), follows)
