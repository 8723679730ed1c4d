"""The numbers that this project lives by, as one table of ratios measured in one run.

    python tests/benchmarks/bench.py [--only NAME] [--reference PATH [--reference-python PYTHON]]

Machines are shared and noisy: what is compared is done in turn, and the smallest of several times of each is taken. With --reference,
a checkout of the public PyTorch system (github.com/tplr-ai/templar, version 1.0.20), its own code is timed in the same turns, in a
process of PYTHON, where torch is installed. Ends with exit code 1 where a bound is missed.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.compression_rows import aggregate_rows, bits_rows, encode_rows, started
from benchmarks.measurement import Row, table_of
from benchmarks.round_rows import evaluation_rows, peers_rows, round_rows
from benchmarks.subject import subject
from benchmarks.validator_rows import memory_rows, rating_rows, strangers_rows

from gauntlet_jax.cli import libraries

OF_A_NODE: dict[str, Callable[..., Iterator[Row]]] = {"evaluation": evaluation_rows, "round": round_rows}
AGAINST_THE_REFERENCE: dict[str, Callable[..., Iterator[Row]]] = {
    "encode": encode_rows,
    "aggregate": aggregate_rows,
}
ALONE: dict[str, Callable[..., Iterator[Row]]] = {
    "bits": bits_rows,
    "rating": rating_rows,
    "memory": memory_rows,
    "peers": peers_rows,
    "strangers": strangers_rows,
}
NAMES = [*AGAINST_THE_REFERENCE, *OF_A_NODE, *ALONE]


def measure(names: Iterable[str], reference: Path | None, python: str) -> Iterator[Row]:
    """The rows of these names, in the order of ``NAMES``; says on stderr what it is at."""
    wanted = [name for name in NAMES if name in set(names)]
    node = functools.cache(subject)
    for number, name in enumerate(wanted):
        print(f"[{number + 1}/{len(wanted)}] {name} ...", file=sys.stderr, flush=True)
        if name in ALONE:
            yield from ALONE[name]()
        elif name in OF_A_NODE:
            yield from OF_A_NODE[name](node())
        else:
            with started(reference, python, node()) as theirs:
                yield from AGAINST_THE_REFERENCE[name](node(), theirs)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", choices=NAMES, action="append", help="these rows, may be given several times"
    )
    parser.add_argument("--reference", type=Path, help="a checkout of the public PyTorch system")
    parser.add_argument("--reference-python", default=sys.executable, help="a Python that has torch")
    given = parser.parse_args()
    libraries.quiet()
    rows = []
    for row in measure(given.only or NAMES, given.reference, given.reference_python):
        print(f"    {row.what}: {row.told}", file=sys.stderr, flush=True)  # the table comes minutes later
        rows.append(row)
    Console(width=None if sys.stdout.isatty() else 150).print(table_of(rows))
    return int(not all(row.reached for row in rows))


if __name__ == "__main__":
    sys.exit(main())
