"""A whole run in one process: the same peers and validators as in the field, with a clock that is moved by hand."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax

from gauntlet_jax.compression.packing import Sizes
from gauntlet_jax.nodes.beacon import Beacon
from gauntlet_jax.nodes.clock import ManualClock, RoundTimes
from gauntlet_jax.nodes.panel import Decision, Panel
from gauntlet_jax.nodes.peer import Contribution, Opening, Peer
from gauntlet_jax.nodes.record import RoundRecord, digest_of
from gauntlet_jax.nodes.settlement import paid
from gauntlet_jax.nodes.stopwatch import Stopwatch, Work, compile_all
from gauntlet_jax.nodes.summary import peer_summary, validator_summary
from gauntlet_jax.rewards.ledger import Epoch
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.rewards.weight_commit import weights_digest
from gauntlet_jax.storage.checkpoint import Checkpoints
from gauntlet_jax.storage.digest import ParamsDigest
from gauntlet_jax.training.baselines import AdamW
from gauntlet_jax.training.eval_step import mean_loss
from gauntlet_jax.types import Batch, Params, PeerId


class Heldout(NamedTuple):
    """The held-out split and when it is measured.

    Attributes:
      batches: [batches, sequences, length + 1].
      every: rounds between two measurements; the first round is measured too.
    """

    batches: np.ndarray
    every: int


class Baseline(NamedTuple):
    """The trusted run beside the peers.

    Attributes:
      optimizer: AdamW at its tuned rate.
      learning_rate: that rate.
      data: ``round -> batches`` of the honest peers' assigned data.
    """

    optimizer: AdamW
    learning_rate: float
    data: Callable[[int], Sequence[Batch]]


class Simulation:
    """Rounds of honest and cheating peers, judged and paid.

    Attributes:
      round: the next round.
      rounds: where the run ends.
      params: theta of the next round.
    """

    def __init__(
        self,
        *,
        name: str,
        seed: int,
        rounds: int,
        params: Params,
        peers: Sequence[Peer],
        behaviors: Mapping[PeerId, str],
        panel: Panel,
        emission: int,
        salt: Callable[[int, str], bytes],
        apply: Callable[..., Params],
        loss: Callable[..., Any],
        learning_rate: optax.Schedule,
        digest: ParamsDigest,
        beacon: Beacon,
        clock: ManualClock,
        times: RoundTimes,
        commit_reveal: bool,
        ledger: SqliteLedger,
        checkpoints: Checkpoints,
        heldout: Heldout,
        baseline: Baseline | None,
        sizes: Sizes,
        stopwatch: Stopwatch,
        to_compile: Sequence[Work],
    ):
        """Puts the nodes together; every argument is one that the field passes too, or a manual stand-in of it."""
        self.name = name
        self.seed = seed
        self.rounds = rounds
        self.round = 0
        self.params = params
        self._peers = peers
        self._behaviors = behaviors
        self._panel = panel
        self._emission = emission
        self._salt = salt
        self._apply = apply
        self._loss = loss
        self._learning_rate = learning_rate
        self._digest = digest
        self._beacon = beacon
        self._clock = clock
        self._times = times
        self._commit_reveal = commit_reveal
        self._ledger = ledger
        self._checkpoints = checkpoints
        self._heldout = heldout
        self._baseline = baseline
        self._sizes = sizes
        self._stopwatch = stopwatch
        self._to_compile = to_compile
        self._initial_loss: float | None = None

    def compile(self) -> None:
        """Compiles every step ahead of the first round."""
        compile_all(self._stopwatch, self._to_compile)

    def run_round(self) -> RoundRecord:
        """One round, from its opening to the payouts; the ledger and the store have it when this returns."""
        t = self.round
        if self._initial_loss is None:
            self._initial_loss = self._heldout_loss(self.params)
        window = self._times.window(t * self._times.seconds)
        commits = self._times.commit_window(t * self._times.seconds) if self._commit_reveal else None
        alpha = float(np.asarray(self._learning_rate(t)))
        opening = Opening(self.name, t, window, commits, self._beacon.opening(t), alpha)
        uploads = [(at, peer) for peer in self._peers if (at := peer.upload_time(window)) is not None]
        uploads.sort(key=lambda upload: upload[0])
        prepared: dict[PeerId, Contribution] = {}
        if commits is not None:
            for _, peer in uploads:
                self._clock.move_to((commits.opens + commits.closes) / 2)
                prepared[peer.name] = peer.prepare(opening, self.params)
                peer.commit(prepared[peer.name])
        for at, peer in uploads:
            self._clock.move_to(at)
            # Without commits a peer makes its artifact as late as it can: a copier then sees what is there to copy.
            peer.upload(prepared.get(peer.name) or peer.prepare(opening, self.params))
        # A late upload is there by then, and seen to be late.
        self._clock.move_to((t + 1) * self._times.seconds)
        shown = self._ledger.standing_weights(t - 1) if t else {}
        decision = self._panel.decide(opening, lambda: self._beacon.closing(t), self.params, shown)
        # The old parameters are donated: nobody may read them after this line.
        self.params = self._apply(self.params, decision.verdict.update, np.float32(alpha))
        if self._baseline:
            self._baseline.optimizer.run_round(self._baseline.data(t))
        # Whatever the last round is: a record must not depend on how far this process means to go.
        measured = t == 0 or (t + 1) % self._heldout.every == 0
        record = RoundRecord(
            round=t,
            learning_rate=alpha,
            heldout_loss=self._heldout_loss(self.params) if measured else None,
            baseline_loss=self._heldout_loss(self._baseline.optimizer.params)
            if measured and self._baseline
            else None,
            params_digest=self._digest(self.params),
            emission=0,
            reserve=0,
            peers=tuple(
                dataclasses.replace(peer, behavior=self._behaviors[peer.name])
                for peer in decision.verdict.peers
            ),
            validator=decision.validator,
        )
        record = paid(
            record,
            self._post(record, decision),
            stakes=self._panel.stakes,
            behaviors=self._panel.behaviors,
            vetoed=decision.vetoed,
        )
        self.round += 1
        return record

    def save_checkpoint(self) -> None:
        """Stores all that the next round depends on."""
        state = {
            "validators": self._panel.state(),
            "clock": self._clock.time,
            "initial_loss": self._initial_loss,
        }
        self._ledger.flush()
        self._checkpoints.save(self.round, self._arrays(), state)

    def restore(self) -> list[str]:
        """Goes to the newest sound checkpoint, or stays at the start where there is none.

        Returns:
          A line for each corrupt checkpoint that was passed over.

        Raises:
          ValueError: the ledger was edited since; the line names the entry.
        """
        self._ledger.verify()
        found = self._checkpoints.restore_newest(self._arrays())
        if found is not None:
            self.round, arrays, state = found
            self.params = arrays["params"]
            for peer in self._peers:
                peer.state = arrays["peers"][peer.name]
            if self._baseline:
                self._baseline.optimizer.params, self._baseline.optimizer.state = arrays["baseline"]
            self._panel.restore(state["validators"])
            self._initial_loss = state["initial_loss"]
            self._clock.move_to(state["clock"])
        return list(self._checkpoints.skipped)

    def summary(self, records: Sequence[RoundRecord], wall_seconds: float) -> dict[str, Any]:
        """The content of ``summary.json``, schema 1.

        Args:
          records: of every round of the run up to now, at least one.
          wall_seconds: of this process, as the step times are; a resumed run does not count the time before.
        """
        last = records[-1]
        seconds = {
            kind: self._stopwatch.seconds[kind]
            for kind in ("compile", "train", "encode", "evaluate", "aggregate")
        }
        if self._baseline:
            seconds["baseline"] = self._stopwatch.seconds["baseline"]
        seconds["other"] = max(0.0, wall_seconds - sum(seconds.values()))
        return {
            "schema": 1,
            "config": self.name,
            "seed": self.seed,
            "rounds": len(records),
            "parameters": self._sizes.parameters,
            "params_digest": last.params_digest,
            "wall_seconds": wall_seconds,
            "seconds": seconds,
            "loss": {
                "initial": self._initial_loss,
                "final": self._final_loss(last.heldout_loss, self.params),
            },
            "baseline": None
            if self._baseline is None
            else {
                "name": self._baseline.optimizer.name,
                "learning_rate": self._baseline.learning_rate,
                "final": self._final_loss(last.baseline_loss, self._baseline.optimizer.params),
            },
            "bytes": {
                "per_peer_round": self._sizes.bytes,
                "bits_per_value": self._sizes.bits_per_value,
                "compression": self._sizes.compression,
            },
            "payout_total": sum(peer.payout for record in records for peer in record.peers),
            "reserve": sum(record.reserve for record in records),
            "remainder": sum(record.remainder for record in records),
            "validators": [validator_summary(validator.name, records) for validator in last.validators],
            "peers": [peer_summary(peer.name, records) for peer in last.peers],
        }

    def close(self) -> None:
        """Lets go of files."""
        self._checkpoints.close()
        self._ledger.close()

    def _final_loss(self, recorded: float | None, params: Params) -> float:
        return self._heldout_loss(params) if recorded is None else recorded

    def _heldout_loss(self, params: Params) -> float:
        return mean_loss(self._loss, params, list(self._heldout.batches))

    def _post(self, record: RoundRecord, decision: Decision) -> Epoch:
        """Commits, reveals and payouts of a round: all of them, or none."""
        t = record.round
        salts = {name: self._salt(t, name) for name in decision.weights}
        with self._ledger.transaction():
            for name, weights in decision.weights.items():
                self._ledger.commit_weights(t, name, weights_digest(t, name, weights, salts[name]))
            for name, fault in decision.vetoed.items():
                self._ledger.post_veto(t, name, fault)
            self._ledger.post_record(t, digest_of(record))
            for name, weights in decision.weights.items():
                self._ledger.reveal_weights(t, name, weights, salts[name])
            return self._ledger.run_epoch(t, [peer.name for peer in record.peers], self._emission)

    def _arrays(self) -> dict[str, Any]:
        optimizer = self._baseline.optimizer if self._baseline else None
        return {
            "params": self.params,
            "peers": {peer.name: peer.state for peer in self._peers},
            "baseline": (optimizer.params, optimizer.state) if optimizer else (),
        }
