"""A validator's commit to its weights: a hash that binds it, and says nothing, until the weights and the salt are shown."""

import hashlib
import json
import math
from collections.abc import Mapping

from gauntlet_jax.types import PeerId

SALT_BYTES = 32


def weights_digest(round: int, validator: str, weights: Mapping[PeerId, float], salt: bytes) -> str:
    """sha256 of round, validator, weights and salt, 64 hexadecimal characters.

    It is bound to the validator's name, so that nobody can commit to what another has committed to and then show the same.

    Args:
      round: t.
      validator: whose they are.
      weights: finite and >= 0.
      salt: 32 bytes.

    Raises:
      ValueError: a weight is negative or not finite, or the salt has another length.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    numbers = {peer: checked_weight(weight) for peer, weight in weights.items()}
    text = json.dumps(
        ["gauntlet weights", round, validator, numbers, salt.hex()], sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()


def checked_weight(weight: float) -> float:
    """A weight as a float.

    Raises:
      ValueError: it is negative or not finite.
    """
    try:
        number = float(weight)
    except OverflowError as error:
        raise ValueError("weights must be finite and at least 0") from error
    if not (math.isfinite(number) and number >= 0):
        raise ValueError("weights must be finite and at least 0")
    return number + 0.0  # one zero only


def normalised(weights: Mapping[PeerId, float]) -> dict[PeerId, float]:
    """The same weights as shares that sum to 1, or all 0; in whatever order they are, to the bit.

    Args:
      weights: finite and >= 0, in any scale.
    """
    # By a power of two first, which changes no share: the sum of huge ones would be no number any more.
    exponent = math.frexp(max(weights.values(), default=0.0))[1]
    scaled = {peer: math.ldexp(weight, -exponent) for peer, weight in weights.items()}
    total = math.fsum(scaled.values())
    return {peer: weight / total if total else 0.0 for peer, weight in scaled.items()}
