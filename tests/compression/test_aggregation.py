import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from gauntlet_jax.compression import SparseTensor, clipped_mean, demo, signed_mean, sparseloco
from gauntlet_jax.compression import combine as combine_lazily

SHAPES = {"m": (6, 8), "v": (10,)}
PARAMS = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
PEERS = 3
DEMO, LOCO = demo(PARAMS, k=3, bits=32), sparseloco(PARAMS, k=3, bits=32)
RULES = {
    "paper": signed_mean(DEMO.format),
    "chunk": signed_mean(DEMO.format, norm="chunk"),
    "senders": signed_mean(DEMO.format, norm="chunk", divisor="senders"),
    "clipped": clipped_mean(LOCO.format),
}
THIRD = np.full(PEERS, 1 / 3, np.float32)


def combined(aggregator, peers, weights):
    return combine_lazily(aggregator, [lambda peer=peer: peer for peer in peers], weights)


@functools.cache
def combine(rule):
    return jax.jit(functools.partial(combined, RULES[rule]))


@functools.cache
def encoder(kind):
    compressor = {"demo": DEMO, "loco": LOCO}[kind]
    return jax.jit(lambda gradient: compressor.update(compressor.init(PARAMS), gradient)[0])


def sent_by(rule, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    gradient = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}
    sent = encoder("loco" if rule == "clipped" else "demo")(gradient)
    return scaled(sent, scale)


