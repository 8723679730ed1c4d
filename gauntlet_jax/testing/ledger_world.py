"""What the ledger battery needs of a ledger under test: views of its nodes, and time in the battery's hand."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from gauntlet_jax.rewards.ledger import Ledger


class World(Protocol):
    """A new ledger whose run has not begun and on which nobody is registered yet.

    Nodes are known by their names; each has a key of its own, with which its view signs.

    Attributes:
      validators: three names or more with their stakes, none of at least half; the battery registers them.
      peers: names of peers that register free; the battery registers them.
      strangers: two names or more of peers that pay for it, and can once each.
      slots: places for peers, one more than ``peers``.
      cost: of a stranger's registration, in the units of ``funds``.
      immunity_rounds: for so many rounds a peer keeps its slot.
      weights_stand: for so many rounds weights count without newer ones of their validator.
      emission: units of an epoch.
      granted: units that there are before the first epoch.
      tolerance: how far a share of 1 may be from what it should be: 0 where numbers are kept as they are, a few times 1/65535 where
        they are rounded to u16.
      has_reserve: whether weights on ``RESERVE`` are taken, and what they come to stays with nobody.
      pays_silence: whether validators are paid by stake for a round in which nobody weighs, as a chain does.
      conserves: whether nothing but epochs and grants changes the sum of the balances.
    """

    validators: Mapping[str, float]
    peers: Sequence[str]
    strangers: Sequence[str]
    slots: int
    cost: int
    immunity_rounds: int
    weights_stand: int
    emission: int
    granted: int
    tolerance: float
    has_reserve: bool
    pays_silence: bool
    conserves: bool

    def node(self, name: str) -> Ledger:
        """The ledger as a node sees it."""
        ...

    def impostor(self, name: str) -> Ledger:
        """The ledger as somebody sees it who claims a node's name and has another key."""
        ...

    def onlooker(self) -> Ledger:
        """The ledger as somebody sees it who only reads."""
        ...

    def funds(self, name: str) -> int:
        """What a stranger has that can pay its registration."""
        ...

    def copy_commit(self, round: int, thief: str, victim: str) -> None:
        """Posts a validator's commit to weights once more in the name of another; may be refused."""
        ...

    def open_round(self) -> int:
        """Lets the next round begin, and returns its number."""
        ...

    def close_round(self) -> None:
        """Lets the put window of that round close."""
        ...

    def close_commits(self) -> None:
        """Lets the time for commits to weights end."""
        ...

    def finish_round(self) -> None:
        """Lets the round come to its end: its epoch is known."""
        ...


def address_of(name: str) -> str:
    """Where the battery's nodes say that their buckets are; nobody reads there."""
    return f"https://buckets.example/{name[-16:]}"


def salt_of(round: int, validator: str) -> bytes:
    """A validator's salt of a round."""
    return f"{round} {validator[-16:]}".encode().ljust(32, b".")[:32]


def populate(world: World) -> None:
    """Registers the validators, and the peers that register free."""
    for name in world.validators:
        world.node(name).register_validator(name, address_of(name))
    for name in world.peers:
        world.node(name).register_peer(name, address_of(name))


def play_round(world: World, weights: Mapping[str, Mapping[str, float]]) -> int:
    """Plays a round in which validators commit to weights and show them; returns its number."""
    round = world.open_round()
    world.close_round()
    commit(world, round, weights)
    world.close_commits()
    reveal(world, round, weights)
    world.finish_round()
    return round


def commit(world: World, round: int, weights: Mapping[str, Mapping[str, float]]) -> None:
    """Lets validators commit to their weights of a round."""
    for validator, row in weights.items():
        world.node(validator).commit_weights(round, row, salt_of(round, validator))


def reveal(world: World, round: int, weights: Mapping[str, Mapping[str, float]]) -> None:
    """Lets validators show their weights of a round."""
    for validator, row in weights.items():
        world.node(validator).reveal_weights(round, row, salt_of(round, validator))


@contextlib.contextmanager
def raises(kind: type[Exception]) -> Iterator[None]:
    """Fails unless the block raises an error of a kind; as pytest's, for who has no pytest."""
    try:
        yield
    except kind as error:
        if not str(error) or "\n" in str(error):
            raise AssertionError(f"{kind.__name__} tells no single line: {error!r}") from error
        return
    raise AssertionError(f"no {kind.__name__} was raised")
