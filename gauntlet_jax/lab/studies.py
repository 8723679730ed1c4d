"""All studies by name."""

from collections.abc import Mapping

from gauntlet_jax.lab.economics import ECONOMICS
from gauntlet_jax.lab.figure2 import FIGURE2
from gauntlet_jax.lab.stability import STABILITY
from gauntlet_jax.lab.study import Study

STUDIES: Mapping[str, Study] = {study.name: study for study in (FIGURE2, STABILITY, ECONOMICS)}
