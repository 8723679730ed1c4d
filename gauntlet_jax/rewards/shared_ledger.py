"""The state of a shared run, on the hash chain of one SQLite file: what is final, who was paid, which round has begun.

This is what ``ledger_service`` puts behind HTTP; it trusts no argument, and its caller for who calls alone.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from gauntlet_jax.rewards.accounts import MAX_UNITS
from gauntlet_jax.rewards.beacon_chain import make_chain
from gauntlet_jax.rewards.hash_chain import GENESIS
from gauntlet_jax.rewards.ledger import Epoch, LedgerRefused, NotYetKnown, Posting, Registration, RunStatus
from gauntlet_jax.rewards.membership import Membership, check_grants
from gauntlet_jax.rewards.round_course import RoundCourse
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.storage.identity import is_public_key
from gauntlet_jax.types import PeerId

_RECEIPT = re.compile(r"[0-9a-f]{32}")
_NANOSECONDS = 10**9


class SharedRunLedger:
    """One run's ledger; one thread, one writer.

    Time alone decides some things: ``settle`` notes them, and every other method calls it first.
    """

    def __init__(self, path: Path | str, clock: Callable[[], float]) -> None:
        """Opens a ledger, creating it if need be; ``found`` or ``begin`` come next.

        Args:
          path: a file, or ":memory:".
          clock: Unix seconds.

        Raises:
          OSError: the file cannot be opened.
          ValueError: the file is no ledger of this version.
        """
        self._clock = clock
        self._moment = 0.0
        self._ledger = SqliteLedger(path, self.now, durable=True)
        self._chain = self._ledger.chain
        self._awake_since = self.now()
        self._terms: dict[str, Any] = {}
        self._links: tuple[bytes, ...] = ()
        self._members: Membership | None = None
        self._course: RoundCourse | None = None

    def now(self) -> float:
        """The ledger's time, Unix seconds: it never goes back."""
        self._moment = max(self._moment, self._clock())
        return self._moment

    @property
    def is_founded(self) -> bool:
        """Whether it has a run already."""
        return self._chain.find("terms", None, "") is not None

    @property
    def has_own_beacon(self) -> bool:
        """Whether its run's beacon is the ledger's, so that ``begin`` needs its secret."""
        entry = self._chain.find("terms", None, "")
        return entry is not None and entry.body["anchor"] is not None

    def found(self, terms: Mapping[str, Any], *, anchor: str | None, start_delay: float | None) -> None:
        """Gives a new ledger its run.

        Args:
          terms: of the run.
          anchor: of the beacon's chain; None for a seeded beacon, which needs no ledger.
          start_delay: seconds until the first round; None waits until everybody whom the terms name is registered.

        Raises:
          ValueError: the file is the ledger of something else, or the terms give out more units than there can be.
        """
        if self._chain.head() != GENESIS:
            raise ValueError("the ledger belongs to something else already, such as a simulation")
        grants = terms["registration"]["grants"]
        check_grants(terms)
        if terms["rounds"] * terms["emission"] + sum(grants.values()) > MAX_UNITS:
            raise ValueError(
                f"{terms['rounds']} rounds of {terms['emission']} units, and the grants: must stay below 2**63 together"
            )
        with self._chain.transaction():
            body = {**terms, "anchor": anchor, "waits": start_delay is None}
            self._chain.post("terms", None, "", body)
            for account, units in grants.items():
                self._ledger.accounts.grant(account, units)
                self._heed_key(account)
            if start_delay is not None:
                genesis = float(math.ceil(self.now() + start_delay))
                self._chain.post("genesis", None, "", {"genesis": genesis})

    def begin(self, secret: bytes | None) -> None:
        """Takes up the run that is on the ledger.

        Args:
          secret: of the beacon; None for a seeded one.

        Raises:
          ValueError: the ledger has no run, or the secret is not the one of its anchor.
        """
        entry = self._chain.find("terms", None, "")
        if entry is None:
            raise ValueError("the ledger has no run yet: found it with a config")
        self._terms = entry.body
        members = self._members = Membership(self._ledger, self._terms)
        self._course = RoundCourse(
            self._chain,
            self._terms,
            members.stakes,
            awake_since=self._awake_since,
            is_complete=lambda: not members.waiting_for(),
            conclude=self._conclude,
        )
        if self._terms["anchor"] is not None:
            anchor, links = make_chain(secret or b"", 2 * self._terms["rounds"] + 2)
            if anchor != self._terms["anchor"]:
                raise ValueError("the beacon's secret is not the one that this run began with")
            self._links = tuple(links)

    def close(self) -> None:
        """Closes the file."""
        self._ledger.close()

    def verify(self) -> int:
        """Recomputes the chain; see ``SqliteLedger.verify``."""
        return self._ledger.verify()

    def head(self) -> str:
        """Hash of the newest entry."""
        return self._ledger.head()

    def terms(self) -> dict[str, Any]:
        """The run's terms, with what tells this ledger from every other one under "ledger"."""
        return {**self._terms, "ledger": self._chain.first_hash()}

    def transaction(self) -> AbstractContextManager[None]:
        """All that is posted inside is kept together, or none of it if the block raises."""
        return self._chain.transaction()

    def nonce(self, key: str) -> int:
        """The newest nonce that a key has used; -1 before its first."""
        return self._chain.nonce(key)

    def keep_nonce(self, key: str, nonce: int) -> None:
        """Notes the newest nonce of a key."""
        self._chain.keep_nonce(key, nonce)

    def key_of(self, name: str) -> str | None:
        """The public key that a name belongs to; None for an unregistered one."""
        return self._who().key_of(name)

    def status(self) -> RunStatus:
        """Where the run stands, after what time alone has decided."""
        course = self._settled()
        begun = course.begun()
        if begun is None:
            return RunStatus(self._moment, None, None, None, (), tuple(self._who().waiting_for()))
        round, start = begun
        vetoed, standing = course.postings(round, start)
        close = course.commits_close(round, start) if round < self._terms["rounds"] else None
        return RunStatus(self._moment, round, start, standing, vetoed, (), close)

    def register_peer(self, name: PeerId, key: str, bucket: str) -> Registration:
        """Registers a peer from the round on that begins next; see ``Membership``."""
        found = self._who().register_peer(name, key, bucket, self._next_round())
        self.settle()
        return found

    def register_validator(self, name: str, key: str, bucket: str) -> Registration:
        """Registers a validator; see ``Membership``."""
        found = self._who().register_validator(name, key, bucket, self._next_round())
        self.settle()
        return found

    def registrations(self, round: int | None) -> list[Registration]:
        """Who takes part in a round, with the buckets of now; None: everybody who holds a slot, and the validators."""
        self._settled()
        return self._who().registrations(round)

    def commit_weights(self, validator: str, round: int, digest: str) -> None:
        """Binds a validator to its weights of the current round, between the close of the put window and that of the commits.

        Raises:
          LedgerRefused: it is too early or too late, or the validator is bound to others.
        """
        course = self._settled()
        self._check_validator(validator)
        if self._chain.find("commit", round, validator) is None:
            start = course.current(round)
            if self._moment < course.closes(start):
                raise LedgerRefused(f"round {round}: its put window is open, weights come after it")
            if course.commits_closed(round):
                raise LedgerRefused(f"round {round}: it is too late to commit to weights")
        with _refusing():
            self._ledger.commit_weights(round, validator, digest)

    def reveal_weights(
        self, validator: str, round: int, weights: Mapping[PeerId, float], salt: bytes
    ) -> None:
        """Shows the weights that a validator is bound to, between the close of the commits and the round's epoch.

        Raises:
          LedgerRefused: it is too early or too late, or the validator is bound to others.
        """
        course = self._settled()
        self._check_validator(validator)
        if self._chain.find("weights", round, validator) is None:
            if course.is_final(round):
                raise LedgerRefused(f"round {round}: it is too late, its epoch has been run")
            course.current(round)
            if not course.commits_closed(round):
                raise LedgerRefused(f"round {round}: commits to weights are still taken, so none are shown")
        with _refusing():
            self._ledger.reveal_weights(round, validator, weights, salt)

    def committed(self, round: int) -> tuple[str, ...]:
        """The validators that are bound to weights of a round, in the order of their commits."""
        self._settled()
        return tuple(entry.account for entry in self._chain.entries("commit", round))

    def weights(self, round: int) -> dict[str, dict[PeerId, float]]:
        """The revealed weights of a round by validator, then by peer; each sums to 1, or is all 0."""
        self._settled()
        return self._ledger.weights(round)

    def post_record(self, validator: str, round: int, digest: str) -> None:
        """Posts a validator's record of the current round, if it is its turn.

        Raises:
          LedgerRefused: it is not, or commits to weights are still taken.
        """
        course = self._settled()
        self._check_validator(validator)
        course.post(validator, round, digest, self._moment)

    def reject_record(self, validator: str, round: int, digest: str) -> None:
        """Rejects another validator's posting while it can still be vetoed.

        Raises:
          LedgerRefused: there is no such posting, or it is final.
        """
        course = self._settled()
        self._check_validator(validator)
        course.reject(validator, round, digest)

    def record(self, round: int) -> Posting | None:
        """The final record of a round; None if there is none yet."""
        return self._settled().record(round)

    def epoch(self, round: int) -> Epoch | None:
        """What a round's weights came to; None until it is final."""
        self._settled()
        return self._ledger.epoch(round)

    def vetoes(self, round: int) -> dict[str, str]:
        """Whose records of a final round were vetoed, and why."""
        self._settled()
        return self._ledger.vetoes(round)

    def beacon(self, round: int, phase: Literal["opening", "closing"]) -> bytes:
        """A released beacon.

        Raises:
          NotYetKnown: it is not due.
          LedgerRefused: the run has a seeded one, or no such round.
        """
        course = self._settled()
        if not self._links:
            raise LedgerRefused("this run's beacon is a seeded one")
        if not 0 <= round < self._terms["rounds"]:
            raise LedgerRefused(f"round {round} is none of this run")
        begun = course.begun()
        due = math.inf
        if begun is not None and round <= begun[0]:
            due = course.closes(begun[1]) if phase == "closing" and round == begun[0] else begun[1]
        if self._moment < due:
            raise NotYetKnown(f"the {phase} beacon of round {round} is not due")
        return self._links[2 * round + (phase == "closing")]

    def transfer(self, sender: str, to: str, units: int, receipt: str) -> None:
        """Moves units from an account to another.

        Args:
          sender: a registered name, or the public key that calls.
          to: a registered name, or a public key.
          units: at least 1.
          receipt: 32 hexadecimal digits, new for each transfer: the same again is no change.

        Raises:
          LedgerRefused: the sender has less, or there is no such account.
        """
        self._settled()
        if _RECEIPT.fullmatch(receipt) is None:
            raise LedgerRefused("a transfer has a receipt of 32 hexadecimal digits")
        for account in (sender, to):
            self._who().check_account(account)
        if to == sender:
            raise LedgerRefused("a transfer goes to another account")
        with _refusing(), self._chain.transaction():
            self._ledger.accounts.transfer(sender, to, units, receipt)
            self._heed_key(to)

    def balances(self) -> dict[str, int]:
        """Units by account; they sum to all that was emitted and granted."""
        self._settled()
        return self._ledger.balances()

    def history(self, name: str) -> dict[int, int]:
        """Units that a peer or validator was paid by round.

        Raises:
          LedgerRefused: it is not registered.
        """
        self._settled()
        with _refusing():
            return self._ledger.history(name)

    def settle(self) -> None:
        """Notes what time alone has decided: genesis, what is final and paid, and the beginning of rounds.

        Raises:
          OSError: the disk is full.
        """
        self._settled()

    def _settled(self) -> RoundCourse:
        assert self._course is not None, "begin() comes first"
        self._course.settle(self.now())
        return self._course

    def _conclude(self, posting: Posting) -> None:
        """A round's final record, and its epoch: in the transaction that makes it final, so that there is exactly one."""
        round = posting.round
        assert self._course is not None
        for name in self._course.postings(round, posting.start)[0]:
            self._ledger.post_veto(round, name, "more than half of the stake rejected its record")
        self._ledger.post_record(round, posting.digest)
        self._ledger.run_epoch(round, self._who().peers(round), self._terms["emission"])

    def _next_round(self) -> int:
        begun = self._settled().begun()
        return 0 if begun is None else begun[0] + 1

    def _heed_key(self, account: str) -> None:
        """From when a key has units on, its nonces are kept, and what it signed before is not taken: it cost nothing then."""
        if is_public_key(account) and self._chain.nonce(account) < 0:
            self._chain.keep_nonce(account, int(self.now() * _NANOSECONDS))

    def _who(self) -> Membership:
        assert self._members is not None, "begin() comes first"
        return self._members

    def _check_validator(self, name: str) -> None:
        if name not in self._who().stakes:
            raise LedgerRefused(f"{name!r} is no validator of this run")


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """What an account does not take is refused in the service's own terms."""
    try:
        yield
    except LedgerRefused:
        raise
    except ValueError as error:
        raise LedgerRefused(str(error)) from error
