"""Judges what was measured of a machine, a ledger and a bucket: is it enough for a run, and if not, what helps.

Pure functions of numbers; whoever measures is the command line.
"""

import stat
from collections.abc import Sequence
from typing import Literal, NamedTuple

from gauntlet_jax.nodes.clock import RoundTimes
from gauntlet_jax.planning.needs import Needs

Level = Literal["ok", "warning", "FAIL"]

SHORTEST_STORE_WINDOW = 3.0
"""Seconds: object stores keep whole seconds, so a shorter window would hold one or two instants."""

_CLOCK_NOISE = 0.5
_ROOM = 0.8  # of the memory: estimates are estimates


class Finding(NamedTuple):
    """One line of the doctor.

    Attributes:
      level: "FAIL" is what will not work.
      subject: one word.
      text: what was found and, unless it is well, what to do.
    """

    level: Level
    subject: str
    text: str


def judge_devices(needed: int, found: Sequence[str]) -> Finding:
    """Whether there are the devices that a config's mesh takes.

    Args:
      needed: their product.
      found: what each is, such as "cpu".
    """
    kinds = ", ".join(f"{found.count(kind)} x {kind}" for kind in dict.fromkeys(found))
    if len(found) < needed:
        return Finding("FAIL", "devices", f"{kinds}, but mesh takes {needed}: make mesh smaller")
    return Finding("ok", "devices", kinds)


def judge_memory(needs: Needs, *, role: Literal["peer", "validator"], available: int | None) -> Finding:
    """Whether a model fits.

    Args:
      needs: of the config.
      role: of the node.
      available: bytes that one device has for it; None if it does not say.
    """
    about = needs.peer if role == "peer" else needs.validator
    parts = (
        f"{needs.parameters:,} parameters, {size(needs.params)} a copy; a batch {size(needs.activations)};"
        f" residual {size(needs.residual)}"
    )
    told = f"about {size(about)} for a {role}, an estimate ({parts})"
    if available is None:
        return Finding("warning", "memory", f"{told}; the device does not say how much it has")
    told = f"{told}; {size(available)} free"
    if about > available:
        return Finding("FAIL", "memory", f"{told}: more devices (mesh), a smaller data.batch, or model.remat")
    if about > _ROOM * available:
        return Finding("warning", "memory", f"{told}: that is tight")
    return Finding("ok", "memory", told)


def judge_protocol(there: object, here: int) -> Finding:
    """Whether the ledger's run follows the version of the protocol that this package speaks."""
    if there != here:
        text = f"the run follows version {str(there)[:20]}, this package {here}: install a package of the run's version"
        return Finding("FAIL", "protocol", text)
    return Finding("ok", "protocol", f"version {here}")


def judge_ledger_clock(skew: float, error: float) -> Finding:
    """This machine's clock against the ledger's, which nodes go by.

    Args:
      skew: seconds that the ledger is ahead.
      error: half the time that the answer took, seconds.
    """
    told = f"the ledger's is {_apart(skew, 2)} of this machine's, known to {error:.2f} s"
    if abs(skew) > error + _CLOCK_NOISE:
        # Nodes ask the ledger for the time; what runs beside them may not.
        return Finding("warning", "clock", f"{told}: nodes correct for it, but set this machine's by NTP")
    return Finding("ok", "clock", told)


def judge_store_clock(early: float, late: float, times: RoundTimes) -> Finding:
    """The storage provider's clock against the ledger's: uploads are judged by the one, windows set by the other.

    Args:
      early: the least that the provider may be ahead, seconds.
      late: the most: between the two lies what was not measured.
      times: of the run.
    """
    told = f"the storage's is between {_apart(early, 1)} and {_apart(late, 1)} of the ledger's"
    least = max(0.0, early, -late)
    if least > (times.closes - times.opens) / 2:
        return Finding(
            "FAIL", "clock", f"{told}: uploads would count as early or late; set the storage's clock by NTP"
        )
    if least > _CLOCK_NOISE:
        return Finding("warning", "clock", f"{told}: set the storage's clock by NTP")
    return Finding("ok", "clock", told)


def window_fault(times: RoundTimes, *, commit_reveal: bool) -> str | None:
    """Why object stores, which keep whole seconds, cannot tell what is within a run's windows; None if they can."""
    edges = [times.seconds, times.opens, times.closes]
    windows = [times.closes - times.opens]
    if commit_reveal:
        commits = times.commit_window(0.0)
        edges += commits
        windows.append(commits.closes - commits.opens)
    if all(edge == int(edge) for edge in edges) and min(windows) >= SHORTEST_STORE_WINDOW:
        return None
    return (
        f"times: object stores keep whole seconds, so windows begin and end on whole seconds and take at least"
        f" {SHORTEST_STORE_WINDOW:.0f}; this run's do not"
    )


def judge_uploads(seconds: Sequence[float], size_in_bytes: int, times: RoundTimes) -> Finding:
    """Whether an artifact is stored within the put window.

    Args:
      seconds: what each trial took, at least one.
      size_in_bytes: of each.
      times: of the run.
    """
    window, slowest = times.closes - times.opens, max(seconds)
    told = (
        f"{size(size_in_bytes)} took {min(seconds):.2f} to {slowest:.2f} s; the put window has {window:g} s"
    )
    if slowest > window:
        return Finding("FAIL", "upload", f"{told}: use storage nearer by, or a faster line")
    if slowest > window / 2:
        return Finding("warning", "upload", f"{told}: that is tight")
    return Finding("ok", "upload", told)


def judge_key_mode(path: str, mode: int | None) -> Finding:
    """Whether a key file is its owner's alone.

    Args:
      path: where it lies.
      mode: its permissions, as ``os.stat`` has them; None if it is not there.
    """
    if mode is None:
        return Finding("ok", "key", f"{path} is made at the first start; keep a copy of it")
    if mode & 0o077:
        return Finding(
            "FAIL", "key", f"{path} has mode {stat.S_IMODE(mode):o}, others may use it: chmod 600 {path}"
        )
    return Finding("ok", "key", f"{path}, mode {stat.S_IMODE(mode):o}")


def judge_refusal(status: int | None, how: str) -> Finding:
    """Whether a write that must not be was refused.

    Args:
      status: of the provider's answer; None if there was none.
      how: it was tried, such as "without credentials".
    """
    if status is not None and 200 <= status < 300:
        return Finding(
            "FAIL", "rights", f"the bucket takes a write {how}: take that right away from everybody"
        )
    if status in (401, 403):
        return Finding("ok", "rights", f"a write {how} is refused (status {status})")
    answer = "no answer" if status is None else f"status {status}"
    return Finding("warning", "rights", f"a write {how}: {answer}, neither taken nor clearly refused")


def _apart(seconds: float, digits: int) -> str:
    return f"{abs(seconds):.{digits}f} s {'behind' if round(seconds, digits) < 0 else 'ahead'}"


def size(number: float) -> str:
    """A number of bytes for a reader."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
