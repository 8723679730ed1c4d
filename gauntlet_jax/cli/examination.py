"""What the doctor measures: everything is tried as a node would do it, and judged by ``planning.doctor``."""

import platform
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax

from gauntlet_jax.cli import bucket_examination, overrides
from gauntlet_jax.cli.node import NodeFlags
from gauntlet_jax.cli.run_folder import one_line
from gauntlet_jax.config import Config
from gauntlet_jax.config_check import check_name
from gauntlet_jax.planning import doctor
from gauntlet_jax.planning.doctor import Finding
from gauntlet_jax.planning.needs import needs_of
from gauntlet_jax.rewards.ledger import LedgerUnreachable
from gauntlet_jax.rewards.ledger_client import LedgerClient
from gauntlet_jax.storage.artifact import PROTOCOL
from gauntlet_jax.storage.identity import load_or_create
from gauntlet_jax.terms import check_terms, config_of

_LEDGER_WAIT_SECONDS = 3.0
_TRIES = 3
_MINOR = ".".join(platform.python_version_tuple()[:2])
_MEMORY = Path("/proc/meminfo")


def examine(path: str | None, flags: NodeFlags) -> Iterator[Finding]:
    """Findings, as they are made.

    Args:
      path: the run's config file; None takes the terms on the ledger.
      flags: that the node will have.

    Raises:
      UsageError: the config file or a flag is wrong.
      ValueError: a flag is wrong.
    """
    check_name(flags.name)
    config = None if path is None else overrides.load_config(path, Config)
    with closing(LedgerClient(flags.ledger, wait_seconds=_LEDGER_WAIT_SECONDS)) as client:
        yield Finding("ok", "software", f"Python {platform.python_version()}, jax {jax.__version__}")
        terms = None
        try:
            terms = client.terms()
        except LedgerUnreachable as error:
            yield Finding("FAIL", "ledger", one_line(error))
        if terms is not None:
            yield from _ledger(client, terms)
            read = _config(config, terms)
            config = read.config
            if read.fault is not None:
                yield read.fault
                terms = None  # of another run, or none at all: nothing more is taken from them
        if config is None:
            yield Finding(
                "FAIL", "config", "unknown without the ledger or a CONFIG: nothing more can be said"
            )
            return
        if config.data.path is None and flags.data_path is None:
            text = f"the library of Python {_MINOR}, unless --data-path is given; other nodes must have the same text"
            yield Finding("ok", "text", text)
        home = flags.home if flags.home is not None else Path("runs") / config.name / "nodes" / flags.name
        yield _key(home / "identity.key")
        if terms is not None:
            yield _name(client, terms, flags.name, home / "identity.key")
        yield from _machine(config, terms, flags.name)
        yield from bucket_examination.examine_bucket(
            config, flags, time.time if terms is None else client.now
        )


def _ledger(client: LedgerClient, terms: Mapping[str, Any]) -> Iterator[Finding]:
    skews = []
    status = None
    for _ in range(_TRIES):
        sent = time.time()
        try:
            status = client.status()
        except LedgerUnreachable as error:
            yield Finding("FAIL", "ledger", one_line(error))
            return
        answered = time.time()
        skews.append(((answered - sent) / 2, status.now - (sent + answered) / 2))
    assert status is not None
    if status.round is None:
        stands = f"waits for {', '.join(status.waiting_for)}" if status.waiting_for else "is about to begin"
    else:
        stands = "is over" if status.round >= terms["rounds"] else f"is in round {status.round}"
    level = "warning" if stands == "is over" else "ok"
    yield Finding(level, "ledger", f"run {terms['run']}, {terms['rounds']} rounds, {stands}")
    yield doctor.judge_protocol(terms.get("protocol"), PROTOCOL)
    error, skew = min(skews)
    yield doctor.judge_ledger_clock(skew, error)


class _Read(NamedTuple):
    config: Config | None
    fault: Finding | None


def _config(own: Config | None, terms: Mapping[str, Any]) -> _Read:
    """The run's config: the given one, which must be that of the terms, or else the terms'."""
    try:
        if own is None:
            config = config_of(terms)
            check_name(config.name)  # of a folder too
            return _Read(config, None)
        check_terms(own, terms)
    except ValueError as error:
        return _Read(own, Finding("FAIL", "config", one_line(error)))
    return _Read(own, None)


def _key(path: Path) -> Finding:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        return Finding("FAIL", "key", f"{path} cannot be read: {error.strerror}")
    return doctor.judge_key_mode(str(path), mode)


def _name(client: LedgerClient, terms: Mapping[str, Any], name: str, key: Path) -> Finding:
    """Whether the name and a place are free, or this node's already."""
    try:
        registered = {entry.name: entry for entry in client.registrations(None)}
        own = load_or_create(key).public_key if key.is_file() else None
    except (ValueError, OSError) as error:
        return Finding("FAIL", "name", one_line(error))
    there = registered.get(name)
    if there is not None:
        if there.public_key == own:
            return Finding("ok", "name", f"{name} is registered with this key")
        text = f"{name} belongs to another key: take another --name, or the --home where its key is"
        return Finding("FAIL", "name", text)
    if is_validator(terms, name):
        return Finding("ok", "name", f"{name} is one of the run's validators and not registered yet")
    taken = sum(entry.slot is not None for entry in registered.values())
    if taken >= terms["slots"]:
        return Finding("FAIL", "name", f"all {taken} places for peers are taken")
    return Finding("ok", "name", f"{name} is free, {taken} of {terms['slots']} places for peers are taken")


def is_validator(terms: Mapping[str, Any] | None, name: str) -> bool:
    """Whether a name is one of the run's validators'."""
    return terms is not None and any(entry.get("name") == name for entry in terms["validators"])


def _machine(config: Config, terms: Mapping[str, Any] | None, name: str) -> Iterator[Finding]:
    mesh = config.mesh
    devices = jax.devices()
    yield doctor.judge_devices(
        mesh.data * mesh.fsdp * mesh.tensor, [device.device_kind for device in devices]
    )
    role = "validator" if is_validator(terms, name) else "peer"
    try:
        needs = needs_of(config)
    except (ValueError, TypeError) as error:
        yield Finding("FAIL", "memory", f"the model has no shapes: {one_line(error)}")
        return
    yield doctor.judge_memory(needs, role=role, available=_memory(devices[0]))


def _memory(device: Any) -> int | None:
    """Bytes that are free on a device; of a CPU those of the machine."""
    if device.platform == "cpu":
        found = (
            re.search(r"^MemAvailable: *(\d+) kB$", _MEMORY.read_text(), re.MULTILINE)
            if _MEMORY.is_file()
            else None
        )
        return None if found is None else 1024 * int(found[1])
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    return None if limit is None else limit - stats.get("bytes_in_use", 0)
