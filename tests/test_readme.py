"""What the README shows runs as it stands there."""

import dataclasses
import re
import shutil
from pathlib import Path

from gauntlet_jax.build import build_simulation
from gauntlet_jax.cli.overrides import load_config
from gauntlet_jax.config import Config
from gauntlet_jax.training.model import DecoderConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_score_of_the_readme_runs_and_is_recorded(tmp_path: Path):
    (block,) = re.findall(r"```python\n(\"\"\"configs/with_my_score.py.*?)```", README, re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 15
    shutil.copy(ROOT / "configs" / "quickstart.py", tmp_path)
    (tmp_path / "with_my_score.py").write_text(block)
    config = load_config(str(tmp_path / "with_my_score.py"), Config)
    small = dataclasses.replace(
        config,
        rounds=2,
        baseline="none",
        store="memory",
        model=DecoderConfig(width=16, layers=1, heads=2, intermediate=32),
        data=dataclasses.replace(config.data, length=16, batch=8, heldout=8, max_bytes=400_000),
    )
    folder = tmp_path / "run"
    folder.mkdir()
    simulation = build_simulation(small, folder)
    records = [simulation.run_round() for _ in range(2)]
    simulation.close()
    by_behavior = {peer.behavior: peer for peer in records[-1].peers}
    assert by_behavior["honest"].scores["alignment"] > 0 > by_behavior["sign_flip"].scores["alignment"]


def test_every_path_that_the_readme_names_exists():
    package = ROOT / "gauntlet_jax"
    table = README[README.index("## From the paper to the code") :]
    for row in re.findall(r"^\|.*\|$", table, re.MULTILINE):
        folder = None
        for name in re.findall(r"`([\w/]+\.py)`", row):
            folder = name.rpartition("/")[0] or folder
            assert (package / (name if "/" in name else f"{folder}/{name}")).is_file(), name
