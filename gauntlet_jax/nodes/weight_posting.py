"""A validator's weights on a shared ledger: it binds itself while commits are taken, and shows them as soon as they are closed."""

import hashlib
from collections.abc import Callable, Mapping

from gauntlet_jax.nodes.life import Complaints
from gauntlet_jax.nodes.record import RoundRecord
from gauntlet_jax.nodes.settlement import weights_in
from gauntlet_jax.rewards.ledger import LedgerConflict, LedgerRefused, RunStatus, SharedLedger
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.types import PeerId


class WeightPosting:
    """Commits and reveals, each once a round; after a restart they are repeated, which is no change."""

    def __init__(self, ledger: SharedLedger, run: str, identity: Identity, complaints: Complaints) -> None:
        """The weights of a validator.

        Args:
          ledger: of the run.
          run: its name.
          identity: the validator's keys, from which salts are made that nobody else can know.
          complaints: about what the ledger does not take.
        """
        self._ledger = ledger
        self._run = run
        self._identity = identity
        # Another run of the same name must not have the same salts: these have been shown.
        self._ledger_id = ledger.terms()["ledger"]
        self._complaints = complaints
        self._committed = self._revealed = -1

    def post(self, record: RoundRecord, status: RunStatus) -> None:
        """Does what is due for a round that this validator has judged, if anything.

        Args:
          record: its own.
          status: of the run, in that round.

        Raises:
          OSError: the ledger does not answer: to be tried again.
        """
        round = record.round
        assert status.commits_close is not None
        if self._committed < round:
            self._try(self._ledger.commit_weights, record)
            self._committed = round
        if self._revealed < round and status.now >= status.commits_close:
            self._try(self._ledger.reveal_weights, record)
            self._revealed = round

    def _try(self, call: Callable[[int, Mapping[PeerId, float], bytes], None], record: RoundRecord) -> None:
        try:
            call(record.round, weights_in(record.peers), self._salt(record.round))
        except (LedgerRefused, LedgerConflict) as refused:
            # Too late, or others stand there from before a journal was lost: the record must not wait for that.
            self._complaints.about(f"round {record.round}: the ledger did not take the weights: {refused}")

    def _salt(self, round: int) -> bytes:
        """Known to the holder of the key alone, and the same after a restart."""
        return hashlib.sha256(
            self._identity.sign("weights salt", f"{self._ledger_id}/{self._run}/{round}".encode()).encode()
        ).digest()
