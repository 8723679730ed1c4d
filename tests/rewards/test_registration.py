"""Units and slots of a shared run: what a stranger pays, who makes room, and that no unit comes from nowhere."""

import random

import pytest

from gauntlet_jax.rewards.ledger import REMAINDER, RESERVE, LedgerRefused
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.rewards.weight_commit import weights_digest

SALT = bytes(32)
NAMES = ("ada", "bob", "V1", "V2", "V3")


class Run:
    """A run of three slots, of which ada and bob have two; the first put window is open."""

    def __init__(self, terms, *, cost=7, immunity_rounds=2, grants=None, slots=3):
        self.time = 990.0
        self.rules = {"cost": cost, "immunity_rounds": immunity_rounds, "grants": grants or {}}
        self.ledger = SharedRunLedger(":memory:", lambda: self.time)
        self.ledger.found(
            {**terms, "slots": slots, "registration": self.rules}, anchor=None, start_delay=None
        )
        self.ledger.begin(None)
        for name in NAMES:
            self.register(name)
        self.move_to(993.0)

    def register(self, name, key=None):
        register = self.ledger.register_validator if name[0] == "V" else self.ledger.register_peer
        return register(name, key or key_of(name), f"memory://{name}")

    def move_to(self, time):
        while self.time < time:
            self.time = min(time, self.time + 0.5)
            self.ledger.settle()

    def play(self, **weights):
        """A round in which all validators agree on weights, until the next one has begun."""
        round, start = self.ledger.status()[1:3]
        self.move_to(start + 8.0)
        for name in ("V1", "V2", "V3"):
            self.ledger.commit_weights(name, round, weights_digest(round, name, weights, SALT))
        self.move_to(start + 9.0)
        for name in ("V1", "V2", "V3"):
            self.ledger.reveal_weights(name, round, weights, SALT)
        self.ledger.post_record("V1", round, f"{round:064x}")
        self.move_to(start + 12.0)
        assert self.ledger.status().round == round + 1

    def peers(self, round):
        found = [entry for entry in self.ledger.registrations(round) if entry.slot is not None]
        return {entry.name: entry.slot for entry in found}

    def emitted(self):
        rounds = self.ledger.status().round
        assert rounds is not None
        return 100 * sum(self.ledger.epoch(round) is not None for round in range(rounds + 1))


def key_of(name):
    return name.encode().hex().ljust(64, "0")


@pytest.fixture
def run(shared):
    made = []

    def make(**rules):
        made.append(Run(shared.terms, **rules))
        return made[-1]

    yield make
    for each in made:
        assert sum(each.ledger.balances().values()) == each.emitted() + sum(each.rules["grants"].values())
        assert each.ledger.verify() > 0
        each.ledger.close()


def test_a_stranger_pays_from_the_account_of_its_key(run):
    r = run(grants={key_of("eve"): 10, "ada": 1})
    before = r.ledger.balances()
    assert before == {**dict.fromkeys(NAMES, 0), "ada": 1, RESERVE: 0, REMAINDER: 0, key_of("eve"): 10}
    found = r.register("eve")
    assert (found.slot, found.from_round, found.until_round) == (2, 1, None)
    assert r.ledger.balances() == {**before, key_of("eve"): 3, RESERVE: 7, "eve": 0}
    head = r.ledger.head()
    assert r.register("eve") == found
    assert r.ledger.head() == head, "a repeated call costs nothing"


def test_who_has_less_than_the_cost_is_refused_and_keeps_it(run):
    r = run(grants={key_of("eve"): 6})
    head = r.ledger.head()
    for name, held in (("eve", 6), ("fay", 0)):
        with pytest.raises(LedgerRefused, match=f"costs 7 units: the account .* has {held} units, 7 are"):
            r.register(name)
    assert r.ledger.head() == head
    assert r.ledger.key_of("eve") is None, "not even the name is taken"


def test_free_slots_are_free_where_they_cost_nothing(run):
    r = run(cost=0)
    assert r.register("eve").slot == 2
    assert RESERVE in r.ledger.balances()
    assert r.ledger._chain.entries("fee") == []


def test_units_are_given_on_and_a_receipt_serves_once(run):
    r = run(grants={"ada": 20})
    give = r.ledger.transfer
    give("ada", key_of("eve"), 12, "0" * 32)
    head = r.ledger.head()
    give("ada", key_of("eve"), 12, "0" * 32)
    assert r.ledger.head() == head
    give("ada", key_of("eve"), 1, "1" * 32)
    give(key_of("eve"), "V2", 2, "0" * 32)
    balances = r.ledger.balances()
    assert (balances["ada"], balances[key_of("eve")], balances["V2"]) == (7, 11, 2)
    r.register("eve")
    assert r.ledger.balances()[key_of("eve")] == 4


