"""Who is paid how much of a round's emission, and what it takes to become a peer."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class RewardRules:
    """How incentives become payouts.

    Attributes:
      emission: integer units given out a round.
      power: c in incentive = PeerScore^c / sum PeerScore^c.
      top: only the highest ``top`` PeerScores share; None shares over all peers, as in the paper.
      payable_after: evaluations before a peer may be paid; what it would have had goes to the reserve.
      payable_proof: its bias-corrected proof of computation must be above this to be paid, in [-1, 1).
    """

    emission: int = 1_000_000
    power: float = 2.0
    top: int | None = None
    payable_after: int = 0
    payable_proof: float = 0.0

    def may_be_paid(self, evaluations: int, proof: float) -> bool:
        """Whether a peer may be paid.

        Args:
          evaluations: rounds in which it was evaluated so far.
          proof: its bias-corrected proof of computation, in [-1, 1].
        """
        return evaluations >= self.payable_after and proof > self.payable_proof


@dataclasses.dataclass(frozen=True)
class RegistrationRules:
    """What it takes to become a peer of a run that does not name one.

    Attributes:
      cost: units that a registration takes from the account of the key that signs it; they go to the reserve.
      immunity_rounds: rounds for which a peer keeps its slot whatever it earns; it is at least one.
      grants: units that accounts hold from the beginning, by the name of a peer or validator of the run, or by a public key
        (64 hexadecimal digits).
    """

    cost: int = 0
    immunity_rounds: int = 20
    grants: Mapping[str, int] = dataclasses.field(default_factory=dict)
