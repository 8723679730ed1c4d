"""``gauntlet report RUN``: a run as one HTML page that needs nothing but itself.

The page holds its data as JSON and draws its charts with its own script: it asks no server for
anything, and its content security policy forbids it to. Headline, leaderboard and configuration are plain
HTML.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import markupsafe

from gauntlet_jax.cli import reasons, run_folder
from gauntlet_jax.cli.leaderboard import HONEST, NEUTRAL, standings
from gauntlet_jax.cli.run_folder import Run, UsageError
from gauntlet_jax.nodes.record import PeerRecord, RoundRecord
from gauntlet_jax.nodes.summary import validator_summary

POINTS = 24_000  # peers x rounds that a page shows at most: about 2 MB
ROUNDS = 400  # more rounds than that are finer than a pixel


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def run(arguments: Sequence[str]) -> int:
    """The command.

    Args:
      arguments: what follows ``gauntlet report``.

    Returns:
      0.

    Raises:
      UsageError: no run there, or the page cannot be written.
    """
    parser = _Parser(prog="gauntlet report", description="Writes a run as one self-contained HTML page.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run, finished or not")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to (default: report.html in RUN)")
    given = parser.parse_args(arguments)
    target = given.out if given.out is not None else given.run / run_folder.REPORT
    page = render(run_folder.read_run(given.run))
    try:
        run_folder.write_atomically(target, page)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {run_folder.one_line(error)}") from error
    print(target)
    return 0


def render(run: Run) -> str:
    """The page of a run.

    Args:
      run: as ``run_folder.read_run`` gives it; without a summary the page says that the run is unfinished.

    Returns:
      HTML. Whatever a peer named itself stands in it as text.
    """
    source = resources.files("gauntlet_jax.cli").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    last = run.records[-1]
    return environment.from_string(source).render(
        name=run.config["name"],
        seed=run.config["seed"],
        finished=run.summary is not None,
        rounds=len(run.records),
        digest=last.params_digest,
        tiles=_tiles(run),
        rows=_rows(run),
        seconds=_seconds(run.summary),
        validators=_validators(run),
        config=[(key, json.dumps(value)) for key, value in run_folder.flat(run.config).items()],
        data=_embedded(page_data(run)),
    )


def page_data(run: Run) -> dict[str, Any]:
    """What the page's script draws: a column a quantity, rounded to 4 digits, in at most ``POINTS`` rows.

    Of a run with more rounds than fit, every n-th is shown, with the payouts of the n rounds together.
    """
    names = [peer.name for peer in run.records[-1].peers]
    rule = reasons.pay_rule(run.config)
    limit = max(20, min(ROUNDS, POINTS // max(1, len(names))))
    step = math.ceil(len(run.records) / limit)
    groups = [run.records[start : start + step] for start in range(0, len(run.records), step)]
    shown = [group[-1] for group in groups]
    return {
        "rounds": [record.round for record in shown],
        "step": step,
        "gate": rule.proof if rule is not None else None,
        "extra": sorted({key for peer in shown[-1].peers for key in peer.scores} - {"assigned", "random"}),
        "loss": [_round(record.heldout_loss) for record in shown],
        "baseline": [_round(record.baseline_loss) for record in shown],
        "peers": [_columns(name, groups, run) for name in names],
    }


def _columns(name: str, groups: Sequence[Sequence[RoundRecord]], run: Run) -> dict[str, Any]:
    own = [[peer for record in group for peer in record.peers if peer.name == name] for group in groups]
    last: list[PeerRecord | None] = [peers[-1] if peers else None for peers in own]

    rule = reasons.pay_rule(run.config)
    extra = sorted({key for peer in last if peer is not None for key in peer.scores} - {"assigned", "random"})

    def column(read: Any) -> list[Any]:
        return [_round(read(peer)) if peer is not None else None for peer in last]

    refusals = [next((peer for peer in peers if peer.refusal is not None), None) for peers in own]
    return {
        "name": name,
        "behavior": (behavior := next(peer.behavior for peer in reversed(last) if peer is not None)),
        "kind": kind(behavior),
        "mu": column(lambda peer: peer.rating_mu),
        "sigma": column(lambda peer: peer.rating_sigma),
        "rating": column(lambda peer: peer.loss_rating),
        "proof": column(lambda peer: peer.proof_of_computation),
        "gated": column(lambda peer: peer.proof_of_computation if rule is None else rule.corrected(peer)),
        "extra": {key: column(lambda peer, key=key: peer.scores.get(key)) for key in extra},
        "sync": column(lambda peer: peer.sync_score),
        "standing": column(lambda peer: peer.standing),
        "score": column(lambda peer: peer.peer_score),
        "incentive": column(lambda peer: peer.incentive),
        "assigned": column(lambda peer: peer.scores.get("assigned")),
        "random": column(lambda peer: peer.scores.get("random")),
        "rank": column(lambda peer: None if peer.rank is None else peer.rank + 1),
        "payable": column(lambda peer: int(peer.payable)),
        "payout": [sum(peer.payout for peer in peers) for peers in own],
        "aggregated": [sum(peer.aggregated for peer in peers) for peers in own],
        "refusal": [peer.refusal if peer is not None else None for peer in refusals],
        "slashed": [sorted({reason for peer in peers for reason in peer.slashed}) for peers in own],
        "detail": {at: peer.detail for at, peer in enumerate(refusals) if peer is not None and peer.detail},
        "verdict": reasons.verdict(run.records, name, run.config),
        "events": [[event.when, event.what] for event in reasons.timeline(run.records, name)],
    }


def _validators(run: Run) -> list[dict[str, str]]:
    """A row a validator, best paid first, as text."""
    rows = [validator_summary(one.name, run.records) for one in run.records[-1].validators]
    stakes = sum(row["stake"] for row in rows)
    return [
        {
            "name": row["name"],
            "behavior": row["behavior"],
            "stake": f"{row['stake']:g}",
            "trust": f"{row['trust']:.2f}",
            "dividends": f"{row['dividends']:.1%}",
            "per_stake": f"{row['dividends'] * stakes / row['stake']:.2f}",
            "vetoed": f"{row['vetoed']} rounds" if row["vetoed"] else "",
        }
        for row in sorted(rows, key=lambda row: -row["payout"])
    ]


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """The headline: (what, value, a few words beside it)."""
    heldout = [record.heldout_loss for record in run.records if record.heldout_loss is not None]
    baseline = [record.baseline_loss for record in run.records if record.baseline_loss is not None]
    payouts = [(peer.behavior, peer.payout) for record in run.records for peer in record.peers]
    paid, summary = sum(payout for _, payout in payouts), run.summary
    tiles = []
    if heldout:
        beside = "nats per token"
        if baseline:
            beside = f"baseline {baseline[-1]:.3f} ({heldout[-1] - baseline[-1]:+.3f})"
        tiles.append(("Held-out loss", f"{heldout[-1]:.3f}", beside))
    if paid and all(kind(behavior) == "unknown" for behavior, _ in payouts):
        tiles.append(("Paid to peers", f"{paid:,}", "units"))
    elif paid:
        cheats = sum(payout for behavior, payout in payouts if kind(behavior) == "cheat")
        tiles.append(("Paid to cheats", f"{cheats / paid:.2%}", f"{paid:,} units to all peers"))
    emission, reserve = (
        sum(record.emission for record in run.records),
        sum(record.reserve for record in run.records),
    )
    if emission:
        tiles.append(("To the reserve", f"{reserve / emission:.1%}", f"of {emission:,} units given out"))
    if summary is not None:
        tiles += _known_tiles(summary, len(run.records))
    return tiles


def _known_tiles(summary: Mapping[str, Any], rounds: int) -> Iterator[tuple[str, str, str]]:
    """Of a summary: whoever followed a run from outside does not know all of it."""
    sent = summary["bytes"]
    if sent["compression"] is not None:
        beside = f"{_bytes(sent['per_peer_round'])} a peer a round, {sent['bits_per_value']:.1f} bits a value"
        yield "Compression", f"{sent['compression']:.0f}x", beside
    if summary["parameters"] is not None:
        yield "Parameters", _count(summary["parameters"]), f"{rounds} rounds"
    if summary["wall_seconds"] is not None:
        beside = "compilation included" if summary["seconds"] else "from the first round to the last record"
        yield "Wall time", _duration(summary["wall_seconds"]), beside


def _rows(run: Run) -> list[dict[str, Any]]:
    """The leaderboard, best first."""
    order = [peer.name for peer in run.records[-1].peers]
    refusals: dict[str, dict[str, int]] = {}
    for record in run.records:
        for peer in record.peers:
            if peer.refusal is not None:
                counts = refusals.setdefault(peer.name, {})
                counts[peer.refusal] = counts.get(peer.refusal, 0) + 1
    return [
        {
            "index": order.index(row.last.name) if row.last.name in order else 0,
            "name": row.last.name,
            "behavior": row.last.behavior.replace("_", " "),
            "kind": kind(row.last.behavior),
            "rating": f"{row.last.rating_mu:.1f} ± {row.last.rating_sigma:.1f}",
            "proof": f"{row.last.proof_of_computation:+.2f}",
            "standing": f"{row.last.standing:.2f}",
            "score": f"{row.last.peer_score:.2f}",
            "share": f"{row.share:.1%}",
            "width": f"{100 * row.share:.2f}",
            "aggregated": row.aggregated,
            "refusals": ", ".join(
                f"{reason.replace('_', ' ')} x{n}" for reason, n in refusals.get(row.last.name, {}).items()
            ),
        }
        for row in standings(run.records)
    ]


def kind(behavior: str) -> str:
    """How a behavior is drawn: "honest", "cheat", or "unknown" (the field's, and a config's own)."""
    return "honest" if behavior in HONEST else "unknown" if behavior in NEUTRAL else "cheat"


def _seconds(summary: Mapping[str, Any] | None) -> list[dict[str, str]]:
    if summary is None:
        return []
    spent = {key: float(value) for key, value in summary["seconds"].items()}
    total = sum(spent.values())
    if total <= 0:
        return []
    return [
        {
            "name": key,
            "seconds": f"{value:.1f} s",
            "share": f"{value / total:.0%}",
            "width": f"{100 * value / total:.2f}",
        }
        for key, value in spent.items()
    ]


def _embedded(data: Mapping[str, Any]) -> markupsafe.Markup:
    """JSON that no string in it can break out of: ``<``, ``>`` and ``&`` stand as escapes of JSON itself."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return markupsafe.Markup(text)


def _round(value: float | None) -> float | int | None:
    return value if value is None or isinstance(value, int) else float(f"{value:.4g}")


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _count(number: float) -> str:
    for unit in ("", "K", "M"):
        if number < 1000:
            return f"{number:.4g}{unit}"
        number /= 1000
    return f"{number:.4g}B"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
