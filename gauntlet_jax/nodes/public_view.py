"""What anybody can read of the others' artifacts: for peers that look at them before they upload their own."""

from collections.abc import Iterator, Sequence

from gauntlet_jax.nodes.inspection import Member
from gauntlet_jax.nodes.peer import Arrays, artifact_key
from gauntlet_jax.storage.artifact import PROBE, MalformedArtifact, MissingArtifact, Schema, read_artifact
from gauntlet_jax.types import PeerId


def artifacts_of(
    members: Sequence[Member], round: int, *, run: str, schema: Schema, max_declared: int, now: float
) -> Iterator[tuple[PeerId, Arrays]]:
    """The pseudo-gradients that some peers' public buckets show, one by one.

    Args:
      members: whose, in this order.
      round: t; there are none before round 0.
      run: the run's name.
      schema: of an artifact's arrays.
      max_declared: the most sequences that a peer may declare.
      now: seconds of the run's clock: what carries a later time was left by a run that stopped, before it plays this
        round again.
    """
    for member in members:
        try:
            received = read_artifact(
                member.bucket,
                artifact_key(round),
                schema,
                run=run,
                round=round,
                peer=member.name,
                public_key=member.public_key,
                max_declared=max_declared,
            )
        except (MissingArtifact, MalformedArtifact, OSError):
            continue
        if received.uploaded_at <= now:
            yield member.name, {name: array for name, array in received.arrays.items() if name != PROBE}
