"""Index overlap: do two peers send the same coefficients more often than honest peers do?

Two identities that share one gradient choose nearly the same top-k even if they send it with different
values. Honest peers overlap too, most of all in early rounds, so a pair is judged against the round's other
pairs, and only when it stands out in two rounds running.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

_CHUNKS_A_STEP = 16  # chunks whose bitmaps are held at once: enough work a step, little memory


def index_overlap(
    indices: Integer[Array, "peers chunks k"], valid: Bool[Array, " peers"], *, chunk_size: int
) -> Float[Array, "peers peers"]:
    """The share of their coefficients that each two peers have in common.

    ``overlap_pq = mean over chunks of |sent_p & sent_q| / k``. Give it only chunks of which few positions are
    sent, ``k <= chunk_size / 8``: in a block of 64 with k = 32, half overlap by chance. A random subset of
    some thousands of chunks tells as much as all of them. Work is ``peers^2 chunks k`` look-ups; beside the
    input it holds the bitmaps of 16 chunks of every peer.

    Args:
      indices: positions sent in each chunk, in [0, chunk_size), each at most once in a chunk.
      valid: whose indices count.
      chunk_size: positions in a chunk.

    Returns:
      float32 in [0, 1], symmetric, with 1 on the diagonal; 0 in the rows and columns of peers that are not
      valid, and between any two peers where there are no chunks to compare.
    """
    peers, chunks, k = indices.shape
    padding = -chunks % _CHUNKS_A_STEP
    # Unsigned, so that a negative position is out of range too instead of counting from the end.
    by_chunk = jnp.pad(
        jnp.moveaxis(indices, 1, 0).astype(jnp.uint32),
        ((0, padding), (0, 0), (0, 0)),
        constant_values=chunk_size,
    )
    everyone = jnp.arange(peers)[:, None]

    def shared(chunk: Array) -> Array:
        sent = jnp.zeros((peers, chunk_size), jnp.int8).at[everyone, chunk].set(1, mode="drop")
        found = sent.at[:, chunk].get(mode="fill", fill_value=0)  # [p, q, k]: does p send what q sends?
        return jnp.sum(found, axis=-1, dtype=jnp.uint32)

    def step(total: Array, block: Array) -> tuple[Array, None]:
        return total + jnp.sum(jax.vmap(shared)(block), axis=0, dtype=jnp.uint32), None

    blocks = by_chunk.reshape(-1, _CHUNKS_A_STEP, peers, k)
    counts, _ = jax.lax.scan(step, jnp.zeros((peers, peers), jnp.uint32), blocks)
    overlap = jnp.where(jnp.eye(peers, dtype=bool), 1.0, counts.astype(jnp.float32) / max(chunks * k, 1))
    return jnp.where(valid[:, None] & valid[None, :], overlap, 0.0)


def overlapping_pairs(
    overlap: Float[Array, "peers peers"] | Float[np.ndarray, "peers peers"],
    valid: Bool[Array, " peers"] | Bool[np.ndarray, " peers"],
    *,
    floor: float = 0.4,
    mads: float = 6.0,
) -> Bool[np.ndarray, "peers peers"]:
    """The pairs that stand out of the round.

    A pair is suspicious if its overlap is at least ``floor`` and above ``median + mads * MAD`` of the round's
    pairs of valid peers (MAD = median absolute deviation from the median). *Above*: where all pairs are
    alike, and so where there is only one, none stands out.

    The median speaks for honest pairs only while most pairs are honest. Leave out of ``valid`` what did not
    lower the loss, or a crowd that sends noise makes the honest pairs stand out.

    Args:
      overlap: from ``index_overlap``.
      valid: whose pairs count.
      floor: never suspicious below it, in [0, 1].
      mads: deviations that a pair must stand out.

    Returns:
      bool, symmetric, False on the diagonal. Keep it for the next round's ``later_of_pairs``.
    """
    shares = np.asarray(overlap, np.float64)
    counted = np.asarray(valid)
    pairs = counted[:, None] & counted[None, :] & ~np.eye(counted.size, dtype=bool)
    if not pairs.any():
        return pairs
    median = np.median(shares[pairs])
    spread = np.median(np.abs(shares[pairs] - median))
    return pairs & (shares >= floor) & (shares > median + mads * spread)


def later_of_pairs(
    suspicious_now: Bool[np.ndarray, "peers peers"],
    suspicious_before: Bool[np.ndarray, "peers peers"],
    uploaded_at: Float[np.ndarray, " peers"],
) -> Bool[np.ndarray, " peers"]:
    """Who is slashed for overlap: the later uploader of each pair that stood out two rounds running.

    Args:
      suspicious_now: this round's ``overlapping_pairs``.
      suspicious_before: the last round's, of the same peers in the same order.
      uploaded_at: float64 seconds, this round's upload times by the storage provider's clock; of two equal
        ones the larger index is later. NaN, for a peer without an upload, belongs to no suspicious pair.

    Returns:
      bool[peers].
    """
    both = suspicious_now & suspicious_before
    position = np.arange(uploaded_at.size)
    mine, other = uploaded_at[:, None], uploaded_at[None, :]
    is_later = (mine > other) | ((mine == other) & (position[:, None] > position[None, :]))
    return np.any(both & is_later, axis=1)
