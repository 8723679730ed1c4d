"""The house rules: arrows between layers point down, and a few names stay where they belong."""

import ast
import functools
import sys
from pathlib import Path

import pytest

PACKAGE = "gauntlet_jax"
ROOT = Path(__file__).parents[1] / PACKAGE
FILES = sorted(ROOT.rglob("*.py"))

LAYERS = {
    "types": 0,
    "compression": 1,
    "scoring": 1,
    "training": 2,
    "storage": 3,
    "rewards": 3,
    "nodes": 4,
    "config": 5,
    "config_check": 5,
    "stored_config": 5,
    "terms": 5,
    "build": 5,
    "lab": 5,
    "planning": 5,
    "testing": 5,
    "cli": 6,
}

# Pairs of one layer that must not meet, and rooms that must not be seen from another though they lie lower.
STRANGERS = {
    "compression": ["scoring"],
    "scoring": ["compression", "rewards"],
    "storage": ["rewards"],
    "rewards": ["scoring", "storage"],  # but for who signs, see below
    "nodes.peer": ["nodes.validator", "rewards.incentive", "rewards.yuma"],
}

# A ledger takes signed calls, so it knows keys and signatures; where artifacts lie it must not know.
SIGNING = ["storage.identity", "storage.signed_json"]

PURE = {
    "jax",
    "numpy",
    "optax",
    "jaxtyping",
}  # beside the standard library: what compression and scoring may import
MOST_LINES = 400
VAGUE_NAMES = {"utils", "util", "common", "core", "helpers", "helper", "misc"}


def module_of(path, root=ROOT):
    """``compression.topk`` of ``.../gauntlet_jax/compression/topk.py``; "" of the package itself."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(tree, module, *, is_package=False):
    """Every absolute name that a file imports anywhere: of ``from a import b`` both ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                here = [PACKAGE, *filter(None, module.split("."))]
                here = here[: len(here) - node.level + (1 if is_package else 0)]
                origin = ".".join([*here, origin] if origin else here)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def within(name, room):
    return name == room or name.startswith(room + ".")


def within_any(name, rooms):
    # ``from gauntlet_jax.storage import signed_json`` names the room itself too.
    return name == "storage" or any(within(name, room) for room in rooms)


def own(names):
    """The package's own modules among imported names, without the package's name."""
    return {name.removeprefix(PACKAGE + ".") for name in names if name.startswith(PACKAGE + ".")}


def faults_of(module, tree, *, is_package=False):
    """What a file's imports and calls break, one line each."""
    names = set(imports(tree, module, is_package=is_package))
    room = module.split(".")[0]
    faults = []
    for name in own(names):
        other = name.split(".")[0]
        if other not in LAYERS:
            faults.append(f"imports {name}, which has no layer")
        elif room and LAYERS[other] > LAYERS[room]:
            faults.append(f"imports {name}, which lies above")
    for subject, strangers in STRANGERS.items():
        if within(module, subject):
            faults += [
                f"must not know {name}"
                for name in own(names)
                for s in strangers
                if within(name, s) and not (subject == "rewards" and within_any(name, SIGNING))
            ]
    tops = {name.split(".")[0] for name in names}
    if room in ("compression", "scoring"):
        faults += [f"imports {top}" for top in tops - PURE - set(sys.stdlib_module_names) - {PACKAGE}]
        faults += [f"imports {name}" for name in own(names) if name.split(".")[0] not in (room, "types")]
    if room != "storage" and "tensorstore" in tops:
        faults.append("imports tensorstore outside storage")
    if module != "rewards.bittensor_sdk" and "bittensor" in tops:
        faults.append("imports a chain's kit outside its own file")
    if tops & {"pickle", "cloudpickle", "dill", "marshal", "shelve"}:
        faults.append("imports a way to run what it reads")
    faults += [f"line {line}: {what}" for line, what in uses(tree, names, in_cli=room == "cli")]
    return faults


def uses(tree, names, *, in_cli):
    """Calls and attributes that only the command line may use, and some that nobody may."""
    from_os = {f"os.{name}" for name in ("environ", "getenv", "putenv", "environb")} & names
    if from_os and not in_cli:
        yield 0, "reads the environment"
    for node in ast.walk(tree):
        dotted = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("eval", "exec")
        ):
            yield node.lineno, f"calls {node.func.id}"
        if dotted.endswith(".load") and dotted.split(".")[0] in ("np", "numpy"):
            yield node.lineno, "np.load reads pickles"
        if in_cli:
            continue
        if dotted in ("os.environ", "os.getenv", "os.putenv", "os.environb"):
            yield node.lineno, "reads the environment"
        if dotted.endswith("config.update") and dotted.split(".")[0] in ("jax", "config"):
            yield node.lineno, "sets jax.config"
        if dotted.endswith("distributed.initialize"):
            yield node.lineno, "starts jax.distributed"


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path) or PACKAGE)
def test_a_file_keeps_the_house_rules(path):
    module = module_of(path)
    assert not module or module.split(".")[0] in LAYERS, f"{path} belongs to no layer"
    assert faults_of(module, tree_of(path), is_package=path.name == "__init__.py") == []
    assert not VAGUE_NAMES & set(module.split(".")), "a name that says nothing"
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{lines} lines: this file is two rooms"


