"""A config file and typed overrides: ``gauntlet simulate configs/quickstart.py --validator.sample-size 4``.

A config file is Python that defines ``get_config()``, which returns a frozen dataclass; every field of it,
nested ones too, is a flag. Whatever is wrong with the file or a flag is one line that names it.
"""

import contextlib
import dataclasses
import difflib
import importlib.util
import io
import sys
import traceback
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from gauntlet_jax.cli.run_folder import UsageError, one_line

ConfigT = TypeVar("ConfigT")

# A field that may hold one of several classes stays what the config file made it: no subcommands.
_PLAIN = (tyro.conf.AvoidSubcommands,)


@dataclasses.dataclass(frozen=True)
class RunFlags:
    """Where the run goes, and what becomes of a run that is there.

    Attributes:
      out: run folder (default: runs/<config name>).
      resume: continue the run in the folder from its newest checkpoint, to the same bits as an unbroken one.
      overwrite: replace the run in the folder, whatever its config; only files of a run are removed.
    """

    out: Path | None = None
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def load_config(path: str, kind: type[ConfigT]) -> ConfigT:
    """Imports a config file by its path and calls its ``get_config``.

    Files beside it can be imported by name, so that one config can start from another.

    Args:
      path: a ``.py`` file.
      kind: the dataclass that ``get_config`` must return.

    Returns:
      The configuration.

    Raises:
      UsageError: no such file, no ``get_config`` in it, it raises, or it returns something else.
    """
    file = Path(path)
    if not file.is_file():
        near = sorted(file.parent.glob("*.py")) if file.parent.is_dir() else []
        close = difflib.get_close_matches(file.name, [one.name for one in near], n=1)
        hint = f"; the nearest there is {file.parent / close[0]}" if close else ""
        raise UsageError(f"no config file {path}{hint}")
    spec = importlib.util.spec_from_file_location(f"gauntlet_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file: a config is a .py file with get_config()")
    module = importlib.util.module_from_spec(spec)
    # A dataclass defined in the file looks its module up by name.
    sys.modules[spec.name] = module
    try:
        with _importable(file.parent):
            spec.loader.exec_module(module)
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            raise UsageError(f"{path} has no get_config(): define one that returns a {kind.__name__}")
        config = get_config()
    except UsageError:
        raise
    except Exception as error:  # the user's own code: whatever it raises is the user's to mend
        raise UsageError(f"{path}{_where(error, file)}: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(config, kind):
        raise UsageError(f"{path}: get_config() returned a {type(config).__name__}, not a {kind.__name__}")
    return config


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)


def apply_overrides(
    config: ConfigT, args: Sequence[str], *, program: str = "gauntlet simulate CONFIG"
) -> ConfigT:
    """The configuration with typed overrides applied; ``--help`` prints every field and exits with 0.

    Args:
      config: a dataclass instance; it is not changed.
      args: such as ``["--validator.sample-size", "4"]``; underscores do as well as dashes.
      program: what stands before them on the command line, for the help.

    Returns:
      A configuration of the same type.

    Raises:
      UsageError: an unknown flag (it names the nearest), a value of the wrong type, a value without a flag.
    """
    return _parse(type(config), config, args, program)


def apply_run_overrides(config: ConfigT, args: Sequence[str], *, program: str) -> tuple[ConfigT, RunFlags]:
    """As ``apply_overrides``, with ``--out``, ``--resume`` and ``--overwrite`` in the same help."""
    both = dataclasses.make_dataclass(
        "Simulate",
        [
            ("flags", Annotated[RunFlags, tyro.conf.arg(name="")]),
            ("config", Annotated[type(config), tyro.conf.arg(name="")]),
        ],
        frozen=True,
    )
    both.__doc__ = "Trains a model with honest and cheating peers, scores them, pays them, and reports why."
    parsed: Any = _parse(both, both(RunFlags(), config), args, program)
    return parsed.config, parsed.flags


def _parse(kind: type[ConfigT], default: ConfigT, args: Sequence[str], program: str) -> ConfigT:
    if "-h" in args or "--help" in args:
        return tyro.cli(kind, default=default, args=["--help"], prog=program, config=_PLAIN)
    parsed = _quietly(kind, default, args)
    if parsed is not None:
        value, unknown = parsed
        if not unknown:
            return value
    raise UsageError(_complaint(kind, default, args))


