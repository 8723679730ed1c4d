import math

import pytest

from gauntlet_jax.scoring import Observation, Refusal, Window, refusal

GOOD = Observation(uploaded_at=15.0, malformed=None, sync_score=0.0, duplicate_of=None)
WINDOW = Window(opens=10.0, closes=20.0)


def judge(**changes):
    return refusal(GOOD._replace(**changes), WINDOW, max_sync_score=1.5)


def test_a_good_artifact_passes_and_so_do_the_edges():
    for changes in ({}, {"uploaded_at": 10.0}, {"uploaded_at": 19.999}, {"sync_score": 1.5}):
        assert judge(**changes) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"uploaded_at": None}, Refusal("missing", "no artifact in its bucket")),
        ({"uploaded_at": math.nan}, Refusal("missing", "no artifact in its bucket")),
        ({"uploaded_at": 7.0}, Refusal("early", "uploaded 3.0 s before the window opened")),
        ({"uploaded_at": 20.0}, Refusal("late", "uploaded 0.0 s after the window closed")),
        ({"uploaded_at": 23.0}, Refusal("late", "uploaded 3.0 s after the window closed")),
        ({"uploaded_at": None, "unreachable": "no answer"}, Refusal("unreachable", "no answer")),
        ({"uploaded_at": None, "malformed": "no answer"}, Refusal("malformed", "no answer")),
        ({"malformed": "2 tensors too many"}, Refusal("malformed", "2 tensors too many")),
        ({"uncommitted": "no commit"}, Refusal("uncommitted", "no commit")),
        ({"altered": "round 3"}, Refusal("altered", "round 3")),
        ({"sync_score": None}, Refusal("out_of_sync", "no usable sync probe")),
        ({"sync_score": math.nan}, Refusal("out_of_sync", "no usable sync probe")),
        ({"sync_score": math.inf}, Refusal("out_of_sync", "no usable sync probe")),
        (
            {"sync_score": 2.3},
            Refusal("out_of_sync", "2.30 signed steps from the validator's parameters, 1.50 allowed"),
        ),
        ({"duplicate_of": "ada"}, Refusal("duplicate", "same payload as ada")),
    ],
)
def test_each_refusal(changes, expected):
    assert judge(**changes) == expected


def test_the_cheapest_check_speaks_first():
    wrong = {
        "altered": "round 3",
        "duplicate_of": "ada",
        "sync_score": None,
        "uncommitted": "no commit",
        "malformed": "too large",
        "uploaded_at": 99.0,
    }
    reasons = []
    while wrong:
        verdict = judge(**wrong)
        assert verdict is not None
        reasons.append(verdict.reason)
        wrong.popitem()
    assert reasons == ["late", "malformed", "uncommitted", "out_of_sync", "duplicate", "altered"]
