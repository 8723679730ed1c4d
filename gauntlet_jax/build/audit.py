"""From a run folder to its audit: the validators of the run once more, over what the run has left behind."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gauntlet_jax.build.parts import Data, digest_of, make_validator, read_corpus
from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import make_task
from gauntlet_jax.config import Config, config_digest
from gauntlet_jax.nodes.audit import Auditor, Difference, is_equal
from gauntlet_jax.nodes.audit_books import BooksAudit
from gauntlet_jax.nodes.beacon import SeededBeacon, derive
from gauntlet_jax.nodes.inspection import Member
from gauntlet_jax.nodes.memory import ASSIGNED, RANDOM
from gauntlet_jax.nodes.observed_bucket import ObservedBucket
from gauntlet_jax.nodes.primary_evaluation import Evaluation
from gauntlet_jax.nodes.record import RoundRecord, to_json
from gauntlet_jax.nodes.stopwatch import compile_all
from gauntlet_jax.nodes.summary import peer_summary, validator_summary
from gauntlet_jax.rewards.sqlite_ledger import SqliteLedger
from gauntlet_jax.storage.bucket import FolderBucket
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.training.eval_step import mean_loss
from gauntlet_jax.types import Params


class RunFiles(NamedTuple):
    """What a run in one process has left behind.

    Attributes:
      folder: with ``ledger.sqlite`` and ``store/``.
      behaviors: of peers and validators, as the config has them.
      lines: of ``rounds.jsonl``, without their ends.
      records: what they say.
      summary: ``summary.json``; None while the run is unfinished.
    """

    folder: Path
    behaviors: Mapping[str, str]
    lines: Sequence[str]
    records: Sequence[RoundRecord]
    summary: Mapping[str, Any] | None


class RecordedScores:
    """An evaluation that measures in some rounds, and believes the record in the others: for spot checks."""

    def __init__(
        self, evaluation: Evaluation, records: Sequence[RoundRecord], measured: frozenset[int]
    ) -> None:
        """An evaluation over a run's records.

        Args:
          evaluation: measures.
          records: of all rounds, from the first.
          measured: rounds in which it does.
        """
        self._evaluation = evaluation
        self._records = records
        self._measured = measured

    def __call__(self, opening: Any, closing: bytes, params: Params, **given: Any) -> list[dict[str, float]]:
        """The scores of the drawn peers by slot; {} for the others."""
        if opening.round in self._measured:
            return self._evaluation(opening, closing, params, **given)
        peers = self._records[opening.round].peers
        for peer in peers:
            if peer.scores and not set(peer.scores) >= {ASSIGNED, RANDOM}:
                raise ValueError(f"round {opening.round}: the scores of {peer.name} are incomplete")
        return [dict(peer.scores) if slot in given["declared"] else {} for slot, peer in enumerate(peers)]


def look_at_inputs(folder: Path, config: str) -> Difference | None:
    """Whether a run's ledger is sound and bound to its config: to be asked before anything is made of that.

    Args:
      folder: of the run.
      config: the text of ``config.json``.

    Raises:
      ValueError: there is no ledger of this version.
      OSError: it cannot be opened.
    """
    if not (folder / "store").is_dir():
        raise ValueError("it keeps no artifacts: only a run with --store file can be audited")
    path = folder / "ledger.sqlite"
    if not path.is_file():
        raise ValueError("it has no ledger.sqlite")
    with SqliteLedger(path, lambda: 0.0) as ledger:
        return BooksAudit(ledger).inputs(config_digest(config))


class RunAudit:
    """The audit of one run folder.

    Attributes:
      seed: of the draw of those that are measured.
      measured: rounds whose loss scores are measured again; in the others they are taken from the record.
    """

    def __init__(
        self, config: Config, files: RunFiles, *, sample: int | None, seed: int, tolerance: float
    ) -> None:
        """Builds the validators and compiles their steps.

        Args:
          config: of the run.
          files: of the run.
          sample: measure the loss scores of so many rounds, drawn at random; None: of all.
          seed: of that draw.
          tolerance: relative, up to which floats count as equal.

        Raises:
          ValueError: a part of the folder is missing, or is of another kind of run.
          OSError: a file cannot be read.
        """
        self._config, self._files, self.seed = config, files, seed
        count = len(files.records)
        sample = None if sample is None or sample >= count else sample
        drawn = np.random.default_rng(seed).permutation(count)[: count if sample is None else sample]
        self.measured = frozenset(int(t) for t in drawn)
        corpus = read_corpus(config)
        self._corpus = digest_of(corpus)
        task = make_task(config, corpus)
        data = Data(config, corpus, task.shardings)
        steps = Steps(config, task)
        compile_all(steps.stopwatch, steps.work(peer=False))
        names = [peer.name for peer in config.peers]
        members = [
            Member(
                name,
                slot,
                ObservedBucket(FolderBucket(files.folder / "store" / name, lambda: 0.0)),
                Identity(derive(b"simulated identity", config.seed, name)).public_key,
            )
            for slot, name in enumerate(names)
        ]
        self._ledger = SqliteLedger(files.folder / "ledger.sqlite", lambda: 0.0)
        # Who posts no weights at all has nothing to be audited, and in a spot check only the records' own scores are known.
        posting = {name for record in files.records for name in self._ledger.weights(record.round)}
        judges = {record.validator for record in files.records} | (set() if sample is not None else posting)
        self._validators = {
            one.name: make_validator(
                one.name,
                config,
                task,
                data,
                steps,
                wrap=lambda evaluation: RecordedScores(evaluation, files.records, self.measured),
            )
            for one in config.validators
            if one.name in judges
        }
        self._tolerance = tolerance
        self._loss, self._heldout = steps.loss, list(data.heldout)
        self._auditor = Auditor(
            run=config.name,
            params=task.params,
            validators=self._validators,
            members=lambda t: members,
            stakes={one.name: float(one.stake) for one in config.validators},
            apply=steps.apply,
            heldout_loss=self._heldout_loss,
            learning_rate=config.learning_rate.schedule(),
            digest=steps.digest,
            beacon=SeededBeacon(config.seed),
            times=config.times,
            commit_reveal=config.commit_reveal,
            emission=config.rewards.emission,
            books=self._ledger,
            tolerance=tolerance,
        )

    def steps(self) -> Iterator[Difference | None]:
        """What belongs to no round, then round after round, then the summary; each step gives its first difference."""
        config, files = self._config, self._files
        books = BooksAudit(self._ledger)
        yield next(
            books.whole(
                corpus=self._corpus,
                peers={peer.name: f"store/{peer.name}" for peer in config.peers},
                stakes={one.name: float(one.stake) for one in config.validators},
                rounds=len(files.records),
            ),
            None,
        )
        if files.summary is not None and config.rounds != len(files.records):
            yield Difference(None, "config.json", "rounds", config.rounds, len(files.records))
        initial = self._heldout_loss(self._auditor.params)
        for t, (line, record) in enumerate(zip(files.lines, files.records, strict=True)):
            if record.round != t:
                yield Difference(t, "", "round", record.round, t)
                return
            # In one process all validators see the same.
            observed = dict.fromkeys(self._validators, record)
            found = self._behaviors(record) or self._auditor.audit(
                record, start=t * config.times.seconds, observed=observed
            )
            if found is None and to_json(record) != line:
                found = Difference(t, "", "the record's line", line[:80], "the same as it is written anew")
            yield found or next(books.round(record), None)
        yield None if files.summary is None else self._summary(files.summary, initial)

    def _behaviors(self, record: RoundRecord) -> Difference | None:
        """What a record says of how nodes were configured to behave."""
        for one in (*record.peers, *record.validators):
            follows = self._files.behaviors.get(one.name, "absent")
            if one.behavior != follows:
                return Difference(record.round, one.name, "behavior", one.behavior, follows)
        return None

    def _heldout_loss(self, params: Params) -> float:
        return mean_loss(self._loss, params, self._heldout)

    def _summary(self, said: Mapping[str, Any], initial: float) -> Difference | None:
        """What the summary says of records; seconds and sizes are its own."""
        records = self._files.records
        last = records[-1]
        names = [[one.name for one in rows] for rows in (last.peers, last.validators)]
        follows = {
            "config": self._config.name,
            "seed": self._config.seed,
            "rounds": len(records),
            "params_digest": last.params_digest,
            "loss": {"initial": initial, "final": last.heldout_loss},
            "payout_total": sum(peer.payout for record in records for peer in record.peers),
            "reserve": sum(record.reserve for record in records),
            "remainder": sum(record.remainder for record in records),
            "peers": [peer_summary(name, records) for name in names[0]],
            "validators": [validator_summary(name, records) for name in names[1]],
        }
        if last.heldout_loss is None:
            follows["loss"] = {"initial": initial, "final": self._heldout_loss(self._auditor.params)}
        # As JSON has it, so that a tuple is a list.
        found = json.loads(json.dumps(follows))
        return next(iter(compared(found, said, self._tolerance)), None)

    def close(self) -> None:
        """Lets go of the ledger's file."""
        self._ledger.close()


def compared(follows: Any, said: Any, tolerance: float, path: str = "") -> Iterator[Difference]:
    """Where a tree of JSON says something else than follows; what it says beside that is its own."""
    if isinstance(follows, Mapping):
        for name, value in follows.items():
            inner = said.get(name, "absent") if isinstance(said, Mapping) else "absent"
            yield from compared(value, inner, tolerance, f"{path}.{name}".strip("."))
    elif isinstance(follows, list):
        given = said if isinstance(said, list) else []
        if len(given) != len(follows):
            yield Difference(None, "summary.json", path, f"{len(given)} entries", f"{len(follows)} entries")
        for number, (value, inner) in enumerate(zip(follows, given, strict=False)):
            yield from compared(value, inner, tolerance, f"{path}.{number}")
    elif not is_equal(said, follows, tolerance):
        yield Difference(None, "summary.json", path, said, follows)