def scaled(sent, by):
    return {name: leaf._replace(codes=leaf.codes * np.float32(by)) for name, leaf in sent.items()}


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def oracle(rule, peers, weights):
    """Both rules in double precision, one peer and one coefficient at a time."""
    update = {}
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))  # one block a tensor
        total, senders = np.zeros(size), np.zeros(size)
        values = [np.asarray(p[name].codes, np.float64).reshape(-1) for p in peers]
        norms = [np.linalg.norm(v) for v in values]
        chosen = sorted(n for n, w in zip(norms, weights, strict=True) if w > 0)
        for peer, value, norm, weight in zip(peers, values, norms, weights, strict=True):
            if weight == 0:
                continue
            clipped = min(1.0, chosen[(len(chosen) - 1) // 2] / norm)
            factor = clipped if rule == "clipped" else 1.0 / norm
            for index, entry in zip(np.asarray(peer[name].indices).reshape(-1), value, strict=True):
                total[index] += weight * factor * entry
                senders[index] += 1
        if rule == "senders":
            total /= np.maximum(senders, 1)
        if rule == "clipped":
            update[name] = total.reshape(shape)
        else:
            update[name] = np.sign(scipy.fft.idctn(total.reshape(shape), norm="ortho"))
    return update


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("weights", [THIRD, np.array([0.5, 0.0, 0.5], np.float32)])
def test_numpy_combines_the_same(rule, weights):
    peers = [sent_by(rule, seed, scale) for seed, scale in [(0, 1.0), (1, 5.0), (2, 0.3)]]
    update, expected = combine(rule)([*peers], weights), oracle(rule, peers, weights)
    for name, shape in SHAPES.items():
        assert update[name].shape == shape and update[name].dtype == jnp.float32
        np.testing.assert_allclose(update[name], expected[name], atol=1e-5)
        assert np.any(expected[name])


def test_a_norm_per_chunk_and_per_tensor_differ_and_are_numpys():
    params = {"m": jax.ShapeDtypeStruct((4, 130), jnp.float32)}  # five blocks of 4 x 26
    compressor = demo(params, k=3, bits=32)
    rng = np.random.default_rng(0)
    sizes = 10.0 ** np.repeat(np.arange(5.0), 26)
    peers = [
        compressor.update(
            compressor.init(params), {"m": jnp.asarray(rng.normal(size=(4, 130)) * order, jnp.float32)}
        )[0]
        for order in (sizes, sizes[::-1])
    ]
    results = {}
    for norm in ("tensor", "chunk"):
        update = combined(signed_mean(compressor.format, norm=norm), peers, jnp.array([0.5, 0.5]))
        total = np.zeros((5, 4 * 26))
        for peer in peers:
            values = np.asarray(peer["m"].codes, np.float64).reshape(5, 3)
            length = np.linalg.norm(values, axis=1 if norm == "chunk" else None, keepdims=True)
            for row in range(5):
                total[row, np.asarray(peer["m"].indices)[0, row]] += (values / length)[row] / 2
        back = scipy.fft.idctn(total.reshape(5, 4, 26), norm="ortho", axes=(1, 2))
        expected = back.transpose(1, 0, 2).reshape(4, 130)
        sure = np.abs(expected) > 1e-6
        np.testing.assert_array_equal(np.asarray(update["m"])[sure], np.sign(expected)[sure])
        assert sure.mean() > 0.9
        results[norm] = np.asarray(update["m"])
    assert (results["tensor"] != results["chunk"]).mean() > 0.05


def by_hand(*codes):
    """Peers that send three given coefficients of v and nothing of m."""

    def peer(indices, values):
        one = jnp.uint16(0x3F80)
        return {
            "m": SparseTensor(jnp.array([[[0, 1, 2]]], jnp.int32), jnp.zeros((1, 1, 3)), one.reshape(1, 1)),
            "v": SparseTensor(jnp.array([indices], jnp.int32), jnp.array([values]), one.reshape(1)),
        }

    return [peer(*code) for code in codes]


def test_a_lone_coefficient_has_full_weight_only_with_the_divisor_of_senders():
    # Two peers send (3, 0, 4) / 5 at 0, 1, 2, one sends a lone entry of the opposite sign at 0 ... and at 5.
    peers = by_hand(([0, 1, 2], [3.0, 0.0, 4.0]), ([0, 1, 2], [3.0, 0.0, 4.0]), ([5, 6, 7], [1.0, 0.0, 0.0]))
    fixed = signed_mean(DEMO.format)
    senders = signed_mean(DEMO.format, divisor="senders")
    mean = np.zeros(10)
    mean[[0, 2, 5]] = 0.4, 1.6 / 3, 1 / 3
    lone = np.zeros(10)
    lone[[0, 2, 5]] = 0.6 / 3, 0.8 / 3, 1 / 3
    for rule, expected in ((fixed, mean), (senders, lone)):
        update = combined(rule, peers, jnp.asarray(THIRD))["v"]
        np.testing.assert_array_equal(update, np.sign(scipy.fft.idct(expected, norm="ortho")))
    assert (np.sign(scipy.fft.idct(mean)) != np.sign(scipy.fft.idct(lone))).any()


@pytest.mark.parametrize("rule", ["paper", "chunk", "senders"])
@pytest.mark.parametrize("factor", [1e6, 1e-6, 1e-20, 1e-30])
def test_magnitude_buys_nothing_under_the_signed_mean(rule, factor):
    """Not a tiny one either: squares of 1e-20 are 0 in float32, and so would be the length to divide by."""
    first, second, third = (sent_by(rule, seed) for seed in range(PEERS))
    honest = combine(rule)([first, second, third], THIRD)
    changed = combine(rule)([first, scaled(second, factor), third], THIRD)
    for name in SHAPES:
        np.testing.assert_array_equal(honest[name], changed[name])


def test_a_huge_peer_is_clipped_to_the_median():
    first, second, third = (sent_by("clipped", seed) for seed in range(PEERS))
    honest = combine("clipped")([first, second, third], THIRD)
    attacked = combine("clipped")([first, scaled(second, 1e6), third], THIRD)
    for name in SHAPES:
        codes = [np.linalg.norm(peer[name].codes) for peer in (first, second, third)]
        median = sorted([codes[0], codes[2], np.inf])[1]
        # It moves the update by its own clipped length at most, and the median by one place.
        assert np.linalg.norm(np.asarray(attacked[name])) <= median * (1 + 1e-5)
        assert np.linalg.norm(np.asarray(attacked[name]) - np.asarray(honest[name])) <= 2 * median / 3
    alone = combine("clipped")([scaled(second, 1e6), first, first], np.array([1.0, 0.0, 0.0], np.float32))
    np.testing.assert_allclose(alone["m"], 1e6 * np.asarray(LOCO.decode(second)["m"]), rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_one_peer_is_its_own_direction(rule):
    sent = sent_by(rule, 0)
    compressor = LOCO if rule == "clipped" else DEMO
    filler = sent_by(rule, 1)
    update = combine(rule)([sent, filler, filler], np.array([1.0, 0.0, 0.0], np.float32))
    own = RULES[rule].direction(compressor.decode(sent))
    for name in SHAPES:
        np.testing.assert_allclose(update[name], own[name], atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_filler_adds_nothing_to_the_bit(rule):
    first, second, third, other = (sent_by(rule, seed) for seed in range(4))
    half = np.array([0.5, 0.5, 0.0], np.float32)
    update = bits(combine(rule)([first, second, third], half))
    assert update == bits(combine(rule)([first, second, other], half))
    assert update == bits(combine(rule)([first, second, scaled(other, 1e9)], half))
    assert update == bits(combine(rule)([first, other, second], half[[0, 2, 1]]))
    assert update == bits(combine(rule)([first, second, third], half)), "the same call again"
    assert update == bits(combine(rule)([first, second], half[:2]))
    assert update == bits(combine(rule)([first, second], np.append(half, np.float32(0)))), (
        "places nobody took"
    )


@pytest.mark.parametrize("rule", RULES)
def test_nothing_sent_moves_nothing(rule):
    silent = scaled(sent_by(rule, 0), 0.0)
    for update in (
        combine(rule)([silent, silent, silent], THIRD),
        combine(rule)([sent_by(rule, 0), silent, silent], np.zeros(PEERS, np.float32)),
    ):
        for leaf in jax.tree.leaves(update):
            np.testing.assert_array_equal(leaf, 0.0)


def test_a_silent_peer_among_others_is_no_division_by_zero():
    first, third = sent_by("paper", 0), sent_by("paper", 2)
    update = combine("paper")([first, scaled(first, 0.0), third], THIRD)
    expected = combine("paper")([first, first, third], np.array([1 / 3, 0.0, 1 / 3], np.float32))
    assert bits(update) == bits(expected)


@pytest.mark.parametrize("rule", ["signed", "clipped"])
def test_a_peer_is_added_in_place(rule):
    """So that memory grows with one model, and not with the peers."""
    params = {"w": jax.ShapeDtypeStruct((256, 256), jnp.float32)}
    compressor = demo(params) if rule == "signed" else sparseloco(params)
    aggregator = signed_mean(compressor.format) if rule == "signed" else clipped_mean(compressor.format)
    sent, _ = jax.eval_shape(compressor.update, jax.eval_shape(compressor.init, params), params)
    total = jax.eval_shape(aggregator.start)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    scale = scalar if rule == "signed" else {"w": scalar}
    memory = jax.jit(aggregator.add, donate_argnums=0).lower(total, sent, scale).compile().memory_analysis()
    model = 4 * 256 * 256
    assert memory.alias_size_in_bytes == model
    assert memory.temp_size_in_bytes < model / 2