@pytest.mark.parametrize("package", sorted({path.parent for path in FILES}), ids=lambda path: path.name)
def test_no_import_goes_round_in_a_circle(package):
    """Within a room too, data flows one way."""
    modules = {module_of(path): path for path in package.glob("*.py")}
    needs = {
        module: own(imports(tree_of(path), module, is_package=path.name == "__init__.py"))
        & set(modules) - {module}
        for module, path in modules.items()
        if path.name != "__init__.py"  # which gathers the names of its room
    }
    while free := [module for module, needed in needs.items() if not needed & set(needs)]:
        for module in free:
            del needs[module]
    assert needs == {}


def test_the_files_are_found():
    found = {module_of(path).split(".")[0] for path in FILES}
    assert {
        "types",
        "compression",
        "scoring",
        "training",
        "storage",
        "rewards",
        "nodes",
        "config",
        "config_check",
        "stored_config",
        "cli",
    } <= found
    assert len(FILES) > 40


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("compression.topk", "from gauntlet_jax.training import model"),
        ("compression.topk", "from gauntlet_jax import training"),
        ("compression.topk", "from ..training.model import Decoder"),
        ("compression.topk", "def f():\n    import gauntlet_jax.nodes.peer"),
        ("compression.topk", "from gauntlet_jax.scoring import overlap"),
        ("compression.topk", "import flax"),
        ("scoring.overlap", "import tensorstore as ts"),
        ("scoring.overlap", "from gauntlet_jax.rewards import incentive"),
        ("rewards.incentive", "from gauntlet_jax.scoring import rate"),
        ("rewards.sqlite_ledger", "from gauntlet_jax.storage import bucket"),
        ("rewards.sqlite_ledger", "from gauntlet_jax.storage.bucket import Bucket"),
        ("storage.bucket", "from gauntlet_jax.rewards.ledger import Ledger"),
        ("nodes.peer", "from gauntlet_jax.nodes.validator import Validator"),
        ("nodes.peer", "from gauntlet_jax.nodes import validator"),
        ("nodes.peer", "from . import validator"),
        ("nodes.peer", "from gauntlet_jax.rewards import incentive"),
        ("nodes.peer", "from gauntlet_jax.rewards.yuma import consensus"),
        ("nodes.clock", "from gauntlet_jax.config import Config"),
        ("nodes.clock", "from gauntlet_jax.cooking import stew"),
        ("nodes.clock", "import tensorstore"),
        ("rewards.bittensor_ledger", "import bittensor"),
        ("nodes.clock", "import os\nos.environ['X']"),
        ("nodes.clock", "import os\nos.getenv('X')"),
        ("nodes.clock", "from os import environ"),
        ("training.model", "import jax\njax.config.update('jax_enable_x64', True)"),
        ("training.model", "import jax\njax.distributed.initialize()"),
        ("storage.artifact", "import pickle"),
        ("storage.artifact", "from pickle import loads"),
        ("cli.main", "eval('1')"),
        ("cli.main", "import numpy as np\nnp.load('x')"),
    ],
)
def test_a_broken_rule_is_found(module, source):
    assert faults_of(module, ast.parse(source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("compression.topk", "import math\nimport jax.numpy as jnp\nfrom gauntlet_jax.types import Params"),
        ("compression.topk", "from gauntlet_jax.compression.chunking import Layout\nfrom . import dct"),
        ("training.sharding", "from gauntlet_jax.compression.chunking import block_side"),
        ("nodes.validator", "from gauntlet_jax.rewards.incentive import incentives"),
        ("nodes.validator", "from gauntlet_jax.nodes.peer import Opening"),
        ("storage.bucket", "import tensorstore as ts"),
        ("rewards.ledger_service", "from gauntlet_jax.storage import signed_json"),
        ("rewards.bittensor_sdk", "def f():\n    import bittensor"),
        ("cli.main", "import os, jax\njax.config.update('x', os.environ['X'])\njax.distributed.initialize()"),
        ("nodes.validator", "self.evaluate(x)\nmodel.eval()\nsettings.update(a=1)"),
    ],
)
def test_what_is_allowed_is_no_fault(module, source):
    assert faults_of(module, ast.parse(source)) == []
