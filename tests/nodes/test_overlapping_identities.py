import dataclasses
import json
from itertools import pairwise

import numpy as np

from gauntlet_jax.config import PeerConfig
from gauntlet_jax.nodes.attacks import HONEST
from gauntlet_jax.nodes.peer import Arrays, Turn
from gauntlet_jax.types import PeerHistory


def _nearly_the_same(turn: Turn, arrays: Arrays) -> Arrays:
    """Another identity's coefficients with other values: no duplicate, and as good as one."""
    first = dict(turn.others(0))["ada"]
    del arrays
    return {**first, "codes": first["codes"] ^ np.uint8(3), "scales": first["scales"] + np.uint16(0x40)}


TWIN = dataclasses.replace(HONEST, artifact=_nearly_the_same, uploads_at=0.7)


def test_the_later_of_two_alike_is_slashed_from_the_second_round_on_and_honest_pairs_never(tiny, started):
    # The twin stands first, so that blaming the first of a pair would be seen.
    names = ("ada", "ben", "cleo", "dov", "eva")
    # What the validator knows goes through a checkpoint's JSON after every round: it must all come back.
    simulation = started(tiny(peers=(PeerConfig("twin", TWIN), *map(PeerConfig, names))))
    slashed, helped = [], []
    for _ in range(10):
        record = simulation.run_round()
        assert all(peer.refusal is None for peer in record.peers)
        validator = simulation._panel.seats[0].validator
        known = json.dumps(validator.state())
        validator._memory.suspected[:] = False
        validator._memory.histories = [PeerHistory()] * 6
        validator.restore(json.loads(known))
        scores = {peer.name: peer.scores["random"] for peer in record.peers}
        helped.append(scores["twin"] > 0 and scores["ada"] > 0)
        slashed.append({peer.name: peer.slashed for peer in record.peers if peer.slashed})
    # What does not lower the loss is left out of the comparison, and a pair must stand out two rounds running.
    expected = [
        {"twin": ("overlap",)} if now and before else {} for before, now in pairwise([False, *helped])
    ]
    assert slashed == expected
    assert sum(map(bool, slashed)) >= 6
    assert record.peers[0].behavior == "custom"
    assert 0 < record.peers[0].standing <= 0.75**3
