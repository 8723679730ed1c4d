"""What a ledger answers over HTTP, checked before it is used: to a client the ledger is a stranger too."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gauntlet_jax.rewards.ledger import RESERVE, Epoch, Posting, Registration, RunStatus

_Item = TypeVar("_Item")
_Check = Callable[[Any], Any]

_MOST_TEXT = 1024
_MOST_ROUNDS = 2**53
_MOST_UNITS = 2**63 - 1
_MOST_BOND = 65535
_ROUND = re.compile(r"[0-9]{1,15}")
_BEACON = re.compile(r"[0-9a-f]{64}")


class BadAnswer(ValueError):
    """An answer is not what was asked for; the text is one clause and repeats nothing of the sender's."""


def terms(raw: Any) -> dict[str, Any]:
    """A run's terms; what they say is their reader's to check, but for what tells the ledger from others."""
    if type(raw) is not dict:
        raise BadAnswer("terms that are no object")
    _text(raw.get("ledger"))
    return raw


def status(raw: Any) -> RunStatus:
    """Where a run stands."""
    return RunStatus(
        **_fields(
            raw,
            {
                "now": _number,
                "round": _or_none(_round),
                "start": _or_none(_number),
                "pending": _or_none(posting),
                "vetoed": names,
                "waiting_for": names,
                "commits_close": _or_none(_number),
            },
        )
    )


def posting(raw: Any) -> Posting:
    """A posted record."""
    return Posting(
        **_fields(
            raw,
            {
                "round": _round,
                "validator": _text,
                "digest": _text,
                "posted_at": _number,
                "start": _number,
                "final_at": _or_none(_number),
            },
        )
    )


def record(raw: Any) -> Posting | None:
    """A round's final record, if it has one."""
    return _or_none(posting)(raw)


def registration(raw: Any) -> Registration:
    """A registered node."""
    return Registration(
        **_fields(
            raw,
            {
                "name": _text,
                "bucket": _text,
                "registered_at": _number,
                "public_key": _text,
                "slot": _or_none(_round),
                "stake": _share,
                "from_round": _round,
                "until_round": _or_none(_round),
            },
        )
    )


def registrations(raw: Any) -> list[Registration]:
    """Registered nodes."""
    return _list(registration)(raw)


def names(raw: Any) -> tuple[str, ...]:
    """Names of nodes."""
    return tuple(_list(_text)(raw))


def vetoes(raw: Any) -> dict[str, str]:
    """Reasons by validator."""
    return _table(_text)(raw)


def weights(raw: Any) -> dict[str, dict[str, float]]:
    """Weights by validator, then by peer."""
    return _table(_table(_share))(raw)


def balances(raw: Any) -> dict[str, int]:
    """Units by account."""
    return _table(_units)(raw)


def history(raw: Any) -> dict[int, int]:
    """Units by round."""
    if type(raw) is not dict or not all(_ROUND.fullmatch(round) for round in raw):
        raise BadAnswer("a history that is no table of rounds")
    return {int(round): _units(units) for round, units in raw.items()}


def epoch(raw: Any) -> Epoch | None:
    """What weights came to, if they have."""
    if raw is None:
        return None
    shares = _table(_share)
    found = Epoch(
        **_fields(
            raw,
            {
                "round": _round,
                "consensus": shares,
                "incentive": shares,
                "trust": shares,
                "dividends": shares,
                "bonds": _table(_table(_bond)),
                "payouts": _payouts,
                "reserve": _units,
                "remainder": _units,
            },
        )
    )
    if found.consensus.keys() != found.incentive.keys() or not found.trust.keys() <= found.dividends.keys():
        raise BadAnswer("an epoch whose tables are of different nodes")
    return found


def beacon(raw: Any) -> bytes:
    """A released beacon."""
    if type(raw) is not str or _BEACON.fullmatch(raw) is None:
        raise BadAnswer("a beacon that has not 32 bytes")
    return bytes.fromhex(raw)


def _fields(raw: Any, checks: Mapping[str, _Check]) -> dict[str, Any]:
    if type(raw) is not dict or raw.keys() != checks.keys():
        raise BadAnswer("other fields than were asked for")
    return {name: check(raw[name]) for name, check in checks.items()}


def _list(check: Callable[[Any], _Item]) -> Callable[[Any], list[_Item]]:
    def checked(raw: Any) -> list[_Item]:
        if type(raw) is not list:
            raise BadAnswer("no list where one was asked for")
        return [check(item) for item in raw]

    return checked


def _table(check: Callable[[Any], _Item]) -> Callable[[Any], dict[str, _Item]]:
    def checked(raw: Any) -> dict[str, _Item]:
        if type(raw) is not dict:
            raise BadAnswer("no table where one was asked for")
        return {_text(name): check(item) for name, item in raw.items()}

    return checked


def _or_none(check: Callable[[Any], _Item]) -> Callable[[Any], _Item | None]:
    return lambda raw: None if raw is None else check(raw)


def _text(raw: Any) -> str:
    if type(raw) is not str or len(raw) > _MOST_TEXT or not raw.isprintable():
        raise BadAnswer("a text that is none, too long or not printable")
    return raw


def _whole(raw: Any, most: int) -> int:
    if type(raw) is not int or not 0 <= raw <= most:
        raise BadAnswer("a whole number that is none, or out of range")
    return raw


def _round(raw: Any) -> int:
    return _whole(raw, _MOST_ROUNDS)


def _units(raw: Any) -> int:
    return _whole(raw, _MOST_UNITS)


def _bond(raw: Any) -> int:
    return _whole(raw, _MOST_BOND)


def _number(raw: Any) -> float:
    if type(raw) not in (int, float) or not abs(raw) < _MOST_ROUNDS or not math.isfinite(raw):
        raise BadAnswer("a number that is none, or out of range")
    return float(raw)


def _share(raw: Any) -> float:
    number = _number(raw)
    if number < 0:
        raise BadAnswer("a number below 0")
    return number


def _payouts(raw: Any) -> dict[str, int]:
    paid = _table(_units)(raw)
    if RESERVE in paid:
        raise BadAnswer("payouts to the reserve")
    return paid
