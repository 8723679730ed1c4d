"""The quickstart with seven validators, four of which misbehave: a lead that lies, a liar, a copier of weights and a silent one.

    gauntlet simulate configs/validators.py

Takes about three minutes on two CPU cores. Expected: the lying lead's records are vetoed, the liar's friend earns nothing by its
weights, and each misbehaving validator earns less for its stake than the honest ones.
"""

import dataclasses

from quickstart import get_config as quickstart

from gauntlet_jax.config import Config, ValidatorConfig


def get_config() -> Config:
    """The experiment's config."""
    base = quickstart()
    return dataclasses.replace(
        base,
        name="validators",
        validators=(
            ValidatorConfig("lex", stake=28, behavior="lying_lead", friend="jon"),
            ValidatorConfig("uma", stake=22),
            ValidatorConfig("vic", stake=18),
            ValidatorConfig("wyn", stake=12),
            ValidatorConfig("xia", stake=8, behavior="copier"),
            ValidatorConfig("yan", stake=7, behavior="liar", friend="gus"),
            ValidatorConfig("zoe", stake=5, behavior="silent"),
        ),
        # Each evaluates five of the twelve peers a round, drawn by its own name, so that honest validators differ.
        validator=dataclasses.replace(base.validator, sample_size=5),
        baseline="none",
    )
