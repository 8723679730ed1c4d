"""``gauntlet``: picks the command, and turns what a user can mend into one line and an exit code.

Exit codes: 0 good, 1 the answer is no, 2 wrong use, 130 stopped by Ctrl-C. A programming error keeps its
traceback: commands raise ``UsageError`` where they judge what a user gave, and nothing else is caught here.
"""

import difflib
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence

from gauntlet_jax.cli.run_folder import UsageError

COMMANDS: Mapping[str, str] = {
    "simulate": "train a model with honest and cheating peers, score them, pay them",
    "ledger": "keep the ledger of a shared run, or look at one",
    "peer": "take part in a shared run as a peer: train, compress, upload, be paid",
    "validator": "take part in a shared run as a validator: judge, post, veto",
    "doctor": "look for what would keep a peer or a validator from taking part, before it does",
    "plan": "say whether a run fits chips that need not be there, and how long its rounds take",
    "follow": "watch a shared run from outside, and keep its records for report and explain",
    "report": "write a run as one self-contained HTML page",
    "lab": "measure a question of the method on small runs: figure2, stability, economics",
    "audit": "compute a run again from its artifacts, records and ledger alone, and say where it differs",
    "explain": "say why a peer was paid what it was paid, in the whole run or in one round",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      arguments: what follows ``gauntlet`` on the command line; None = this process's own arguments.

    Returns:
      The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    try:
        return _command(given[0])(given[1:])
    except UsageError as error:
        print(f"gauntlet: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gauntlet: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe (head, less) has left: nothing went wrong. Closing standard error keeps
        # the interpreter from complaining about the flush at its end.
        sys.stderr.close()
        return 0


def overview() -> str:
    """The text of ``gauntlet --help``: one line a command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(
        [
            "usage: gauntlet COMMAND ...",
            "",
            "Strangers train one language model together, and cheating does not pay.",
            "",
            "commands:",
            *lines,
            "",
            "gauntlet COMMAND --help explains each.",
        ]
    )


def _command(name: str) -> Callable[[Sequence[str]], int]:
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.0)[0]
        raise UsageError(
            f"there is no command {name!r}; the nearest is {near!r} (gauntlet --help lists them)"
        )
    # Imported only now: a command brings in what it needs (jax takes seconds), and --help must not.
    module = importlib.import_module(f"gauntlet_jax.cli.{name}")
    return module.run


if __name__ == "__main__":
    sys.exit(main())
