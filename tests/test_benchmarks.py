"""The benchmark at a tiny size: every row is there, has a bound that can be missed, and measures what it says."""

import io
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from benchmarks import plain_form
from benchmarks.compression_rows import aggregate_rows, bits_rows, encode_rows
from benchmarks.measurement import Row, smallest, table_of
from benchmarks.peak_memory import peak_bytes
from benchmarks.round_rows import evaluation_rows, round_rows
from benchmarks.subject import SMALL, subject
from benchmarks.validator_rows import rating_rows
from rich.console import Console

from gauntlet_jax.nodes.aggregation import combine_sent


@pytest.fixture(scope="module")
def small():
    return subject(SMALL, batch=8, length=8)


def printed(rows):
    text = io.StringIO()
    Console(file=text, width=200).print(table_of(rows))
    return text.getvalue()


def test_the_table_of_tiny_sizes(small):
    rows = [
        *encode_rows(small, None, repeats=1),
        *aggregate_rows(small, None, repeats=1),
        *evaluation_rows(small, repeats=1),
        *round_rows(small, repeats=1),
        *bits_rows(),
        *rating_rows(peers=4, repeats=1),
    ]
    assert len(rows) == 8
    lines = printed(rows).splitlines()
    for row in rows:
        assert math.isfinite(row.number) and row.number > 0 and row.most > 0
        (line,) = [line for line in lines if row.what in line]
        assert ("reached" in line) == row.reached and ("MISSED" in line) != row.reached


def test_the_other_codes_row_has_the_bound_of_the_comparison(small):
    asked = []
    rows = [*encode_rows(small, asked.append, repeats=2), *aggregate_rows(small, asked.append, repeats=2)]
    assert [row.most for row in rows] == [1.0, 1.0, 1.0, 0.35]
    assert asked == 9 * ["encode"] + 9 * ["aggregate"]  # three turns of three
    assert not rows[1].reached and not rows[3].reached, "nothing is faster than nothing"


def test_bounds():
    good, bad, none = Row("a", "", 1.0, 1.0), Row("b", "", 1.01, 1.0), Row("c", "", math.nan, 1.0)
    assert (good.reached, bad.reached, none.reached) == (True, False, False)
    assert printed([good, bad, none]).count("MISSED") == 2


def test_acts_take_turns_and_the_first_does_not_count():
    order = []
    times = smallest(lambda: order.append("a"), lambda: order.append("b"), repeats=2)
    assert order == ["a", "b"] * 3 and len(times) == 2 and max(times) < 1


def test_the_plain_form_gives_the_same_bytes(small):
    fmt, steps = small.task.compressor.format, small.steps
    beta = small.config.compression.beta
    fast, residual = steps.peer.encode(steps.peer.init(small.task.params), small.gradient)
    packed, left = jax.jit(lambda e, g: plain_form.encode(fmt, beta, e, g))(
        small.task.compressor.init(small.task.params), small.gradient
    )
    arrays = steps.payload.arrays(packed)
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        name: np.asarray(array).tobytes() for name, array in fast.items()
    }
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(residual), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_plain_form_aggregates_to_the_same_signs(small):
    steps = small.steps
    gradients = [jax.tree.map(lambda leaf, by=by: leaf + by, small.gradient) for by in (0.0, 0.3)]
    arrays = [steps.peer.encode(steps.peer.init(small.task.params), gradient)[0] for gradient in gradients]
    sent = [lambda one=one: steps.validator.inspect(one)[0] for one in arrays]
    update = combine_sent(steps.validator.combine, sent, divisor=2, places=2)
    peers = jax.tree.map(
        lambda *leaves: np.stack(leaves), *(steps.payload.cut(steps.payload.take(one)) for one in arrays)
    )
    plain = jax.jit(lambda peers: plain_form.aggregate(small.task.compressor.format, peers))(peers)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(update), strict=True):
        assert np.mean(np.asarray(one) == np.asarray(other)) > 0.995  # some sums are nearly zero
        assert np.mean(np.abs(one)) > 0.9


def test_a_process_does_not_inherit_the_peak_of_the_one_that_starts_it():
    """As it would with getrusage, and then a benchmark of memory measures its parent."""
    held = np.ones(60_000_000)  # 480 MB
    command = [sys.executable, "-c", "from benchmarks.peak_memory import peak_bytes; print(peak_bytes())"]
    told = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    ).stdout
    assert 1e7 < int(told) < held.nbytes < peak_bytes()
