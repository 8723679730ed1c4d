"""The hosts of one node, here as threads that gather what each says: the real ones do it over their devices (tests/soak)."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gauntlet_jax.nodes.hosts import AgreedStop, SeveralHosts, SoleHost, ToldLedger
from gauntlet_jax.rewards.ledger import (
    Epoch,
    LedgerRefused,
    LedgerUnreachable,
    NotYetKnown,
    Posting,
    Registration,
    RunStatus,
)

HOSTS = 3


class ThreadHosts(SeveralHosts):
    """One of some threads."""

    def __init__(self, number: int, barrier: threading.Barrier, said: dict[int, bytes]):
        self.leads = number == 0
        self._number, self._barrier, self._said = number, barrier, said

    def _gather(self, mine: bytes) -> list[bytes]:
        self._said[self._number] = mine
        self._barrier.wait(timeout=10)
        rows = [self._said[number] for number in range(HOSTS)]
        self._barrier.wait(timeout=10)
        return rows


def on_all(act) -> list[Any]:
    """What ``act(hosts, number)`` comes to on each host: a value, or the error that it raised."""
    barrier, said = threading.Barrier(HOSTS), {}

    def one(number: int) -> Any:
        try:
            return act(ThreadHosts(number, barrier, said), number)
        except Exception as error:  # compared below
            return error

    with ThreadPoolExecutor(HOSTS) as pool:
        return list(pool.map(one, range(HOSTS)))


STATUS = RunStatus(5.0, 3, 1.5, Posting(3, "V1", "ab" * 32, 4.0, 1.5, None), ("V2",), (), 4.5)
ANSWERS = {
    "now": 7.25,
    "status": STATUS,
    "registrations": [Registration("P1", "memory://p1", 0.0, "00" * 32, 0), Registration("V1", "m", 1.0)],
    "record": None,
    "beacon": bytes(range(32)),
    "balances": {"P1": 5, "reserve": 2**62},
    "history": {0: 3, 7: 4},
    "epoch": Epoch(
        1, {"P1": 0.5}, {"P1": 1.0}, {"V1": 1.0}, {"V1": 1.0}, {"V1": {"P1": 65535}}, {"P1": 9}, 1, 0
    ),
    "weights": {"V1": {"P1": 0.25}},
}


class OneLedger:
    """Answers, and counts who asks."""

    def __init__(self):
        self.asked = 0

    def __getattr__(self, name):
        def answer(*arguments, **named):
            self.asked += 1
            return ANSWERS[name]

        return answer


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_of_a_ledger_reaches_all_hosts_as_it_was(name):
    ledger = OneLedger()
    found = on_all(lambda hosts, number: getattr(ToldLedger(ledger, hosts), name)())
    assert found == [ANSWERS[name]] * HOSTS
    assert all(type(one) is type(ANSWERS[name]) for one in found)
    assert ledger.asked == 1


@pytest.mark.parametrize(
    "error",
    [
        LedgerRefused("no"),
        NotYetKnown("early"),
        LedgerUnreachable("away"),
        FileNotFoundError("gone"),
        ValueError("x"),
    ],
)
def test_an_error_of_the_leading_host_is_everybodys(error):
    def act(hosts, number):
        def ask():
            raise error

        return hosts.told(ask, int)

    found = on_all(act)
    assert [(type(one), str(one)) for one in found] == [(type(error), str(error))] * HOSTS


@pytest.mark.parametrize("failing", range(HOSTS))
def test_what_fails_on_one_host_fails_on_all(failing):
    def act(hosts, number):
        def write():
            if number == failing:
                raise PermissionError("the bucket does not let this host write")
            return number

        return hosts.together(write)

    assert on_all(lambda hosts, number: hosts.together(lambda: number)) == [0, 1, 2]
    for error in on_all(act):
        assert type(error) is OSError and "does not let this host write" in str(error)


def test_entries_and_wishes_of_all_hosts():
    assert (
        on_all(lambda hosts, number: hosts.merged({f"part {number}": "x"}))
        == [{"part 0": "x", "part 1": "x", "part 2": "x"}] * HOSTS
    )
    assert on_all(lambda hosts, number: hosts.any(number == 2)) == [True] * HOSTS
    assert on_all(lambda hosts, number: hosts.any(False)) == [False] * HOSTS


def test_a_wish_to_stop_is_seen_by_all_at_the_same_turn():
    def act(hosts, number):
        wish = threading.Event()
        stop, seen = AgreedStop(wish, hosts), []
        for turn in range(3):
            if turn == 1 and number == 1:
                wish.set()
            seen.append(stop.is_set())
            stop.wait(0.0)
        return seen

    assert on_all(act) == [[False, True, True]] * HOSTS


def test_a_sole_host_is_told_what_it_finds():
    hosts = SoleHost()
    assert hosts.told(lambda: STATUS, int) is STATUS and hosts.together(lambda: 3) == 3
    assert hosts.any(True) and not hosts.any(False) and hosts.merged({"a": "b"}) == {"a": "b"}
