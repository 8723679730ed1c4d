"""Gradients to pseudo-gradients and back (layer 1): pure functions of arrays."""

from gauntlet_jax.compression.aggregation import Aggregator as Aggregator
from gauntlet_jax.compression.aggregation import clipped_mean as clipped_mean
from gauntlet_jax.compression.aggregation import combine as combine
from gauntlet_jax.compression.aggregation import signed_mean as signed_mean
from gauntlet_jax.compression.compressor import Compressor as Compressor
from gauntlet_jax.compression.compressor import Format as Format
from gauntlet_jax.compression.compressor import SparseTensor as SparseTensor
from gauntlet_jax.compression.compressor import demo as demo
from gauntlet_jax.compression.compressor import sparseloco as sparseloco
from gauntlet_jax.compression.packing import PackedTensor as PackedTensor
from gauntlet_jax.compression.packing import pack as pack
from gauntlet_jax.compression.packing import packed_shapes as packed_shapes
from gauntlet_jax.compression.packing import sizes as sizes
from gauntlet_jax.compression.packing import unpack as unpack