@pytest.mark.parametrize(
    ("sender", "to", "units", "receipt", "match"),
    [
        ("ada", "bob", 21, "2" * 32, "has 20 units, 21 are needed"),
        ("ada", "bob", 0, "2" * 32, "at least 1 unit"),
        ("ada", "bob", -1, "2" * 32, "whole numbers"),
        ("ada", "bob", 1.0, "2" * 32, "whole numbers"),
        ("ada", "bob", True, "2" * 32, "whole numbers"),
        ("ada", "bob", 2**63, "2" * 32, "whole numbers"),
        ("ada", "ada", 1, "2" * 32, "another account"),
        ("ada", "eve", 1, "2" * 32, "an account is"),
        ("ada", RESERVE, 1, "2" * 32, "an account is"),
        ("ada", REMAINDER, 1, "2" * 32, "an account is"),
        (RESERVE, "ada", 1, "2" * 32, "an account is"),
        ("ada", key_of("eve").upper().replace("0", "F"), 1, "2" * 32, "an account is"),
        ("eve", "ada", 1, "2" * 32, "an account is"),
        (key_of("eve"), "ada", 1, "2" * 32, "has 0 units"),
        ("ada", "bob", 1, "1" * 32, "already says something else"),
        ("ada", "bob", 1, "x" * 32, "a receipt of 32"),
        ("ada", "bob", 1, "", "a receipt of 32"),
    ],
)
def test_a_transfer_that_cannot_be_is_refused(run, sender, to, units, receipt, match):
    r = run(grants={"ada": 22})
    r.ledger.transfer("ada", "bob", 2, "1" * 32)
    head = r.ledger.head()
    with pytest.raises(LedgerRefused, match=match):
        r.ledger.transfer(sender, to, units, receipt)
    assert r.ledger.head() == head


@pytest.mark.parametrize(
    ("grants", "match"),
    [
        ({"eve": 1}, "'eve' is neither"),
        ({RESERVE: 1}, "is neither"),
        ({"ada": -1}, "whole numbers"),
        ({"ada": 1.5}, "whole numbers"),
        ({"ada": 2**63}, "stay below 2"),
        ({"ada": 2**63 - 50 * 100}, "stay below 2"),
    ],
)
def test_grants_that_cannot_be_found_no_run(shared, grants, match):
    ledger = SharedRunLedger(":memory:", lambda: 990.0)
    rules = {"cost": 0, "immunity_rounds": 1, "grants": grants}
    with pytest.raises(ValueError, match=match):
        ledger.found({**shared.terms, "registration": rules}, anchor=None, start_delay=0.0)
    assert not ledger.is_founded
    ledger.close()


def test_the_least_paid_peer_past_its_immunity_makes_room(run):
    r = run(immunity_rounds=3, grants={key_of(name): 14 for name in ("eve", "fay", "gil")})
    r.play(ada=3.0, bob=1.0)
    r.register("eve")  # from round 2 on, so it keeps its slot in rounds 2, 3 and 4
    with pytest.raises(LedgerRefused, match=r"all 3 slots .* for round 3 or later"):
        r.register("fay")
    r.play(ada=3.0, bob=1.0)
    # Round 2 goes on. eve has nothing, but is immune; bob earned least of the others.
    fay = r.register("fay")
    assert (fay.slot, fay.from_round) == (1, 3)
    assert {entry.name for entry in r.ledger.registrations(None)} == {*NAMES, "eve", "fay"} - {"bob"}
    assert r.peers(2) == {"ada": 0, "bob": 1, "eve": 2}
    left = next(entry for entry in r.ledger.registrations(2) if entry.name == "bob")
    assert left.until_round == 3
    # Now ada alone is past its immunity.
    assert r.register("gil").slot == 0
    with pytest.raises(LedgerRefused, match="for round 5 or later"):
        r.register("bob")
    r.play(ada=1.0, bob=1.0, eve=2.0)
    epoch = r.ledger.epoch(2)
    assert epoch is not None
    assert epoch.payouts["bob"] > 0, "it took part in its last round"
    # Weights on who is no peer of the round do not count.
    r.play(bob=5.0, eve=1.0, fay=1.0)
    epoch = r.ledger.epoch(3)
    assert epoch is not None
    assert {*epoch.consensus} == {"eve", "fay", "gil", RESERVE}
    assert "bob" not in epoch.payouts
    assert [r.peers(round) for round in range(5)] == [
        {"ada": 0, "bob": 1},
        {"ada": 0, "bob": 1},
        {"ada": 0, "bob": 1, "eve": 2},
        {"gil": 0, "fay": 1, "eve": 2},
        {"gil": 0, "fay": 1, "eve": 2},
    ]
    assert r.ledger.balances()["bob"] > 0, "the name keeps what it earned"
    assert sorted(r.ledger.history("bob")) == [0, 1, 2]


