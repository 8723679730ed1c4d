"""The runs of the economics studies: a strategist's identities first, honest peers with one batch each beside them."""

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import chain

from gauntlet_jax.config import Config
from gauntlet_jax.lab import strategists
from gauntlet_jax.lab.economics.replay import Settings
from gauntlet_jax.lab.small_run import PROOF_GATE, small_config
from gauntlet_jax.nodes.attacks import HONEST
from gauntlet_jax.nodes.peer import Behavior

HONEST_PEERS = 5
TOTAL_BATCHES = 8  # of the strategist that splits
FEW_AGGREGATED = 2  # the other top-G that is tried
SAMPLE = 5  # |S_t|, as in the live run
WIDE = 4  # batches that a peer is evaluated on, where more of what it declares is checked
_OVERLAP_FLOOR = 0.4
_NO_OVERLAP_RULE = 1.01  # no two peers share more than all of their indices
_LOSERS = ("sign_flip", "noise", "one_sequence", "climb_then_lose")
_LOSERS_IF_SAMPLED = ("sign_flip", "noise", "climb_then_lose")
_MOST_LOSERS = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """One run of a study, apart from its seed.

    Attributes:
      name: of the run, a part of a file's name.
      own: the strategist's behaviors, one an identity.
      top_g: G, whose pseudo-gradients make the update.
      sample_size: peers evaluated a round; None: all.
      overlap_rule: whether pairs that send the same coefficients are slashed.
      sample_batches: batches of data that a peer is evaluated on.
      rounds: of the run.
    """

    name: str
    own: tuple[Behavior, ...]
    top_g: int = HONEST_PEERS + 1
    sample_size: int | None = None
    overlap_rule: bool = True
    sample_batches: int = 1
    rounds: int = 40


def settings(rounds: int) -> Settings:
    """What the runs are judged with: as the quickstart, scaled to their length."""
    return Settings(payable_after=rounds // 4, proof_gate=PROOF_GATE)


def config_of(case: Case, seed: int) -> Config:
    """A case's run (see ``small_config``)."""
    judged = settings(case.rounds)
    peers: dict[str, str | Behavior] = {f"own-{i}": behavior for i, behavior in enumerate(case.own)}
    peers |= {f"honest-{i}": "honest" for i in range(HONEST_PEERS)}
    config = small_config(case.name, peers, seed=seed, rounds=case.rounds, capacity=TOTAL_BATCHES)
    rules = dataclasses.replace(
        config.validator,
        top_g=case.top_g,
        sample_size=case.sample_size,
        sample_batches=case.sample_batches,
        proof_decay=judged.proof_decay,
        rating_beta=judged.rating_beta,
        rating_tau=judged.rating_tau,
        overlap_floor=_OVERLAP_FLOOR if case.overlap_rule else _NO_OVERLAP_RULE,
    )
    return dataclasses.replace(config, validator=rules)


def split_cases() -> Iterator[Case]:
    """8 batches as k = 1 to 8 identities; with more data checked; with fewer aggregated; a peer that declares 8 and trains on 1."""
    for k in range(1, TOTAL_BATCHES + 1):
        own = tuple(strategists.split(TOTAL_BATCHES, k))
        yield Case(f"split-{k}", own)
        yield Case(f"split-{k}-wide", own, sample_batches=WIDE)
    for k in (1, 2, TOTAL_BATCHES):
        yield Case(
            f"split-{k}-top{FEW_AGGREGATED}",
            tuple(strategists.split(TOTAL_BATCHES, k)),
            top_g=FEW_AGGREGATED,
        )
    for ending, sample_batches in (("", 1), ("-wide", WIDE)):
        yield Case(f"boast{ending}", (strategists.boaster(TOTAL_BATCHES),), sample_batches=sample_batches)


def pair_cases() -> Iterator[Case]:
    """Two identities with one gradient, at the compute of one and of two; where both send the same, without the overlap rule too."""
    yield Case(
        "pair-none", (dataclasses.replace(HONEST, batches=2),)
    )  # what the compute of two earns as one honest peer
    for sends, deal in (("same", False), ("dealt", True)):
        for compute, whole in (("half", False), ("whole", True)):
            own = strategists.pair((0, 1), whole=whole, deal=deal)
            yield Case(f"pair-{sends}-{compute}", own)
            if not deal:  # those who share no coefficient are not touched by the rule
                yield Case(f"pair-{sends}-{compute}-free", own, overlap_rule=False)


def loser_cases(rounds: int) -> Iterator[Case]:
    """A main identity with 0 to 4 that lose on purpose, everybody evaluated or 5 a round (there only with none and 4)."""
    for sample_size, ending in ((None, ""), (SAMPLE, f"-sample{SAMPLE}")):
        yield Case(f"lose-0{ending}", (HONEST,), sample_size=sample_size)
        for kind in _LOSERS if sample_size is None else _LOSERS_IF_SAMPLED:
            is_counted = kind == "sign_flip" and sample_size is None
            for m in range(1, _MOST_LOSERS + 1) if is_counted else (_MOST_LOSERS,):
                own = (HONEST, *[strategists.loser(kind, rounds=rounds)] * m)
                yield Case(f"lose-{m}-{kind}{ending}", own, sample_size=sample_size)


def all_cases(rounds: int) -> dict[str, Case]:
    """The runs of the whole study by name."""
    made: Iterable[Case] = chain(split_cases(), pair_cases(), loser_cases(rounds))
    return {case.name: dataclasses.replace(case, rounds=rounds) for case in made}
