"""What strategists do: honest peers with a stage replaced, so that several identities act as one."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gauntlet_jax.compression.chunking import layouts_of
from gauntlet_jax.compression.compressor import Format
from gauntlet_jax.nodes.attacks import HONEST, flipped_gradient, random_gradient
from gauntlet_jax.nodes.beacon import derive_int
from gauntlet_jax.nodes.peer import Arrays, Behavior, Turn
from gauntlet_jax.training.model import stacked_axes
from gauntlet_jax.types import Params

_LATER = 0.6  # when the second identity of a pair uploads, as a part of the put window: after the first


def split(batches: int, identities: int) -> list[Behavior]:
    """A fixed compute as several honest identities, shared out as evenly as it goes; the larger parts first.

    Args:
      batches: the total.
      identities: k, at most ``batches``.

    Raises:
      ValueError: an identity would have nothing to train on.
    """
    if not 1 <= identities <= batches:
        raise ValueError(f"{batches} batches cannot be split over {identities} identities")
    least, more = divmod(batches, identities)
    return [dataclasses.replace(HONEST, batches=least + (i < more)) for i in range(identities)]


def first_batch(turn: Turn, count: int) -> np.ndarray:
    """Only the first batch of what it declares."""
    return turn.assignment.assigned(turn.opening.round, turn.slot, min(count, turn.batch))


def boaster(batches: int) -> Behavior:
    """Declares so many batches and trains on the first of them."""
    return dataclasses.replace(HONEST, batches=batches, data=first_batch)


def data_of_all(turn: Turn, count: int, *, slots: Sequence[int], whole: bool) -> np.ndarray:
    """Windows assigned to several identities, in one order for all of them: they then compute one gradient.

    Args:
      turn: of one of them.
      count: windows that each declares.
      slots: of all.
      whole: take all that each declares (the compute of all), else an equal part of each (the compute of one).
    """
    each = count if whole else count // len(slots)
    return np.concatenate([turn.assignment.assigned(turn.opening.round, slot, each) for slot in slots])


def retouched(turn: Turn, arrays: Arrays) -> Arrays:
    """The same pseudo-gradient with half of its values moved by one level: no duplicate, and worth as much."""
    generator = np.random.Philox(key=derive_int(b"retouched", turn.peer, turn.opening.round, bits=64))
    codes = arrays["codes"]  # those of a block of nothing are all 0, and must stay so
    moved = np.random.Generator(generator).integers(0, 2, codes.shape, dtype=codes.dtype)
    return {**arrays, "codes": np.where(codes > 1, codes ^ moved, codes)}


def dealt(turn: Turn, gradient: Params, *, part: int, parts: int) -> Params:
    """One identity's part of a gradient: of the DCT coefficients of a block, every ``parts``-th position.

    Each sends its strongest k, so that together they send (nearly) the strongest ``parts`` k, and no two send the same one.
    """
    del turn
    return _every_nth_coefficient(gradient, part=part, parts=parts)


@functools.partial(jax.jit, static_argnames=("part", "parts"))
def _every_nth_coefficient(gradient: Params, *, part: int, parts: int) -> Params:
    fmt = Format(layouts_of(gradient, stacked=stacked_axes(gradient)), 1, 32, "dct")

    def mine(coefficients: jax.Array) -> jax.Array:
        return jnp.where(jnp.arange(coefficients.shape[-1]) % parts == part, coefficients, 0.0)

    return fmt.synthesize(jax.tree.map(mine, fmt.analyze(gradient)))


def pair(slots: tuple[int, int], *, whole: bool, deal: bool) -> tuple[Behavior, Behavior]:
    """Two identities that work as one.

    Args:
      slots: theirs.
      whole: compute on all the data of both (twice the compute of one honest peer), else on half of each one's.
      deal: share the coefficients out between them, else both send all, the second with its values retouched.
    """
    first = dataclasses.replace(HONEST, data=functools.partial(data_of_all, slots=slots, whole=whole))
    second = dataclasses.replace(first, uploads_at=_LATER)
    if deal:
        return (
            dataclasses.replace(first, gradient=functools.partial(dealt, part=0, parts=2)),
            dataclasses.replace(second, gradient=functools.partial(dealt, part=1, parts=2)),
        )
    return first, dataclasses.replace(second, artifact=retouched)


def one_sequence(turn: Turn, count: int) -> np.ndarray:
    """The first sequence of its assigned data, again and again: a weak gradient at the compute of one sequence."""
    return np.resize(turn.assignment.assigned(turn.opening.round, turn.slot, 1), count)


def honest_until(turn: Turn, gradient: Params, *, round: int) -> Params:
    """Honest, and from a round on the gradient with its sign turned: it climbs first, so that beating it counts for more."""
    return gradient if turn.opening.round < round else flipped_gradient(turn, gradient)


def loser(kind: str, *, rounds: int) -> Behavior:
    """An identity that is there to be beaten.

    Args:
      kind: "sign_flip", "noise", "one_sequence", or "climb_then_lose" (honest for the first half of the run).
      rounds: of the run.

    Raises:
      ValueError: no such kind.
    """
    if kind == "one_sequence":
        return dataclasses.replace(HONEST, data=one_sequence)
    gradients = {
        "sign_flip": flipped_gradient,
        "noise": random_gradient,
        "climb_then_lose": functools.partial(honest_until, round=rounds // 2),
    }
    if kind not in gradients:
        raise ValueError(f"there is no loser {kind!r}: {', '.join(gradients)} or one_sequence")
    return dataclasses.replace(HONEST, gradient=gradients[kind])