def test_a_peer_that_lost_its_slot_comes_back_for_the_price_of_any_other(run):
    r = run(immunity_rounds=1, grants={key_of("eve"): 7, key_of("fay"): 7})
    r.register("eve")
    r.play(bob=1.0)
    r.play(bob=1.0, eve=1.0)
    assert r.register("fay").slot == 0  # ada made room
    with pytest.raises(LedgerRefused, match="costs 7"):
        r.register("ada")
    r.ledger.transfer("bob", key_of("ada"), 7, "3" * 32)
    back = r.register("ada")
    # bob and eve earned the same: bob has been there longer.
    assert (back.slot, back.from_round, back.until_round) == (1, 3, None)
    assert r.ledger.balances()[key_of("ada")] == 0
    r.play(ada=1.0, bob=1.0)
    # In round 2 as it was, in round 3 in its new place, to everybody who asks and whenever.
    assert (r.peers(2)["ada"], r.peers(3)["ada"]) == (0, 1)
    assert r.peers(3) == {"fay": 0, "ada": 1, "eve": 2}
    with pytest.raises(LedgerRefused, match="another key"):
        r.register("bob", key_of("fay"))


def test_nobody_is_judged_by_an_epoch_that_it_took_no_part_in(run):
    r = run(cost=0, immunity_rounds=0)
    r.register("eve")
    r.play(ada=1.0, bob=1.0)
    # Round 1, of which there is no epoch yet: eve is no candidate, though it has earned nothing; bob is younger than ada.
    assert r.register("fay").slot == 0
    r.play(bob=1.0)
    assert r.register("gil").slot == 2, "eve took part in round 1 and earned nothing"
    r.play(bob=1.0)


def test_slots_that_are_kept_for_others_are_none(shared):
    ledger = SharedRunLedger(":memory:", lambda: 990.0)
    ledger.found({**shared.terms, "slots": 2}, anchor=None, start_delay=None)
    ledger.begin(None)
    with pytest.raises(LedgerRefused, match="kept for the peers"):
        ledger.register_peer("eve", key_of("eve"), "memory://eve")
    ledger.register_peer("ada", key_of("ada"), "memory://ada")
    with pytest.raises(LedgerRefused, match="for round 20 or later"):
        ledger.register_peer("eve", key_of("eve"), "memory://eve")
    ledger.close()


def test_the_account_of_a_name_that_is_a_key_is_the_keys(run):
    key = key_of("eve")
    r = run(grants={key: 10})
    assert r.register(key, key).slot == 2
    assert r.ledger.balances()[key] == 3
    with pytest.raises(LedgerRefused, match="looks like a public key"):
        r.register(key_of("fay"), key)


@pytest.mark.parametrize("seed", range(3))
def test_no_unit_comes_from_nowhere_or_is_lost(run, seed):
    chance = random.Random(seed)
    strangers = [f"s{number}" for number in range(6)]
    keys = [key_of(name) for name in strangers]
    r = run(
        cost=chance.randrange(9),
        immunity_rounds=chance.randrange(3),
        grants={key: chance.randrange(40) for key in keys},
        slots=4,
    )
    refused = taken = 0
    for _ in range(12):
        for _ in range(8):
            known = [name for name in (*NAMES, *strangers) if r.ledger.key_of(name) is not None]
            accounts, units = [*known, *keys], chance.randrange(1, 30)
            try:
                if chance.random() < 0.4:
                    r.register(chance.choice(strangers))
                else:
                    receipt = f"{chance.getrandbits(128):032x}"
                    r.ledger.transfer(chance.choice(accounts), chance.choice(accounts), units, receipt)
                taken += 1
            except LedgerRefused:
                refused += 1
            balances = r.ledger.balances()
            assert sum(balances.values()) == r.emitted() + sum(r.rules["grants"].values())
            assert min(balances.values()) >= 0
        present = r.peers(r.ledger.status().round)
        assert sorted({*present.values()}) == sorted(present.values())
        r.play(**{name: float(chance.randrange(5)) for name in present})
    assert taken > 20
    assert refused > 20
