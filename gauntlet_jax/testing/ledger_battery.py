"""The battery of the ledger's contract: what every ``Ledger`` does, whatever keeps it.

In a file of tests, where ``new_world`` gives a context manager that yields a ``World`` (see ``ledger_world``)::

    class TestMyLedger(LedgerBattery):
        new_world = staticmethod(my_world)

pytest collects it as it stands, unittest with ``unittest.TestCase`` as a second base.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from gauntlet_jax.rewards.epoch import epoch_of
from gauntlet_jax.rewards.ledger import RESERVE, Epoch, LedgerRefused, NotYetKnown, Registration
from gauntlet_jax.testing.ledger_world import (
    World,
    address_of,
    commit,
    play_round,
    populate,
    raises,
    reveal,
    salt_of,
)

_U16 = 65535


class LedgerBattery:
    """The contract's tests; each has a world of its own.

    Attributes:
      new_world: a function without arguments that gives a context manager, which yields a new ``World``.
    """

    new_world: Callable[[], AbstractContextManager[World]]

    def test_who_registers_takes_part_from_the_next_round_on(self) -> None:
        """And is registered once, however often it says so."""
        with self.new_world() as world:
            populate(world)
            round = world.open_round()
            reader, stranger = world.onlooker(), world.strangers[0]
            here = {entry.name for entry in reader.registrations(round)}
            assert here == {*world.peers, *world.validators}
            found = world.node(stranger).register_peer(stranger, address_of(stranger))
            assert (found.name, found.bucket, found.from_round) == (stranger, address_of(stranger), round + 1)
            assert found.slot is not None
            assert found.stake == 0.0
            assert len(found.public_key) == 64
            held = world.funds(stranger)
            assert world.node(stranger).register_peer(stranger, address_of(stranger)) == found
            assert world.funds(stranger) == held
            assert {entry.name for entry in reader.registrations(round)} == here
            assert {entry.name for entry in reader.registrations(None)} == {*here, stranger}
            world.close_round()
            world.close_commits()
            world.finish_round()
            assert world.open_round() == round + 1
            assert found in reader.registrations(round + 1)
            assert {entry.name for entry in reader.registrations(round)} == here
            stakes = {entry.name: entry.stake for entry in reader.registrations(round) if entry.slot is None}
            assert stakes == dict(world.validators)
            slots = [
                entry.slot for entry in reader.registrations(round + 1) if entry.name not in world.validators
            ]
            assert len({*slots}) == len(slots) == world.slots

    def test_a_strangers_registration_costs(self) -> None:
        """Whom the run names registers free."""
        with self.new_world() as world:
            before = {name: world.funds(name) for name in (*world.peers, world.strangers[0])}
            populate(world)
            world.open_round()
            assert [world.funds(name) for name in world.peers] == [before[name] for name in world.peers]
            stranger = world.strangers[0]
            world.node(stranger).register_peer(stranger, address_of(stranger))
            assert before[stranger] - world.funds(stranger) == world.cost

    def test_where_all_slots_are_taken_the_least_paid_makes_room(self) -> None:
        """But nobody who is new; and past rounds stay as they were."""
        with self.new_world() as world:
            populate(world)
            first, second = world.strangers[:2]
            world.node(first).register_peer(first, address_of(first))
            least = world.peers[0]
            row = {name: 0.0 if name == least else 1.0 + at for at, name in enumerate([*world.peers, first])}
            weights = dict.fromkeys(world.validators, row)
            round = play_round(world, weights)
            for _ in range(world.immunity_rounds - 1):
                with raises(LedgerRefused):
                    world.node(second).register_peer(second, address_of(second))
                round = play_round(world, weights)
            slot = next(entry.slot for entry in world.onlooker().registrations(round) if entry.name == least)
            came = world.node(second).register_peer(second, address_of(second))
            assert (came.slot, came.from_round) == (slot, round + 1)
            reader = world.onlooker()
            assert _names(reader.registrations(round)) == {*world.validators, *world.peers, first}
            after = {*world.validators, *world.peers, first, second} - {least}
            assert _names(reader.registrations(None)) == after
            later = play_round(world, weights)
            assert later == round + 1
            assert _names(reader.registrations(later)) == after
            assert _names(reader.registrations(round)) == {*world.validators, *world.peers, first}
            epoch = reader.epoch(later)
            assert epoch is not None
            assert least not in epoch.payouts
            assert least not in epoch.consensus

    def test_a_name_belongs_to_its_first_key(self) -> None:
        """For peers and for validators."""
        with self.new_world() as world:
            populate(world)
            peer, validator = world.peers[0], next(iter(world.validators))
            before = world.onlooker().registrations(None)
            with raises(LedgerRefused):
                world.impostor(peer).register_peer(peer, address_of("elsewhere"))
            with raises(LedgerRefused):
                world.impostor(validator).register_validator(validator, address_of("elsewhere"))
            assert world.onlooker().registrations(None) == before

    def test_a_bucket_moves(self) -> None:
        """And nothing else of a registration does."""
        with self.new_world() as world:
            populate(world)
            world.open_round()
            peer, validator = world.peers[0], next(iter(world.validators))
            reader = world.onlooker()
            before = {entry.name: entry for entry in reader.registrations(None)}
            for name, register in (
                (peer, world.node(peer).register_peer),
                (validator, world.node(validator).register_validator),
            ):
                moved = before[name]._replace(bucket=address_of("elsewhere"))
                assert register(name, address_of("elsewhere")) == moved
                assert register(name, address_of("elsewhere")) == moved
                before[name] = moved
            assert {entry.name: entry for entry in reader.registrations(None)} == before

    def test_time_goes_on(self) -> None:
        """It never goes back, and a round takes some."""
        with self.new_world() as world:
            populate(world)
            reader = world.onlooker()
            times = [reader.now()]
            first = world.open_round()
            times.append(reader.now())
            world.close_round()
            times.append(reader.now())
            world.close_commits()
            world.finish_round()
            assert world.open_round() == first + 1
            times.append(reader.now())
            assert times == sorted(times)
            assert times[0] < times[-1]

    def test_a_beacon_is_not_known_before_its_time(self) -> None:
        """And then it is the same for all and for ever."""
        with self.new_world() as world:
            populate(world)
            round = world.open_round()
            reader, peer = world.onlooker(), world.node(world.peers[0])
            opening = reader.beacon(round, "opening")
            with raises(NotYetKnown):
                reader.beacon(round, "closing")
            with raises(NotYetKnown):
                reader.beacon(round + 1, "opening")
            world.close_round()
            closing = peer.beacon(round, "closing")
            world.close_commits()
            world.finish_round()
            assert world.open_round() == round + 1
            newer = reader.beacon(round + 1, "opening")
            assert (reader.beacon(round, "opening"), reader.beacon(round, "closing")) == (opening, closing)
            assert [len(link) for link in (opening, closing, newer)] == [32, 32, 32]
            assert len({opening, closing, newer}) == 3

    def test_weights_are_committed_to_in_their_time_alone(self) -> None:
        """After the put window, before anybody shows any; and shown after that, before the epoch."""
        with self.new_world() as world:
            populate(world)
            one, two, three, *_ = world.validators
            row, other = {world.peers[0]: 1.0}, {world.peers[0]: 0.5, world.peers[1]: 0.5}
            round = world.open_round()
            with raises(LedgerRefused):
                commit(world, round, {one: row})
            world.close_round()
            with raises(LedgerRefused):
                commit(world, round + 1, {one: row})
            commit(world, round, {one: row, three: other})
            commit(world, round, {one: row})
            with raises(LedgerRefused):
                commit(world, round, {one: other})
            with raises(LedgerRefused):
                reveal(world, round, {one: row})
            assert world.onlooker().weights(round) == {}
            world.close_commits()
            with raises(LedgerRefused):
                commit(world, round, {two: row})
            assert world.onlooker().weights(round) == {}
            reveal(world, round, {one: row})
            reveal(world, round, {one: row})
            _close(world.onlooker().weights(round)[one], row, world.tolerance)
            world.finish_round()
            reveal(world, round, {one: row})
            with raises(LedgerRefused):
                reveal(world, round, {one: other})
            with raises(LedgerRefused):
                commit(world, round, {two: row})
            with raises(LedgerRefused):
                reveal(world, round, {three: other})
            assert list(world.onlooker().weights(round)) == [one]

    def test_only_what_was_committed_to_can_be_shown(self) -> None:
        """Other weights, another salt, no commit, or the commit of another are refused."""
        with self.new_world() as world:
            populate(world)
            honest, thief, silent, *_ = world.validators
            row, other = {world.peers[0]: 3.0, world.peers[1]: 1.0}, {world.peers[0]: 1.0}
            round = world.open_round()
            world.close_round()
            commit(world, round, {honest: row})
            try:
                world.copy_commit(round, thief, honest)
            except LedgerRefused:
                commit(world, round, {thief: other})
            world.close_commits()
            salt = salt_of(round, honest)
            for name, weights, its_salt in (
                (honest, other, salt),
                (honest, {**row, world.peers[1]: 1.5}, salt),
                (honest, row, bytes(32)),
                (thief, row, salt),
                (silent, row, salt),
            ):
                with raises(LedgerRefused):
                    world.node(name).reveal_weights(round, weights, its_salt)
            reveal(world, round, {honest: row})
            with raises(LedgerRefused):
                world.node(thief).reveal_weights(round, row, salt)
            world.finish_round()
            assert list(world.onlooker().weights(round)) == [honest]
            epoch = world.onlooker().epoch(round)
            assert epoch is not None
            assert [name for name, trust in epoch.trust.items() if trust > 0] == [honest]

    def test_only_validators_weigh(self) -> None:
        """A peer's weights are refused, and an impostor's."""
        with self.new_world() as world:
            populate(world)
            round = world.open_round()
            world.close_round()
            peer, validator, row = world.peers[0], next(iter(world.validators)), {world.peers[0]: 1.0}
            with raises(LedgerRefused):
                world.node(peer).commit_weights(round, row, salt_of(round, peer))
            with raises(LedgerRefused):
                world.impostor(validator).commit_weights(round, row, salt_of(round, validator))
            world.close_commits()
            with raises(LedgerRefused):
                world.impostor(validator).reveal_weights(round, row, salt_of(round, validator))

    def test_an_epoch_is_yuma_consensus(self) -> None:
        """Over rounds in which validators differ, and one says nothing: its older weights stand, but not for ever."""
        with self.new_world() as world:
            populate(world)
            one, two, three, *_ = world.validators
            a, b = world.peers[:2]
            agreed = {a: 65535.0, b: 28086.0}
            rounds = [
                {one: agreed, two: {a: 65535.0, b: 43690.0}, three: {a: 7282.0, b: 65535.0}},
                {one: {a: 1.0, b: 1.0}, two: agreed},
                *[{one: agreed, two: agreed}] * (world.weights_stand - 1),
            ]
            standing: dict[str, Mapping[str, float]] = {}
            for number, weights in enumerate(rounds):
                standing = {**standing, **weights}
                if number == world.weights_stand:
                    del standing[three]
                found = _check_epoch(world, play_round(world, weights), standing)
                assert {*found.trust} == {*standing}

    def test_weights_on_nobody_and_none_at_all(self) -> None:
        """What nobody may have is the reserve's; where nobody weighs, it has all, or on a chain stake is paid."""
        with self.new_world() as world:
            populate(world)
            if world.pays_silence:
                silent = world.onlooker().epoch(play_round(world, {}))
                assert silent is not None and {*silent.payouts} == {*world.validators}
            else:
                assert not _check_epoch(world, play_round(world, {}), {}).payouts
            if world.has_reserve:
                row = {world.peers[0]: 1.0, RESERVE: 3.0}
                weights = dict.fromkeys(world.validators, row)
                found = _check_epoch(world, play_round(world, weights), weights)
                assert abs(found.reserve - 3 * found.payouts[world.peers[0]]) <= 3 + _units(world)

    def test_every_unit_is_somebodys(self) -> None:
        """Balances and histories add up to what was given out."""
        with self.new_world() as world:
            populate(world)
            reader = world.onlooker()
            start = reader.balances()
            a, b = world.peers[:2]
            one, *others = world.validators
            epochs = []
            for number in range(3):
                row = {a: 1.0, b: 1.0 + number}
                played = play_round(world, {one: {a: 1.0}, **dict.fromkeys(others, row)})
                epoch = reader.epoch(played)
                assert epoch is not None
                assert abs(epoch.emission - world.emission) <= _units(world)
                epochs.append(epoch)
            if world.conserves:
                end = reader.balances()
                assert sum(start.values()) == world.granted
                assert sum(end.values()) == world.granted + sum(epoch.emission for epoch in epochs)
                for name in (*world.peers, *world.validators):
                    paid = [epoch.payouts.get(name, 0) for epoch in epochs]
                    assert end[name] - start[name] == sum(paid)
            for name in (a, b, one):
                paid = {epoch.round: epoch.payouts[name] for epoch in epochs if name in epoch.payouts}
                assert reader.history(name) == paid
                assert paid

    def test_an_epoch_that_has_not_been_is_none(self) -> None:
        """And neither are its weights."""
        with self.new_world() as world:
            populate(world)
            round = world.open_round()
            assert world.onlooker().epoch(round) is None
            assert world.onlooker().weights(round) == {}
            world.close_round()
            commit(world, round, {next(iter(world.validators)): {world.peers[0]: 1.0}})
            world.close_commits()
            assert world.onlooker().epoch(round) is None


