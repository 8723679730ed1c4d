"""The shipped model: a Llama-style decoder in flax, used as pure functions.

Nothing else in the package knows it: any parameters pytree and loss function may stand in its place.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from gauntlet_jax.types import LossFn, Params

_SEQUENCES = ("data", "fsdp")  # the axes of a mesh that a batch is cut over


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder.

    Attributes:
      vocabulary: token ids are below this.
      width: hidden size; heads divide it, and width / heads is even (rotary pairs).
      layers: decoder blocks.
      heads: query heads.
      kv_heads: key and value heads; divides ``heads`` (grouped-query attention).
      intermediate: inner size of the SwiGLU.
      tied_head: whether the output head is the embedding transposed.
      rope_base: base of the rotary frequencies.
      norm_epsilon: added to the mean square in RMSNorm.
      compute_dtype: activations and products; parameters stay float32.
      remat: recompute each block in the backward pass instead of storing its activations.
      scan: one stacked block instead of ``layers`` of them: compiles once, however deep.
      microbatch: sequences that go through the model at a time, a divisor of every larger batch; the loss is the mean over such
        parts, and activations are those of one part. None takes a batch at once.
    """

    vocabulary: int = 256
    width: int = 64
    layers: int = 2
    heads: int = 2
    kv_heads: int = 1
    intermediate: int = 192
    tied_head: bool = False
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    scan: bool = False
    microbatch: int | None = None

    def __post_init__(self):
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"model: width {self.width} must be an even multiple of its {self.heads} heads")
        if self.heads % self.kv_heads:
            raise ValueError(f"model: {self.kv_heads} kv_heads must divide {self.heads} heads")
        if self.microbatch is not None and self.microbatch < 1:
            raise ValueError(f"model.microbatch: {self.microbatch} must be at least 1, or None")


PAPER_1B = DecoderConfig(
    vocabulary=32_000,
    width=2048,
    layers=16,
    heads=8,
    kv_heads=8,
    intermediate=8192,
    compute_dtype="bfloat16",
    remat=True,
    scan=True,
)
"""The paper's 1.2B model: 1,204,881,408 parameters."""


def rotate(
    x: Float[Array, "batch length heads size"], *, base: float
) -> Float[Array, "batch length heads size"]:
    """Rotary position embedding: pair (i, i + size/2) of position m turns by ``m * base**(-2i/size)``."""
    length, size = x.shape[1], x.shape[-1]
    frequencies = base ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
    angles = jnp.arange(length, dtype=jnp.float32)[:, None, None] * frequencies
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)


class DecoderBlock(nn.Module):
    """Pre-norm attention and SwiGLU, each added to the residual stream.

    The stream is [batch * length, width]: with three axes XLA's CPU backend takes twice as long for the backward pass.
    """

    config: DecoderConfig
    length: int
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "tokens width"], _: None = None) -> tuple[Array, None]:
        """The stream after the block (and None, for ``nn.scan``)."""
        c = self.config
        size = c.width // c.heads
        dense = _dense(c)

        h = _norm(c, "attention_norm")(x)
        query = dense(c.heads * size, name="query")(h).reshape(-1, self.length, c.heads, size)
        key = dense(c.kv_heads * size, name="key")(h).reshape(-1, self.length, c.kv_heads, size)
        value = dense(c.kv_heads * size, name="value")(h).reshape(-1, self.length, c.kv_heads, size)
        query, key, value = (
            _placed(self.mesh, each, _SEQUENCES, None, "tensor", None) for each in (query, key, value)
        )
        query, key = rotate(query, base=c.rope_base), rotate(key, base=c.rope_base)
        attended = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x = x + dense(c.width, name="output")(attended.reshape(-1, c.heads * size))
        x = _placed(self.mesh, x, _SEQUENCES, None)

        h = _norm(c, "mlp_norm")(x)
        gated = nn.silu(dense(c.intermediate, name="gate")(h)) * dense(c.intermediate, name="up")(h)
        return _placed(self.mesh, x + dense(c.width, name="down")(gated), _SEQUENCES, None), None


