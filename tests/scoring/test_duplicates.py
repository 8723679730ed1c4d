import math

import pytest

from gauntlet_jax.scoring import first_of_duplicates


@pytest.mark.parametrize(
    ("digests", "times", "expected"),
    [
        (["a", "b", "c"], [1.0, 2.0, 3.0], [None, None, None]),
        (["a", "b", "a"], [2.0, 0.0, 1.0], [2, None, None]),
        (["a", "a", "a"], [1.0, 1.0, 1.0], [None, 0, 0]),
        (["a", "a", "a"], [3.0, 2.0, 1.0], [2, 2, None]),
        ([None, None, "a"], [1.0, 1.0, None], [None, None, None]),
        (["a", "a", "a"], [None, math.nan, 9.0], [2, 2, None]),
        (["a", "a"], [None, None], [None, 0]),
        ([], [], []),
    ],
)
def test_the_earliest_owns_the_payload(digests, times, expected):
    assert first_of_duplicates(digests, times) == expected


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 digests but 1 upload times"):
        first_of_duplicates(["a", "b"], [1.0])


def test_at_equal_times_the_smallest_tiebreak_owns_it():
    assert first_of_duplicates(["a", "a", "a"], [1.0, 1.0, 2.0], tiebreak=[7, 3, 1]) == [1, None, 1]
    with pytest.raises(ValueError, match="3 digests but 2 tiebreaks"):
        first_of_duplicates(["a", "a", "a"], [1.0, 1.0, 2.0], tiebreak=[7, 3])
