import hashlib

import pytest

from gauntlet_jax.nodes.beacon import SeededBeacon, derive, derive_int
from gauntlet_jax.nodes.clock import ManualClock, RoundTimes


def test_the_clock_never_goes_back():
    clock = ManualClock()
    clock.move_to(3.0)
    clock.move_to(3.0)
    with pytest.raises(ValueError, match=r"at 3\.0 s and cannot go back to 2\.5 s"):
        clock.move_to(2.5)
    assert clock() == clock.time == 3.0


def test_a_window_is_counted_from_its_round():
    times = RoundTimes(seconds=10.0, opens=2.0, closes=9.0, commit_closes=1.5)
    assert times.window(0.0) == (2.0, 9.0)
    assert times.window(70.0) == (72.0, 79.0)
    assert times.commit_window(70.0) == (70.0, 71.5)


@pytest.mark.parametrize(
    ("seconds", "opens", "closes"),
    [(60, -1, 50), (60, 50, 50), (60, 50, 30), (60, 30, 60), (60, 30, 70), (0, 0, 0), (60, float("nan"), 50)],
)
def test_a_round_that_cannot_be_cut_up_is_refused(seconds: float, opens: float, closes: float):
    with pytest.raises(ValueError, match=r"round times: 0 <= opens .* < closes .* < seconds"):
        RoundTimes(seconds=seconds, opens=opens, closes=closes)


def test_parts_are_framed():
    different = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("abc", ""),
        ("", "abc"),
        (1, 2),
        (12,),
        ("1", "2"),
        (1, "2"),
        (),
    ]
    assert len({derive(b"beacon", *parts) for parts in different}) == len(different)
    assert derive(b"beacon", "a") != derive(b"other", "a")


def test_derive_is_the_documented_hash():
    # By hand: sha256(beacon | 8 bytes of length | "str:ab" | 8 bytes of length | "int:-1").
    text = b"beacon" + (6).to_bytes(8, "little") + b"str:ab" + (6).to_bytes(8, "little") + b"int:-1"
    assert derive(b"beacon", "ab", -1) == hashlib.sha256(text).digest()


def test_an_integer_is_the_low_bits():
    whole = int.from_bytes(derive(b"beacon", 3), "little")
    assert derive_int(b"beacon", 3, bits=256) == whole
    assert derive_int(b"beacon", 3) == whole % 2**32
    assert derive_int(b"beacon", 3, bits=1) == whole % 2


def test_beacons_differ_by_seed_round_and_phase():
    drawn = [
        getattr(SeededBeacon(seed), phase)(round)
        for seed in (0, 1, 10)
        for round in (0, 1, 10)
        for phase in ("opening", "closing")
    ]
    assert len(set(drawn)) == len(drawn)
    assert all(len(beacon) == 32 for beacon in drawn)
    assert SeededBeacon(1).opening(2) == SeededBeacon(1).opening(2)


@pytest.mark.parametrize(("opens", "closes"), [(-1, 30), (30, 30), (0, 31), (20, 10)])
def test_commits_come_before_what_they_commit_to(opens: float, closes: float):
    with pytest.raises(ValueError, match=r"commit_opens .* < commit_closes .* <= opens"):
        RoundTimes(commit_opens=opens, commit_closes=closes)
