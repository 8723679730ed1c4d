"""One round of a peer and a validator on several devices: the bits and numbers of one device, and nothing said that need not be."""

import dataclasses
import functools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gauntlet_jax.build.steps import Steps
from gauntlet_jax.build.task import make_task
from gauntlet_jax.config import CompressionConfig, Config, DataConfig, MeshConfig, PeerConfig
from gauntlet_jax.nodes.aggregation import combine_sent
from gauntlet_jax.storage.checkpoint import Checkpoints
from gauntlet_jax.storage.digest import params_digest
from gauntlet_jax.training.model import DecoderConfig

COLLECTIVE = re.compile(r"= \S+ (all-\w+|reduce-scatter|collective-\w+|partition-id)\S*\(.*")
SETTINGS = {
    "demo": CompressionConfig(beta=0.9, k=8, bits=8),
    "sparseloco": CompressionConfig(method="sparseloco", beta=0.9, k=8, bits=2, inner_steps=2),
}
# 448 = 7 blocks of 64, which nothing but 7 divides: then the other axis takes the cut, as with 262,208 = 64 x 4097.
MODEL = DecoderConfig(
    vocabulary=448, width=256, layers=2, heads=4, kv_heads=4, intermediate=512, scan=True, remat=True
)
ONE, MESHES = (1, 1, 1), [(1, 4, 2), (2, 2, 2)]
CORPUS = SimpleNamespace(vocabulary=448)
TOKENS = np.random.default_rng(0).integers(0, 448, (16, 17)).astype(np.int32)


def config_of(kind, mesh, *, parts=1):
    data, fsdp, tensor = mesh
    return Config(
        name="sharded",
        peers=(PeerConfig("ada"), PeerConfig("ben")),
        model=MODEL,
        data=DataConfig(length=16, batch=16),
        compression=dataclasses.replace(SETTINGS[kind], parts=parts),
        mesh=MeshConfig(data=data, fsdp=fsdp, tensor=tensor),
    )


@functools.cache
def node(kind, mesh):
    """Task and steps of a node with this mesh."""
    config = config_of(kind, mesh)
    task = make_task(config, CORPUS)
    return task, Steps(config, task)


def fetched(tree):
    return jax.tree.map(np.asarray, tree)