def _quietly(kind: type[ConfigT], default: ConfigT, args: Sequence[str]) -> tuple[ConfigT, list[str]] | None:
    """What tyro makes of ``args``: the value and what it does not know, or None where it refuses one.

    Raises:
      UsageError: the values have their types, but the configuration itself refuses them.
    """
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            return tyro.cli(
                kind,
                default=default,
                args=list(args),
                return_unknown_args=True,
                console_outputs=False,
                config=_PLAIN,
            )
        except SystemExit as error:
            judged = _judged_by_config(error)
    if judged is not None:
        raise UsageError(one_line(judged)) from judged
    return None


def _judged_by_config(error: BaseException) -> BaseException | None:
    """The error of a dataclass's own ``__post_init__`` behind tyro's exit, if that is what it was."""
    cause: BaseException | None = error
    while cause is not None:
        if any(
            frame.f_code.co_name == "__post_init__" for frame, _ in traceback.walk_tb(cause.__traceback__)
        ):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _complaint(kind: type, default: Any, args: Sequence[str]) -> str:
    """The one line for arguments that tyro refused: tried flag by flag, the first that fails is named."""
    flags = _flags(default)
    for group in _groups(args):
        given = group[0].split("=", 1)[0]
        if not given.startswith("--"):
            return f"{group[0]!r} is no flag: overrides are written --name value"
        spelt = given.replace("_", "-")
        known = {flag.replace("_", "-"): flag for flag in flags}
        if spelt not in known:
            near = difflib.get_close_matches(spelt, known, n=1, cutoff=0.0)
            return (
                f"there is no override {given}; the nearest is {known[near[0]]} (--help explains every field)"
            )
        try:
            parsed = _quietly(kind, default, group)
        except UsageError:  # of the right type; only the configuration as a whole may judge it
            continue
        values = group[1:] if "=" not in group[0] else [group[0].split("=", 1)[1], *group[1:]]
        if parsed is None:
            shown = " ".join(values) or "no value"
            return f"{given}: expected {_expected(flags[known[spelt]])}, got {shown}"
        if parsed[1]:
            return f"{given} {' '.join(group[1:])}: {' '.join(parsed[1])} is one value too many"
    return "these overrides do not go together: " + " ".join(args)


def _flags(value: Any, prefix: str = "") -> dict[str, Any]:
    """The flags that tyro makes of a dataclass, each with its field's type; for messages only."""
    hints = typing.get_type_hints(type(value), include_extras=True)
    flags: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        hint, held = hints[field.name], getattr(value, field.name)
        marks = getattr(hint, "__metadata__", ())
        if tyro.conf.Suppress in marks or tyro.conf.Fixed in marks:
            continue
        flat = any(getattr(mark, "name", None) == "" for mark in marks)
        name = prefix if flat else f"{prefix}{field.name.replace('_', '-')}."
        if dataclasses.is_dataclass(held):
            flags |= _flags(held, name)
        elif isinstance(held, tuple) and held and all(map(dataclasses.is_dataclass, held)):
            for index, item in enumerate(held):
                flags |= _flags(item, f"{name}{index}.")
        else:
            flags[f"--{name[:-1]}"] = hint
            if isinstance(held, bool) and tyro.conf.FlagCreatePairsOff not in marks:
                flags[f"--{prefix}no-{field.name.replace('_', '-')}"] = hint
    return flags


def _groups(args: Sequence[str]) -> list[list[str]]:
    groups: list[list[str]] = []
    for arg in args:
        if arg.startswith("--") or not groups:
            groups.append([arg])
        else:
            groups[-1].append(arg)
    return groups


def _expected(hint: Any) -> str:
    """A type in a user's words."""
    words = {
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
        bool: "no value",
        type(None): "None",
    }
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _expected(inner[0])
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_expected, inner)))
    if origin in (tuple, list):
        return f"values, each {_expected(inner[0])}"
    return words.get(hint, str(getattr(hint, "__name__", hint)))


def _where(error: BaseException, file: Path) -> str:
    """The line of the config file in which an error arose."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f", line {error.lineno}"
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if Path(frame.f_code.co_filename) == file
    ]
    return f", line {lines[-1]}" if lines else ""
