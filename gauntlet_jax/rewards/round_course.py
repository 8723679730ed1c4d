"""The course of a shared run's rounds on a hash chain: when one begins, until when commits are taken, which record is final."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from gauntlet_jax.rewards import finality
from gauntlet_jax.rewards.hash_chain import HashChain
from gauntlet_jax.rewards.ledger import LedgerRefused, Posting

_START_MARGIN = 2.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class RoundCourse:
    """Rounds, the times in them, and the records that validators post.

    Time alone decides some things; ``settle`` notes them, and comes before everything else here.
    """

    def __init__(
        self,
        chain: HashChain,
        terms: Mapping[str, Any],
        stakes: Mapping[str, float],
        *,
        awake_since: float,
        is_complete: Callable[[], bool],
        conclude: Callable[[Posting], None],
    ) -> None:
        """The course of a run.

        Args:
          chain: keeps it.
          terms: number of rounds, times and finality.
          stakes: by validator.
          awake_since: since when the ledger has been there without a break, Unix seconds.
          is_complete: whether everybody is there whom the run waits for.
          conclude: makes a round's final record and payouts, in the transaction of its end.
        """
        self._chain = chain
        self._stakes = stakes
        self._rounds: int = terms["rounds"]
        self._times: Mapping[str, float] = terms["times"]
        self._rules: Mapping[str, float] = terms["finality"]
        self._awake_since = awake_since
        self._is_complete = is_complete
        self._conclude = conclude

    def settle(self, now: float) -> None:
        """Notes what time alone has decided by now."""
        while self._decide(now):
            pass

    def begun(self) -> tuple[int, float] | None:
        """The newest round that has begun, and when; None before round 0."""
        entry = self._chain.newest("start")
        return None if entry is None or entry.round is None else (entry.round, entry.body["start"])

    def current(self, round: int) -> float:
        """When a round began that is going on.

        Raises:
          LedgerRefused: it is another round.
        """
        begun = self.begun()
        if begun is None or begun[0] != round or round >= self._rounds:
            raise LedgerRefused(f"round {round} is not the one that is going on")
        return begun[1]

    def closes(self, start: float) -> float:
        """When the put window of a round closes that began at ``start``."""
        return start + self._times["closes"]

    def commits_closed(self, round: int) -> bool:
        """Whether the commits of a round are closed; once they are, they stay so."""
        return self._chain.find("closed", round, "") is not None

    def commits_close(self, round: int, start: float) -> float:
        """When the commits of a round close, or did."""
        entry = self._chain.find("closed", round, "")
        if entry is not None:
            return entry.body["at"]
        return finality.commits_close_at(
            self.closes(start), self._awake_since, weights_seconds=self._rules["weights_seconds"]
        )

    def is_final(self, round: int) -> bool:
        """Whether a round has its final record, and has been paid."""
        return self._chain.find("final", round, "") is not None

    def post(self, validator: str, round: int, digest: str, now: float) -> None:
        """Posts a validator's record of the current round, if it is its turn.

        Raises:
          LedgerRefused: it is not, or commits to weights are still taken.
        """
        if _SHA256.fullmatch(digest) is None:
            raise LedgerRefused("the record's digest is no sha256")
        body = {"digest": digest}
        earlier = self._chain.find("posting", round, validator)
        if earlier is not None and earlier.body == body:
            return
        start = self.current(round)
        vetoed, standing = self.postings(round, start)
        if standing is not None:
            raise LedgerRefused(f"round {round} has a record of {standing.validator} that is not vetoed")
        if not self.commits_closed(round):
            raise LedgerRefused(
                f"round {round}: commits to weights are still taken, and a record would show them"
            )
        if not finality.may_post(
            validator,
            self._stakes,
            vetoed,
            now=now,
            commits_close=self.commits_close(round, start),
            succession_seconds=self._rules["succession_seconds"],
        ):
            raise LedgerRefused(f"it is not the turn of {validator} to post round {round}")
        if any(entry.body["digest"] == digest for entry in self._chain.entries("posting", round)):
            raise LedgerRefused(f"round {round}: that record was vetoed")
        self._chain.post("posting", round, validator, body)

    def reject(self, validator: str, round: int, digest: str) -> None:
        """Rejects another validator's posting while it can still be vetoed.

        Raises:
          LedgerRefused: there is no such posting, or it is final.
        """
        for entry in self._chain.entries("rejection", round):
            if entry.account.split(" ")[0] == validator and entry.body["digest"] == digest:
                return
        begun = self.begun()
        standing = None if begun is None else self.postings(*begun)[1]
        if standing is None or (standing.round, standing.digest) != (round, digest):
            raise LedgerRefused(f"round {round} has no such record that can still be rejected")
        if standing.final_at is not None:
            raise LedgerRefused(f"round {round}: that record is final")
        if standing.validator == validator:
            raise LedgerRefused("nobody rejects its own record")
        self._chain.post("rejection", round, f"{validator} {standing.validator}", {"digest": digest})

    def record(self, round: int) -> Posting | None:
        """The final record of a round; None if there is none yet."""
        entry = self._chain.find("final", round, "")
        if entry is None:
            return None
        return self._posting(round, entry.body["validator"], entry.body["start"], entry.body["final_at"])

    def postings(self, round: int, start: float) -> tuple[tuple[str, ...], Posting | None]:
        """The validators whose records of a round were vetoed, and the record that was not."""
        against: dict[str, set[str]] = {}
        for entry in self._chain.entries("rejection", round):
            by, of = entry.account.split(" ")
            against.setdefault(of, set()).add(by)
        final = self._chain.find("final", round, "")
        final_at = None if final is None else final.body["final_at"]
        vetoed, standing = [], None
        for entry in self._chain.entries("posting", round):
            if finality.is_vetoed(self._stakes, against.get(entry.account, set())):
                vetoed.append(entry.account)
            else:
                standing = self._posting(round, entry.account, start, final_at)
        if standing is None and len(vetoed) == len(self._stakes):
            # Nobody agrees with anybody: the largest stake decides, or the run would stand still for ever.
            standing = self._posting(round, finality.succession(self._stakes)[0], start, final_at)
        return tuple(vetoed), standing

    def _decide(self, now: float) -> bool:
        """One step of ``settle``; whether there may be another."""
        genesis = self._chain.find("genesis", None, "")
        if genesis is None:
            if not self._is_complete():
                return False
            self._chain.post("genesis", None, "", {"genesis": float(math.floor(now + 1.0)) + _START_MARGIN})
            return True
        begun = self.begun()
        if begun is None:
            return self._begin(0, genesis.body["genesis"], now)
        round, start = begun
        if round >= self._rounds:
            return False
        final = self._chain.find("final", round, "")
        if final is not None:
            seconds = self._times["seconds"]
            due = finality.tick_from(final.body["final_at"], genesis=genesis.body["genesis"], seconds=seconds)
            return self._begin(round + 1, due, now)
        if not self.commits_closed(round):
            at = self.commits_close(round, start)
            return now >= at and self._chain.post("closed", round, "", {"at": at})
        standing = self.postings(round, start)[1]
        return standing is not None and self._finish(standing, now)

    def _begin(self, round: int, due: float, now: float) -> bool:
        start = finality.begins_at(due, now, seconds=self._times["seconds"])
        return start is not None and self._chain.post("start", round, "", {"start": start})

    def _finish(self, posting: Posting, now: float) -> bool:
        """Makes a posting final, and concludes its round, if nobody has vetoed it in time."""
        final_at = finality.final_at(
            posting.posted_at, self._awake_since, veto_seconds=self._rules["veto_seconds"]
        )
        if now < final_at:
            return False
        body = {"validator": posting.validator, "start": posting.start, "final_at": final_at}
        with self._chain.transaction():
            self._chain.post("final", posting.round, "", body)
            self._conclude(posting)
        return True

    def _posting(self, round: int, validator: str, start: float, final_at: float | None) -> Posting:
        entry = self._chain.find("posting", round, validator)
        assert entry is not None
        return Posting(round, validator, entry.body["digest"], entry.at, start, final_at)