@functools.cache
def gradient():
    """A gradient of the model, as numbers on the host."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) * 1e-2, node("demo", ONE)[0].params
    )


def encoded(kind, mesh, rounds=2):
    """Artifacts of some rounds from the same gradients, and the residual that is left."""
    task, steps = node(kind, mesh)
    residual = steps.peer.init(task.params)
    arrays = []
    for t in range(rounds):
        arrays.append(steps.peer.encode(residual, jax.tree.map(lambda g, t=t: (t + 1) * g, gradient())))
        residual = arrays[-1][1]
    return [one for one, _ in arrays], residual


@pytest.mark.parametrize("mesh", MESHES)
def test_the_first_parameters_are_the_same_bits_and_lie_in_pieces(mesh):
    task, _ = node("demo", mesh)
    assert params_digest(task.params) == params_digest(node("demo", ONE)[0].params)
    pieces = [leaf.size // leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(task.params)]
    assert max(pieces) == 8 or mesh == (2, 2, 2)
    # Of a matrix of 448 rows fsdp takes the columns.
    assert task.params["embedding"]["embedding"].addressable_shards[0].data.shape[0] == 448


@pytest.mark.parametrize(
    ("kind", "mesh"), [("demo", (1, 4, 2)), ("demo", (2, 2, 2)), ("sparseloco", (1, 4, 2))]
)
def test_the_same_gradient_is_encoded_to_the_same_bits(kind, mesh):
    expected, left = encoded(kind, ONE)
    arrays, residual = encoded(kind, mesh)
    for one, other in zip(arrays, expected, strict=True):
        assert {name: array.tobytes() for name, array in one.items()} == {
            name: array.tobytes() for name, array in other.items()
        }
    assert params_digest(residual) == params_digest(left)
    assert np.any(arrays[0]["codes"] != arrays[1]["codes"])


@pytest.mark.parametrize(("kind", "mesh"), [("demo", (1, 4, 2)), ("sparseloco", (1, 4, 2))])
def test_encoding_says_nothing_between_devices(kind, mesh):
    _, steps = node(kind, mesh)
    work = {one.name: one for one in steps.work()}
    encode = work["encode"].step.function.lower(*work["encode"].arguments).compile().as_text()
    assert COLLECTIVE.findall(encode) == []
    # The measure measures something: reading an artifact on the same mesh does talk, if only to agree that it is sound.
    inspect = work["inspect"].step.function.lower(*work["inspect"].arguments).compile().as_text()
    assert COLLECTIVE.findall(inspect)


@pytest.mark.parametrize("mesh", MESHES[:1])
def test_no_step_of_a_round_puts_the_model_together(mesh):
    """No device ever holds a whole large tensor that lies in pieces, but for what a product of matrices needs at a time."""
    task, steps = node("demo", mesh)
    largest = max(leaf.nbytes for leaf in jax.tree.leaves(task.params))
    for one in steps.work():
        if one.name in ("gradient", "loss", "evaluate"):
            continue  # fsdp gathers a layer's weights where it needs them, a layer at a time
        for line in re.findall(
            r"= (\w+)\[([\d,]*)\]\S* all-gather", one.step.function.lower(*one.arguments).compile().as_text()
        ):
            size = 4 * np.prod([int(n) for n in line[1].split(",") if n])
            assert size < largest / 16, (one.name, line)


def round_of(kind, mesh):
    """A round of two peers on a mesh: everything that a validator and a peer compute in it."""
    task, steps = node(kind, mesh)
    batches = [TOKENS, TOKENS[::-1].copy()]
    state = steps.peer.training.init(task.params)
    arrays, gradients = [], []
    for batch in batches:
        found, state = steps.peer.training.run(task.params, state, [batch])
        arrays.append(steps.peer.encode(steps.peer.init(task.params), found)[0])
        gradients.append(fetched(found))
    sent = [lambda one=one: steps.validator.inspect(one)[0] for one in arrays]
    assert all(bool(steps.validator.inspect(one)[1]) for one in arrays)
    update = combine_sent(steps.validator.combine, sent, divisor=2, places=2)
    loss = steps.loss(task.params, TOKENS)
    scores = steps.validator.evaluate(
        task.params,
        sent[0](),
        None,
        batches[0],
        batches[1],
        steps.loss(task.params, batches[1]),
        np.float32(1e-3),
    )
    after = steps.apply(jax.tree.map(jnp.copy, task.params), update, np.float32(1e-3))
    return SimpleNamespace(
        gradients=gradients,
        update=fetched(update),
        scores={name: float(score) for name, score in scores.items()},
        loss=float(loss),
        after=fetched(after),
        probe=np.asarray(steps.peer.probe(task.params, jax.random.key(3))),
    )


@functools.cache
def on_one_device(kind):
    return round_of(kind, ONE)


@pytest.mark.parametrize(("kind", "mesh"), [("demo", (2, 2, 2)), ("sparseloco", (1, 4, 2))])
def test_a_round_on_several_devices_is_that_of_one(kind, mesh):
    """Floats are added in another order, so losses agree to 1e-5, gradients to 1e-4 of the largest, and nearly all signs."""
    one, several = on_one_device(kind), round_of(kind, mesh)
    assert several.loss == pytest.approx(one.loss, abs=1e-5)
    for expected, got in zip(jax.tree.leaves(one.gradients), jax.tree.leaves(several.gradients), strict=True):
        atol = (1e-4 if kind == "demo" else 5e-3) * np.abs(expected).max()  # AdamW's first steps are signs
        assert np.mean(np.abs(got - expected) > atol) < (1e-6 if kind == "demo" else 1e-3)
    for name, score in one.scores.items():
        assert several.scores[name] == pytest.approx(score, rel=0.02, abs=2e-5)
        assert abs(score) > 1e-4
    equal = [
        np.mean(np.abs(a - b) <= 1e-2 * np.abs(b).max())
        for a, b in zip(jax.tree.leaves(several.update), jax.tree.leaves(one.update), strict=True)
    ]
    assert min(equal) > 0.97
    for a, b in zip(jax.tree.leaves(several.after), jax.tree.leaves(one.after), strict=True):
        assert np.mean(np.abs(a - b) <= 1e-5) > 0.97
    np.testing.assert_array_equal(several.probe, one.probe)


def test_a_checkpoint_goes_on_on_another_mesh(tmp_path):
    """Parameters, residual and an optimizer's moments, to the bit, each piece where the new mesh wants it."""

    def state_of(mesh):
        task, steps = node("sparseloco", mesh)
        return {
            "params": task.params,
            "residual": steps.peer.init(task.params),
            "training": steps.peer.training.init(task.params),
        }

    task, steps = node("sparseloco", (1, 4, 2))
    state = state_of((1, 4, 2))
    found, state["training"] = steps.peer.training.run(task.params, state["training"], [TOKENS])
    state["residual"] = steps.peer.encode(state["residual"], found)[1]
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, {})
        checkpoints.wait()
        for mesh in (ONE, (2, 2, 2)):
            like = state_of(mesh)
            restored = checkpoints.restore_newest(like)
            assert restored is not None
            assert params_digest(restored[1]) == params_digest(state)
            for got, wanted in zip(jax.tree.leaves(restored[1]), jax.tree.leaves(like), strict=True):
                assert got.sharding.is_equivalent_to(wanted.sharding, got.ndim)


def test_parts_hold_the_same_blocks_whatever_the_mesh():
    """An artifact in four parts, from four devices along fsdp and from one: the same arrays, which come back to the same blocks."""
    made = {}
    for mesh in (ONE, (1, 4, 2)):
        config = config_of("demo", mesh, parts=4)
        task = make_task(config, CORPUS)
        steps = Steps(config, task)
        arrays, _ = steps.peer.encode(steps.peer.init(task.params), gradient())
        assert set(arrays) == {
            f"{field}_{part}" for field in ("indices", "codes", "scales") for part in range(4)
        }
        assert {name: spec.shape for name, spec in steps.payload.schema.items()} == {
            name: array.shape for name, array in arrays.items()
        }
        sent, well_formed = steps.validator.inspect(arrays)
        assert well_formed
        made[mesh] = (arrays, params_digest(sent))
    (one, sent), (four, again) = made.values()
    assert sent == again
    for name, array in one.items():
        np.testing.assert_array_equal(array, four[name])
    whole, _ = node("demo", ONE)[1].peer.encode(node("demo", ONE)[1].peer.init(None), gradient())
    assert sum(array.nbytes for array in one.values()) == sum(array.nbytes for array in whole.values())
    assert params_digest(node("demo", ONE)[1].validator.inspect(whole)[0]) == sent
