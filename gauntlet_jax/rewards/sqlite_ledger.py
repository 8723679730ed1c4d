"""A ledger in one SQLite file: a call is an entry of a hash-chained table, and answers are read from it."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from gauntlet_jax.rewards.accounts import Accounts
from gauntlet_jax.rewards.epoch import WEIGHTS_STAND, epoch_of
from gauntlet_jax.rewards.hash_chain import HashChain
from gauntlet_jax.rewards.ledger import REMAINDER, RESERVE, Epoch, Registration
from gauntlet_jax.rewards.weight_commit import checked_weight, normalised, weights_digest
from gauntlet_jax.types import PeerId

_MAX_INTEGER = 2**63 - 1
_MAX_TEXT = 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OUTCOME = ("consensus", "incentive", "trust", "dividends", "bonds")


class SqliteLedger:
    """The account of a run in one SQLite file, or in memory; one writer at a time.

    Posting the same content again is no change, so a run that goes on from a checkpoint may repeat its rounds; posting
    other content in its place raises ``LedgerConflict``.

    Equal calls under equal clocks give equal heads, whether a run went through or was resumed on the way.
    """

    def __init__(self, path: Path | str, clock: Callable[[], float], *, durable: bool = False) -> None:
        """Opens a ledger, creating it if need be.

        Args:
          path: a file, or ":memory:".
          clock: seconds since the run's genesis.
          durable: whether what was posted survives a power cut at once.

        Raises:
          OSError: the file cannot be opened.
          ValueError: the file is no ledger of this version.
        """
        self._clock = clock
        self.chain = HashChain(path, clock, durable=durable)
        self.accounts = Accounts(self.chain)

    def close(self) -> None:
        """Closes the file."""
        self.chain.close()

    def flush(self) -> None:
        """Brings all entries to the disk: for before a checkpoint that a run is to go on from.

        Raises:
          OSError: the disk is full.
        """
        self.chain.flush()

    def __enter__(self) -> "SqliteLedger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def now(self) -> float:
        """The clock's time, seconds since the run's genesis."""
        return self._clock()

    def transaction(self) -> AbstractContextManager[None]:
        """All that is posted inside is kept together, or none of it if the block raises; may be nested."""
        return self.chain.transaction()

    def register(self, peer: PeerId, bucket: str) -> None:
        """Registers a peer with the bucket that it uploads to.

        Raises:
          LedgerConflict: it is registered with another bucket.
          ValueError: the name is empty, too long, unprintable, a validator's or an account of the ledger's own.
        """
        _check_free(peer, self.validators())
        self.chain.post("register", None, peer, {"bucket": _text("bucket", bucket)})

    def register_validator(self, name: str, stake: float) -> None:
        """Registers a validator with its stake.

        Raises:
          LedgerConflict: it is registered with another stake.
          ValueError: the name is not possible or a peer's, or the stake is not above 0.
        """
        _check_free(name, self.peers())
        if not (math.isfinite(stake) and stake > 0):
            raise ValueError(f"stake of {name}: {stake} must be finite and above 0")
        self.chain.post("validator", None, name, {"stake": float(stake)})

    def validators(self) -> dict[str, float]:
        """Stakes by registered validator, in the order of registration."""
        return {entry.account: entry.body["stake"] for entry in self.chain.entries("validator")}

    def peers(self) -> dict[PeerId, Registration]:
        """Registered peers by name, in the order of registration."""
        moved = {entry.account: entry.body["bucket"] for entry in self.chain.entries("bucket")}
        return {
            entry.account: Registration(
                entry.account, moved.get(entry.account, entry.body["bucket"]), entry.at
            )
            for entry in self.chain.entries("register")
        }

    def set_bucket(self, round: int, peer: PeerId, bucket: str) -> None:
        """Moves a registered peer to another bucket from a round on.

        Raises:
          LedgerConflict: in that round it moved to another one.
          ValueError: the peer is not registered.
        """
        self._check_registered([peer])
        self.chain.post("bucket", _integer("round", round), peer, {"bucket": _text("bucket", bucket)})

    def commit_weights(self, round: int, validator: str, digest: str) -> None:
        """Binds a validator to its weights of a round (see ``weight_commit``).

        Raises:
          LedgerConflict: it is bound to others.
          ValueError: it is not registered, the digest is no sha256, or others have shown theirs of that round.
        """
        if validator not in self.validators():
            raise ValueError(f"validator {validator[:80]!r} is not registered")
        body = {"digest": _digest("a commit to weights", digest)}
        if self.chain.find("commit", _integer("round", round), validator) is None and self.weights(round):
            raise ValueError(f"weights of round {round} by {validator}: others have shown theirs already")
        self.chain.post("commit", round, validator, body)

    def reveal_weights(
        self, round: int, validator: str, weights: Mapping[PeerId, float], salt: bytes
    ) -> None:
        """Shows the weights that a validator is bound to.

        Args:
          round: t.
          validator: whose they are.
          weights: finite and >= 0, of registered peers and of ``RESERVE``.
          salt: 32 bytes.

        Raises:
          LedgerConflict: it has shown others.
          ValueError: they are not those that it is bound to, or not of registered peers.
        """
        self._check_registered(name for name in weights if name != RESERVE)
        commit = self.chain.find("commit", _integer("round", round), validator)
        if commit is None:
            raise ValueError(f"weights of round {round} by {validator}: there is no commit to them")
        if commit.body["digest"] != weights_digest(round, validator, weights, salt):
            raise ValueError(f"weights of round {round} by {validator}: the commit is to others")
        numbers = {peer: checked_weight(weight) for peer, weight in weights.items()}
        self.chain.post("weights", round, validator, {"weights": numbers, "salt": salt.hex()})

    def weights(self, round: int) -> dict[str, dict[PeerId, float]]:
        """The revealed weights of a round by validator, then by peer; each sums to 1, or is all 0."""
        return {
            entry.account: normalised(entry.body["weights"]) for entry in self.chain.entries("weights", round)
        }

    def commit(self, round: int, validator: str) -> str | None:
        """The digest that a validator is bound to in a round; None if there is none."""
        entry = self.chain.find("commit", round, validator)
        return None if entry is None else entry.body["digest"]

    def reveals(self, round: int) -> list[tuple[str, dict[PeerId, float], bytes]]:
        """What was shown of a round, as it was given: validator, weights, salt."""
        return [
            (entry.account, entry.body["weights"], bytes.fromhex(entry.body["salt"]))
            for entry in self.chain.entries("weights", round)
        ]

    def standing_weights(self, round: int) -> dict[str, dict[PeerId, float]]:
        """The newest weights of each validator up to a round, if they are not too old to count."""
        found: dict[str, dict[PeerId, float]] = {}
        for past in range(round, max(-1, round - WEIGHTS_STAND), -1):
            for validator, weights in self.weights(past).items():
                found.setdefault(validator, weights)
        return found

    def post_record(self, round: int, digest: str) -> None:
        """Posts the digest of a round's record: one record a round is final.

        Args:
          round: t.
          digest: sha256, 64 hexadecimal characters.

        Raises:
          LedgerConflict: the round has another record.
          ValueError: the digest is no sha256.
        """
        body = {"digest": _digest(f"record of round {round}", digest)}
        self.chain.post("record", _integer("round", round), "", body)

    def record(self, round: int) -> str | None:
        """The digest of a round's record; None if there is none yet."""
        entry = self.chain.find("record", round, "")
        return None if entry is None else entry.body["digest"]

    def post_inputs(self, config: str, corpus: str) -> None:
        """Binds a run in one process to what it is made from; both are sha256, 64 hexadecimal characters.

        Raises:
          LedgerConflict: it is bound to something else.
          ValueError: one is no sha256.
        """
        body = {"config": _digest("the config", config), "corpus": _digest("the corpus", corpus)}
        self.chain.post("inputs", None, "", body)

    def inputs(self) -> dict[str, str] | None:
        """What ``post_inputs`` was given; None if it was not called."""
        entry = self.chain.find("inputs", None, "")
        return None if entry is None else entry.body

    def post_veto(self, round: int, validator: str, fault: str) -> None:
        """Notes that a validator's record of a round was vetoed, and why.

        Raises:
          LedgerConflict: another reason stands there.
        """
        self.chain.post("veto", _integer("round", round), validator, {"fault": _text("fault", fault)})

    def vetoes(self, round: int) -> dict[str, str]:
        """Why the records of some validators were vetoed in a round."""
        return {entry.account: entry.body["fault"] for entry in self.chain.entries("veto", round)}

    def run_epoch(self, round: int, peers: Sequence[PeerId], emission: int) -> Epoch:
        """Makes a round's weights into payouts by Yuma consensus, and pays them; once done, it stands.

        Vetoes of the round are posted before.

        Args:
          round: t; its epoch comes after the one of the round before.
          peers: who takes part in the round.
          emission: units that the round gives out. All emissions and grants together stay below 2**63.

        Raises:
          LedgerConflict: the round was paid otherwise.
          ValueError: a peer is not registered, or the emission is negative or too large.
        """
        self._check_registered(peers)
        before = self.epoch(round - 1) if round else None
        if round and before is None:
            raise ValueError(f"the epoch of round {round} comes after the one of round {round - 1}")
        epoch = epoch_of(
            _integer("round", round),
            self.standing_weights(round),
            stakes=self.validators(),
            peers=peers,
            bonds={} if before is None else before.bonds,
            emission=_integer("emission", emission),
            vetoed=self.vetoes(round),
        )
        with self.transaction():
            # An entry carries the total up to itself, so that a reader need not add up all rounds.
            standing = self.chain.find("emission", round, "")
            total = self.accounts.issued() + emission if standing is None else standing.body["total"]
            outcome = {name: value for name, value in epoch._asdict().items() if name in _OUTCOME}
            self.chain.post("epoch", round, "", outcome)
            self.chain.post(
                "emission",
                round,
                "",
                {
                    "payouts": dict(epoch.payouts),
                    "reserve": epoch.reserve,
                    "remainder": epoch.remainder,
                    "emission": emission,
                    "total": _integer("total", total),
                },
            )
        return epoch

    def epoch(self, round: int) -> Epoch | None:
        """What a round's weights came to; None until its epoch has been run."""
        outcome = self.chain.find("epoch", round, "")
        paid = self.chain.find("emission", round, "")
        if outcome is None or paid is None:
            return None
        units = {name: paid.body[name] for name in ("payouts", "reserve", "remainder")}
        return Epoch(round, **outcome.body, **units)

    def balances(self) -> dict[str, int]:
        """Units by account: peers, validators, ``RESERVE``, ``REMAINDER``, others; they sum to all that was emitted and granted."""
        return self.accounts.balances()

    def history(self, name: str) -> dict[int, int]:
        """Units that a peer or validator was paid by round, for the epochs that paid it.

        Raises:
          ValueError: it is not registered.
        """
        if name not in self._accounts():
            raise ValueError(f"{name[:80]!r} is not registered")
        paid = ((entry.round, entry.body["payouts"]) for entry in self.chain.entries("emission"))
        return {round: payouts[name] for round, payouts in paid if round is not None and name in payouts}

    def head(self) -> str:
        """Hash of the newest entry: it stands for the whole ledger."""
        return self.chain.head()

    def verify(self) -> int:
        """Recomputes the chain from its beginning.

        Returns:
          How many entries there are, all sound.

        Raises:
          LedgerTampered: an entry was changed, removed or put in; the line names the first.
        """
        return self.chain.verify()

    def _accounts(self) -> list[str]:
        return [entry.account for kind in ("register", "validator") for entry in self.chain.entries(kind)]

    def _check_registered(self, peers: Iterable[PeerId]) -> None:
        for peer in peers:
            if self.chain.find("register", None, peer) is None:
                raise ValueError(f"peer {peer!r} is not registered")


def _integer(what: str, number: int) -> int:
    if type(number) is not int or not 0 <= number <= _MAX_INTEGER:
        raise ValueError(f"{what}: {number!r} must be an integer between 0 and 2**63 - 1")
    return number


def _digest(what: str, digest: str) -> str:
    if _SHA256.fullmatch(digest) is None:
        raise ValueError(f"{what}: {digest[:80]!r} is no sha256")
    return digest


def _check_free(name: str, taken: Mapping[str, object]) -> None:
    if _text("name", name) in (RESERVE, REMAINDER) or name in taken:
        raise ValueError(f"nobody can be called {name!r} here: the name is taken")


def _text(what: str, text: str) -> str:
    if not 0 < len(text) <= _MAX_TEXT or not text.isprintable():
        raise ValueError(f"{what} {text[:80]!r}: must be 1 to {_MAX_TEXT} printable characters")
    return text
