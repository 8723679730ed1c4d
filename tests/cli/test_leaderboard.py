import dataclasses
import io

import pytest
import synthetic_run
from rich.console import Console

from gauntlet_jax.cli import leaderboard

MADE = synthetic_run.records()


def renamed(records, old, new):
    return [
        dataclasses.replace(
            record,
            peers=tuple(dataclasses.replace(p, name=new) if p.name == old else p for p in record.peers),
        )
        for record in records
    ]


def test_standings_add_up_and_are_in_order():
    rows = leaderboard.standings(MADE)
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    assert [row.payout for row in rows] == sorted((row.payout for row in rows), reverse=True)
    by_name = {row.last.name: row for row in rows}
    assert by_name["lars"].refusal == "late (x60)"
    assert by_name["ada"].payout == sum(p.payout for r in MADE for p in r.peers if p.name == "ada")
    assert by_name["ada"].aggregated == sum(p.aggregated for r in MADE for p in r.peers if p.name == "ada")


def test_the_plain_table_fits_110_columns_in_ascii():
    lines = leaderboard.plain_table(MADE).splitlines()
    assert len(lines) == 2 + 12
    assert max(map(len, lines)) <= 110
    assert all(line.isascii() for line in lines)


def test_nothing_paid_yet_divides_by_nothing():
    assert all(row.share == 0 for row in leaderboard.standings(MADE[:1]))


def test_a_peers_name_is_neither_control_nor_markup():
    hostile = renamed(MADE[:20], "gwen", "\x1b[31m[red]x\n")
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=110, color_system=None)
    console.print(leaderboard.live_table(hostile))
    assert "?[31m[red]x?" in stream.getvalue()
    assert "?[31m[red]x?" in leaderboard.plain_table(hostile)


def test_plain_lines_have_no_control_characters():
    stream = io.StringIO()
    now = iter(range(1000))
    with leaderboard.Display(
        Console(file=stream, width=40), 60, 0, clock=lambda: float(next(now))
    ) as display:
        for done in range(1, 61):
            display.update(MADE[:done])
    lines = stream.getvalue().splitlines()
    assert len(lines) == 12
    assert all(line.isprintable() and line.isascii() for line in lines)
    assert lines[0].startswith("round 5/60  loss ")
    assert "ETA 11 s" in lines[0]  # the first line: 1 s for 5 rounds, 55 to go
    assert "baseline" in lines[0]


def test_the_live_display_shows_the_leaderboard():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120)
    with leaderboard.Display(console, 60, 0) as display:
        display.update(MADE[:30])
    assert "fola" in stream.getvalue()
    assert "30/60" in stream.getvalue()


def test_losses_that_were_not_measured_are_left_out():
    bare = [dataclasses.replace(record, baseline_loss=None) for record in MADE[:3]]
    assert leaderboard.losses(bare) == [f"loss {bare[-1].heldout_loss:.3f}"]
    assert leaderboard.losses([dataclasses.replace(bare[0], heldout_loss=None)]) == []


def test_behaviors_that_nobody_declares_take_no_column():
    made = synthetic_run.records(rounds=2)
    unknown = [
        dataclasses.replace(
            record, peers=tuple(dataclasses.replace(peer, behavior="unknown") for peer in record.peers)
        )
        for record in made
    ]
    assert "behavior" in leaderboard.plain_table(made)
    plain = leaderboard.plain_table(unknown)
    assert "behavior" not in plain and "unknown" not in plain
    # The name has the room: every other column stays where it was.
    for before, after in zip(leaderboard.plain_table(made).splitlines(), plain.splitlines(), strict=True):
        assert after[29:] == before[29:]
    assert len(leaderboard.live_table(made).columns) == len(leaderboard.live_table(unknown).columns) + 1


def test_before_the_first_round_there_is_no_table_and_no_line():
    for terminal in (False, True):
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=110, _environ={})
        with leaderboard.Display(console, 12, 0) as display:
            display.update([])
            display.note("the run waits for ada")
        assert "LossRating" not in out.getvalue()
        assert ("the run waits for ada" in out.getvalue()) == terminal