class Decoder(nn.Module):
    """Token ids to logits."""

    config: DecoderConfig
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length vocabulary"]:
        """Float32 logits of the next token at every position."""
        c = self.config
        embed = nn.Embed(
            c.vocabulary,
            c.width,
            dtype=_dtype(c),
            embedding_init=nn.initializers.normal(0.02),
            name="embedding",
        )
        batch, length = tokens.shape
        # The table's width is cut over fsdp, so the lookup's is; from there sequences are exchanged for width.
        x = embed(_placed(self.mesh, tokens.reshape(-1), "data"))
        x = _placed(self.mesh, _placed(self.mesh, x, "data", "fsdp"), _SEQUENCES, None)
        block: Any = nn.remat(DecoderBlock, prevent_cse=not c.scan) if c.remat else DecoderBlock
        if c.scan:
            stack = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True}, length=c.layers)
            x, _ = stack(c, length, self.mesh, name="layers")(x, None)
        else:
            for layer in range(c.layers):
                x, _ = block(c, length, self.mesh, name=f"layer_{layer}")(x)
        x = _norm(c, "final_norm")(x)
        logits = embed.attend(x) if c.tied_head else _dense(c)(c.vocabulary, name="head")(x)
        logits = _placed(self.mesh, logits, _SEQUENCES, "tensor")
        return logits.astype(jnp.float32).reshape(batch, length, c.vocabulary)


def init_params(config: DecoderConfig, key: Array) -> Params:
    """Fresh float32 parameters."""
    return Decoder(config).init(key, jnp.zeros((1, 2), jnp.int32))["params"]


def make_loss_fn(config: DecoderConfig, mesh: Mesh | None = None) -> LossFn:
    """The decoder's loss: mean cross-entropy of the next token, in nats/token.

    Args:
      config: the decoder's shape.
      mesh: of (data, fsdp, tensor) devices on which it runs. Activations are then kept where their sequences are; left to
        itself the compiler may rather split their features, and move activations where it could move parameters. None, and
        a mesh of one device, leave everything to the compiler.

    Returns:
      ``(params, int32[batch, length + 1]) -> scalar``; the last column is only predicted, the first only read.
    """
    mesh = None if mesh is None or mesh.size == 1 else mesh
    decoder = Decoder(config, mesh)

    def of_part(params: Params, tokens: Int[Array, "batch length_and_one"]) -> Array:
        logits = jnp.asarray(decoder.apply({"params": params}, tokens[:, :-1]))
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))

    def loss_fn(params: Params, tokens: Int[Array, "batch length_and_one"]) -> Array:
        tokens = tokens.astype(jnp.int32)
        batch, at_a_time = tokens.shape[0], config.microbatch
        if at_a_time is None or batch <= at_a_time:
            return of_part(params, tokens)
        if batch % at_a_time:
            raise ValueError(f"model.microbatch: {at_a_time} does not divide a batch of {batch} sequences")
        # A part takes every n-th sequence: each device then has its share of every part already.
        parts = jnp.moveaxis(tokens.reshape(at_a_time, -1, tokens.shape[1]), 1, 0)
        parts = _placed(mesh, parts, None, _SEQUENCES, None)

        def add(total: Array, part: Array) -> tuple[Array, None]:
            return total + jax.checkpoint(of_part, prevent_cse=False)(params, part), None

        return jax.lax.scan(add, jnp.float32(0), parts)[0] / len(parts)

    return loss_fn


def stacked_axes(params: Params) -> Any:
    """Leading layer axes of every parameter of the decoder: 1 in a scanned stack, else 0."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: int(any(getattr(entry, "key", None) == "layers" for entry in path)), params
    )


def parameter_count(params: Params) -> int:
    """How many numbers a pytree of arrays or shapes holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _placed(mesh: Mesh | None, x: Array, *axes: str | tuple[str, ...] | None) -> Array:
    """Tells the compiler over which axes of the mesh each axis of an activation is cut; one that does not divide stays whole."""
    if mesh is None:
        return x
    sizes = [
        math.prod(mesh.shape[name] for name in ((axis,) if isinstance(axis, str) else axis or ()))
        for axis in axes
    ]
    cut = [
        axis if length % size == 0 else None for axis, length, size in zip(axes, x.shape, sizes, strict=True)
    ]
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*cut)))


def _dtype(config: DecoderConfig) -> Any:
    return jnp.dtype(config.compute_dtype)


def _dense(config: DecoderConfig) -> Callable[..., nn.Dense]:
    def dense(features: int, name: str) -> nn.Dense:
        return nn.Dense(
            features,
            use_bias=False,
            dtype=_dtype(config),
            kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),
            name=name,
        )

    return dense


def _norm(config: DecoderConfig, name: str) -> nn.RMSNorm:
    return nn.RMSNorm(epsilon=config.norm_epsilon, dtype=_dtype(config), name=name)