def _names(registrations: Sequence[Registration]) -> set[str]:
    return {entry.name for entry in registrations}


def _units(world: World) -> float:
    return world.tolerance * world.emission


def _normalised(weights: Mapping[str, float]) -> dict[str, float]:
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _close(found: Mapping[str, float], weights: Mapping[str, float], tolerance: float) -> None:
    """Whether shares are weights, normalised."""
    expected = _normalised(weights)
    for name in {*found, *expected}:
        assert abs(found.get(name, 0.0) - expected.get(name, 0.0)) <= tolerance, (name, found, expected)


def _check_epoch(world: World, round: int, standing: Mapping[str, Mapping[str, float]]) -> Epoch:
    """Compares an epoch with Yuma consensus of the weights that stand."""
    reader = world.onlooker()
    found, before = reader.epoch(round), reader.epoch(round - 1) if round else None
    assert found is not None
    assert found.round == round
    expected = epoch_of(
        round,
        {name: _normalised(row) for name, row in standing.items()},
        stakes=world.validators,
        peers=[entry.name for entry in reader.registrations(round) if entry.slot is not None],
        bonds={} if before is None else before.bonds,
        emission=found.emission,
    )
    for table in ("consensus", "incentive", "trust", "dividends"):
        _near(table, getattr(found, table), getattr(expected, table), world.tolerance)
    _near("payouts", found.payouts, expected.payouts, _units(world))
    for name in {*found.bonds, *expected.bonds}:
        theirs, ours = found.bonds.get(name, {}), expected.bonds.get(name, {})
        _near(f"bonds of {name}", theirs, ours, _U16 * world.tolerance)
    assert abs(found.reserve - expected.reserve) <= _units(world)
    return found


def _near(what: str, found: Mapping[str, float], expected: Mapping[str, float], tolerance: float) -> None:
    for name in {*found, *expected}:
        difference = abs(found.get(name, 0) - expected.get(name, 0))
        assert difference <= tolerance, (what, name, found, expected)
