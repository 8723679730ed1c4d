"""The state of a shared run, on the hash chain of one SQLite file: what is final, who was paid, which round has begun.

This is what ``ledger_service`` puts behind HTTP; it trusts no argument, and its caller for who calls alone.
"""

import math
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from gauntlet_jax.rewards import finality
from gauntlet_jax.rewards.beacon_chain import make_chain
from gauntlet_jax.rewards.hash_chain import GENESIS
from gauntlet_jax.rewards.ledger import LedgerRefused, NotYetKnown, Posting, Registration, RunStatus
from gauntlet_jax.rewards.membership import Membership
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.types import PeerId

_START_MARGIN = 2.0
_MAX_UNITS = 2**63 - 1


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
          ValueError: the file is the ledger of something else.
        """
        if self._chain.head() != GENESIS:
            raise ValueError("the ledger belongs to something else already, such as a simulation")
        if terms["rounds"] * terms["emission"] > _MAX_UNITS:
            raise ValueError(
                f"{terms['rounds']} rounds of {terms['emission']} units: must stay below 2**63 together"
            )
        with self._chain.transaction():
            body = {**terms, "anchor": anchor, "waits": start_delay is None}
            self._chain.post("terms", None, "", body)
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
        self._members = Membership(self._ledger, self._terms)
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
        self.settle()
        begun = self._begun()
        if begun is None:
            return RunStatus(self._moment, None, None, None, (), tuple(self._who().waiting_for()))
        round, start = begun
        vetoed, standing = self._postings(round, start)
        return RunStatus(self._moment, round, start, standing, vetoed, ())

    def register_peer(self, name: PeerId, key: str, bucket: str) -> Registration:
        """Registers a peer from the round on that begins next; see ``Membership``."""
        self.settle()
        found = self._who().register_peer(name, key, bucket, self._next_round())
        self.settle()
        return found

    def register_validator(self, name: str, key: str, bucket: str) -> Registration:
        """Registers a validator; see ``Membership``."""
        self.settle()
        found = self._who().register_validator(name, key, bucket, self._next_round())
        self.settle()
        return found

    def registrations(self, round: int | None) -> list[Registration]:
        """Who takes part in a round, with the buckets of now; None: everybody who is registered."""
        self.settle()
        return self._who().registrations(round)

    def post_weights(self, validator: str, round: int, weights: Mapping[PeerId, float]) -> None:
        """Posts a validator's incentives of a round that has begun."""
        self.settle()
        self._check_validator(validator)
        begun = self._begun()
        if begun is None or not 0 <= round <= begun[0]:
            raise LedgerRefused(f"round {round} has not begun")
        self._ledger.post_weights(round, validator, weights)

    def post_record(
        self, validator: str, round: int, digest: str, payouts: Mapping[PeerId, int], reserve: int
    ) -> None:
        """Posts a validator's record of the current round, if it is its turn.

        Raises:
          LedgerRefused: it is not, or the record does not give out the emission.
        """
        self.settle()
        self._check_validator(validator)
        body = {"digest": digest, "payouts": dict(payouts), "reserve": reserve}
        earlier = self._chain.find("posting", round, validator)
        if earlier is not None and earlier.body == body:
            return
        begun = self._begun()
        if begun is None or round != begun[0] or round >= self._terms["rounds"]:
            raise LedgerRefused(f"round {round} is not the one that needs a record")
        start = begun[1]
        vetoed, standing = self._postings(round, start)
        if standing is not None:
            raise LedgerRefused(f"round {round} has a record of {standing.validator} that is not vetoed")
        times, rules = self._terms["times"], self._terms["finality"]
        if not finality.may_post(
            validator,
            self._who().stakes,
            vetoed,
            now=self._moment,
            closes=start + times["closes"],
            succession_seconds=rules["succession_seconds"],
        ):
            raise LedgerRefused(f"it is not the turn of {validator} to post round {round}")
        if any(entry.body["digest"] == digest for entry in self._chain.entries("posting", round)):
            raise LedgerRefused(f"round {round}: that record was vetoed")
        self._check_record(round, digest, payouts, reserve)
        self._chain.post("posting", round, validator, body)

    def reject_record(self, validator: str, round: int, digest: str) -> None:
        """Rejects another validator's posting while it can still be vetoed.

        Raises:
          LedgerRefused: there is no such posting, or it is final.
        """
        self.settle()
        self._check_validator(validator)
        for entry in self._chain.entries("rejection", round):
            if entry.account.split(" ")[0] == validator and entry.body["digest"] == digest:
                return
        begun = self._begun()
        standing = None if begun is None else self._postings(*begun)[1]
        if standing is None or (standing.round, standing.digest) != (round, digest):
            raise LedgerRefused(f"round {round} has no such record that can still be rejected")
        if standing.final_at is not None:
            raise LedgerRefused(f"round {round}: that record is final")
        if standing.validator == validator:
            raise LedgerRefused("nobody rejects its own record")
        self._chain.post("rejection", round, f"{validator} {standing.validator}", {"digest": digest})

    def record(self, round: int) -> Posting | None:
        """The final record of a round; None if there is none yet."""
        self.settle()
        entry = self._chain.find("final", round, "")
        if entry is None:
            return None
        return self._posting(round, entry.body["validator"], entry.body["start"], entry.body["final_at"])

    def beacon(self, round: int, phase: Literal["opening", "closing"]) -> bytes:
        """A released beacon.

        Raises:
          NotYetKnown: it is not due.
          LedgerRefused: the run has a seeded one, or no such round.
        """
        self.settle()
        if not self._links:
            raise LedgerRefused("this run's beacon is a seeded one")
        if not 0 <= round < self._terms["rounds"]:
            raise LedgerRefused(f"round {round} is none of this run")
        begun = self._begun()
        due = math.inf
        if begun is not None and round <= begun[0]:
            closes = begun[1] + self._terms["times"]["closes"]
            due = closes if phase == "closing" and round == begun[0] else begun[1]
        if self._moment < due:
            raise NotYetKnown(f"the {phase} beacon of round {round} is not due")
        return self._links[2 * round + (phase == "closing")]

    def balances(self) -> dict[str, int]:
        """Units by peer, and the reserve's."""
        self.settle()
        return self._ledger.balances()

    def history(self, peer: PeerId) -> dict[int, int]:
        """Units that a peer was paid by round."""
        self.settle()
        return self._ledger.history(peer)

    def weights(self, round: int) -> dict[PeerId, dict[PeerId, float]]:
        """The weights of a round by validator, then by peer."""
        return self._ledger.weights(round)

    def settle(self) -> None:
        """Notes what time alone has decided: genesis, what is final and paid, and the beginning of rounds.

        Raises:
          OSError: the disk is full.
        """
        now = self.now()
        while self._decide(now):
            pass

    def _decide(self, now: float) -> bool:
        """One step of ``settle``; whether there may be another."""
        genesis = self._chain.find("genesis", None, "")
        if genesis is None:
            if self._who().waiting_for():
                return False
            self._chain.post("genesis", None, "", {"genesis": float(math.floor(now + 1.0)) + _START_MARGIN})
            return True
        begun = self._begun()
        if begun is None:
            return self._begin(0, genesis.body["genesis"], now)
        round, start = begun
        final = self._chain.find("final", round, "")
        if final is not None:
            seconds = self._terms["times"]["seconds"]
            due = finality.tick_from(final.body["final_at"], genesis=genesis.body["genesis"], seconds=seconds)
            return self._begin(round + 1, due, now)
        standing = self._postings(round, start)[1]
        return standing is not None and self._finish(standing, now)

    def _begin(self, round: int, due: float, now: float) -> bool:
        start = finality.begins_at(due, now, seconds=self._terms["times"]["seconds"])
        return start is not None and self._chain.post("start", round, "", {"start": start})

    def _finish(self, posting: Posting, now: float) -> bool:
        """Makes a posting final, and pays, if nobody has vetoed it in time."""
        final_at = finality.final_at(
            posting.posted_at, self._awake_since, veto_seconds=self._terms["finality"]["veto_seconds"]
        )
        if now < final_at:
            return False
        body = {"validator": posting.validator, "start": posting.start, "final_at": final_at}
        with self._chain.transaction():
            self._chain.post("final", posting.round, "", body)
            self._ledger.post_record(posting.round, posting.digest)
            self._ledger.emit(posting.round, posting.payouts, posting.reserve, self._terms["emission"])
        return True

    def _begun(self) -> tuple[int, float] | None:
        """The newest round that has begun, and when; None before round 0."""
        entry = self._chain.newest("start")
        return None if entry is None or entry.round is None else (entry.round, entry.body["start"])

    def _next_round(self) -> int:
        begun = self._begun()
        return 0 if begun is None else begun[0] + 1

    def _postings(self, round: int, start: float) -> tuple[tuple[str, ...], Posting | None]:
        """The validators whose records of a round were vetoed, and the record that was not."""
        against: dict[str, set[str]] = {}
        for entry in self._chain.entries("rejection", round):
            by, of = entry.account.split(" ")
            against.setdefault(of, set()).add(by)
        final = self._chain.find("final", round, "")
        vetoed, standing = [], None
        for entry in self._chain.entries("posting", round):
            if finality.is_vetoed(self._who().stakes, against.get(entry.account, set())):
                vetoed.append(entry.account)
            else:
                standing = self._posting(
                    round, entry.account, start, None if final is None else final.body["final_at"]
                )
        if standing is None and len(vetoed) == len(self._who().stakes):
            # Nobody agrees with anybody: the largest stake decides, or the run would stand still for ever.
            lead = finality.succession(self._who().stakes)[0]
            standing = self._posting(round, lead, start, None if final is None else final.body["final_at"])
        return tuple(vetoed), standing

    def _posting(self, round: int, validator: str, start: float, final_at: float | None) -> Posting:
        entry = self._chain.find("posting", round, validator)
        assert entry is not None
        body = entry.body
        return Posting(
            round, validator, body["digest"], body["payouts"], body["reserve"], entry.at, start, final_at
        )

    def _who(self) -> Membership:
        assert self._members is not None, "begin() comes first"
        return self._members

    def _check_validator(self, name: str) -> None:
        if name not in self._who().stakes:
            raise LedgerRefused(f"{name!r} is no validator of this run")

    def _check_record(self, round: int, digest: str, payouts: Mapping[PeerId, int], reserve: int) -> None:
        if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
            raise LedgerRefused("the record's digest is no sha256")
        units = [reserve, *payouts.values()]
        if not all(type(amount) is int and amount >= 0 for amount in units):
            raise LedgerRefused("payouts are whole units of at least 0")
        if sum(units) != self._terms["emission"]:
            raise LedgerRefused(f"payouts and reserve sum to {sum(units)}, not to {self._terms['emission']}")
        peers = {entry.name for entry in self.registrations(round) if entry.slot is not None}
        if not set(payouts) <= peers:
            raise LedgerRefused("the record pays somebody who takes no part in the round")
