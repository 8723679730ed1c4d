"""Aggregates as a node does, in a process of its own, and prints the most memory it held, bytes.

python tests/benchmarks/aggregation_memory.py SIDE PEERS
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.peak_memory import peak_bytes

from gauntlet_jax import compression
from gauntlet_jax.nodes.aggregation import combine_sent


def main(side: int, peers: int) -> None:
    """Each peer's bytes are there when it is its turn."""
    params = {"w": jax.ShapeDtypeStruct((side, side), jnp.float32)}
    compressor = compression.demo(params)
    fmt = compressor.format
    aggregator = compression.signed_mean(fmt)
    compiled = aggregator._replace(
        start=jax.jit(aggregator.start),
        add=jax.jit(aggregator.add, donate_argnums=0),
        finish=jax.jit(aggregator.finish),
    )
    unpack = jax.jit(lambda packed: compression.unpack(fmt, packed)[0])
    generator = np.random.default_rng(0)

    def of_one_peer():
        packed = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), compression.packed_shapes(fmt))
        codes = generator.integers(0, 256, packed["w"].codes.shape, np.uint8)
        return unpack({"w": packed["w"]._replace(codes=codes)})

    jax.block_until_ready(combine_sent(compiled, [of_one_peer] * peers, divisor=peers, places=peers))
    print(peak_bytes())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
