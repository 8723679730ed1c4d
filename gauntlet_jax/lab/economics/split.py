"""Does it pay to split one peer's compute over several identities?"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from gauntlet_jax.lab.economics import costs
from gauntlet_jax.lab.economics.cases import FEW_AGGREGATED, HONEST_PEERS, TOTAL_BATCHES, WIDE
from gauntlet_jax.lab.economics.replay import PayRule, Settings
from gauntlet_jax.lab.economics.shares import PAID, own_shares
from gauntlet_jax.lab.findings import Dots, Findings
from gauntlet_jax.lab.recorded import Recorded
from gauntlet_jax.lab.statistics import paired_interval, t_interval, verdict
from gauntlet_jax.lab.tables import Cell, Table

POWERS = (1.0, 1.5, 2.0, 3.0)
TOPS = (1, 2, 4)
MENDS: Mapping[str, PayRule] = {
    "as run": PayRule(),
    "gate .2": PayRule(proof_gate=0.2),
    "gate .05": PayRule(proof_gate=0.05),
    "gate .2, beta 20": PayRule(proof_gate=0.2, rating_beta=20.0),
    "gate .2, power 4": PayRule(proof_gate=0.2, power=4.0),
    "gate .2, x data": PayRule(proof_gate=0.2, data_power=1.0),
    "gate .2, x data, power 1": PayRule(proof_gate=0.2, data_power=1.0, power=1.0),
}
"""Rules under which splitting is looked at again, by the name in the table."""
_WIDE_RULES = {
    "gate .5": "as run",
    "gate .2": "gate .2",
}  # the same where more data is checked, by their column

_ONE = 100.0 / (TOTAL_BATCHES + HONEST_PEERS)  # of all payouts, in percent, were every batch paid alike
_KS = range(1, TOTAL_BATCHES + 1)
_WORDS = ("pays", "costs", "undecided")


def study(runs: Callable[[str], Sequence[Recorded]], settings: Settings) -> Findings:
    """The tables of the study.

    Args:
      runs: a case's runs by seed.
      settings: what they were judged with.
    """
    by_k, wide_by_k = ([runs(f"split-{k}{ending}") for k in _KS] for ending in ("", "-wide"))

    def at(rule: PayRule, seen: list[Sequence[Recorded]] = by_k) -> list[list[float]]:
        return [own_shares(of_k, rule, settings) for of_k in seen]

    powers = {power: at(PayRule(power=power)) for power in POWERS}
    mended = {name: at(rule) for name, rule in MENDS.items()}
    wide = {name: at(MENDS[rule], wide_by_k) for name, rule in _WIDE_RULES.items()}
    tables = (
        _by_power(powers),
        _gains(
            "What splitting gains over one identity under other top and power, percentage points of the payouts",
            {
                "top none": powers[2.0],
                **{f"top {top}": at(PayRule(top=top)) for top in TOPS},
            },
        ),
        _gains(
            "What splitting gains over one identity under each mend, percentage points of the payouts", mended
        ),
        _by_mend(mended),
        _wide(wide),
        costs.table(
            {**mended, **{f"data x{WIDE}, {name}": shares for name, shares in wide.items()}}, one=_ONE
        ),
        _aggregated(runs, settings),
        _boast(runs, settings),
    )
    series = {f"power {power:g}": tuple(map(t_interval, powers[power])) for power in (1.0, 2.0, 3.0)}
    series["gate .2, x data"] = tuple(map(t_interval, mended["gate .2, x data"]))
    series[f"data checked x{WIDE}, gate .2"] = tuple(map(t_interval, wide["gate .2"]))
    panel = Dots(
        f"{TOTAL_BATCHES} batches as k identities",
        PAID,
        tuple(map(str, _KS)),
        series,
        {"by compute": TOTAL_BATCHES * _ONE},
    )
    return Findings((), tables, (panel,))


def _by_power(powers: Mapping[float, list[list[float]]]) -> Table:
    rows = []
    for i, k in enumerate(_KS):
        total = t_interval(powers[2.0][i])
        honest = (100.0 - total.mean) / HONEST_PEERS
        per_batch = total.mean / TOTAL_BATCHES / honest if honest > 0 else float("inf")
        cells = [t_interval(values[i]) for values in powers.values()]
        rows.append((str(k), *cells, f"{per_batch:.1f}x"))
    return Table(
        f"Split: the share of {TOTAL_BATCHES} batches a round as k identities, beside {HONEST_PEERS} honest"
        " peers with one batch each, % of the payouts",
        ("k", *(f"power {power:g}" for power in powers), "a batch's pay (power 2)"),
        tuple(rows),
        f"By compute it would be {TOTAL_BATCHES * _ONE:.1f} %. The last column is against a batch of an honest peer.",
    )


def _gains(title: str, shares: Mapping[str, list[list[float]]]) -> Table:
    """Paired differences to k = 1."""
    differences = {
        name: [paired_interval(values, by_k[0]) for values in by_k[1:]] for name, by_k in shares.items()
    }
    rows: list[tuple[Cell, ...]] = [
        (str(k), *(column[i] for column in differences.values())) for i, k in enumerate(_KS[1:])
    ]
    said = []
    for name, column in differences.items():
        found = {
            word: [k for k, gain in zip(_KS[1:], column, strict=True) if verdict(gain) == word]
            for word in _WORDS
        }
        told = [f"{word} at k = {', '.join(map(str, ks))}" for word, ks in found.items() if ks]
        said.append(f"{name}: {'; '.join(told)}")
    return Table(
        title,
        ("k", *differences),
        tuple(rows),
        "\n".join(said),
    )


def _by_mend(shares: Mapping[str, list[list[float]]]) -> Table:
    rows = [(str(k), *(t_interval(by_k[i]) for by_k in shares.values())) for i, k in enumerate(_KS)]
    return Table("Split: the same share under each mend, % of the payouts", ("k", *shares), tuple(rows))


def _wide(shares: Mapping[str, list[list[float]]]) -> Table:
    """Share and gain by k where more data is checked."""
    gains = {name: [paired_interval(values, by_k[0]) for values in by_k] for name, by_k in shares.items()}
    rows: list[tuple[Cell, ...]] = []
    for i, k in enumerate(_KS):
        cells: list[Cell] = []
        for name, by_k in shares.items():
            cells += [
                t_interval(by_k[i]),
                gains[name][i] if i else "-",
                verdict(gains[name][i]) if i else "-",
            ]
        rows.append((str(k), *cells))
    ends = ", ".join(f"{costs.ending(by_k, one=_ONE):.2f} ({name})" for name, by_k in shares.items())
    return Table(
        f"Split, with four times the data checked (validator.sample_batches = {WIDE}): share in % of the payouts,"
        " gain over k = 1 in points",
        ("k", *chain.from_iterable((name, "gain", "splitting") for name in shares)),
        tuple(rows),
        f"A registration that costs this part of one batch's fair pay leaves no k a gain: {ends}.",
    )


def _aggregated(runs: Callable[[str], Sequence[Recorded]], settings: Settings) -> Table:
    rows = []
    for k in (1, 2, TOTAL_BATCHES):
        few = own_shares(runs(f"split-{k}-top{FEW_AGGREGATED}"), PayRule(), settings)
        all_of_them = own_shares(runs(f"split-{k}"), PayRule(), settings)
        rows.append((str(k), t_interval(all_of_them), t_interval(few), paired_interval(few, all_of_them)))
    return Table(
        "Split: what the number aggregated (validator.top_g) changes, % of the payouts",
        ("k", f"G = {HONEST_PEERS + 1}", f"G = {FEW_AGGREGATED}", "difference"),
        tuple(rows),
        "G decides whose pseudo-gradients make the update; who is paid, it decides only through the model.",
    )


def _boast(runs: Callable[[str], Sequence[Recorded]], settings: Settings) -> Table:
    fair = 100.0 / (1 + HONEST_PEERS)
    rows = []
    for name, rule in MENDS.items():
        cells: list[Cell] = []
        for ending in ("", "-wide"):
            values = own_shares(runs(f"boast{ending}"), rule, settings)
            cells += [t_interval(values), verdict(paired_interval(values, [fair] * len(values)))]
        rows.append((name, *cells))
    return Table(
        f"Boast: a peer that declares {TOTAL_BATCHES} batches and trains on one, % of the payouts",
        ("rule", "share", "against honesty", f"data checked x{WIDE}", "against honesty"),
        tuple(rows),
        f"An honest peer with one batch would have {fair:.1f} %.",
    )
