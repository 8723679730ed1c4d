"""What the ledger answers to signed calls and to reads, without a socket: ``ledger_http`` puts it behind one.

A call is a signed document (domain "ledger call")::

    {"run", "call", "name", "arguments", "nonce", "key", "signature"}

It is taken once: a key's nonces only grow, and the newest is kept in the transaction of what it came with. To repeat a call with
a new nonce is always safe, since what the ledger has taken already is no change (a transfer is known by its receipt). The name is
a registered one; of a transfer it may be the key itself.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from gauntlet_jax.rewards.ledger import LedgerRefused, NotYetKnown
from gauntlet_jax.rewards.shared_ledger import SharedRunLedger
from gauntlet_jax.rewards.weight_commit import SALT_BYTES
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.signed_json import BadDocument

DOMAIN = "ledger call"
MAX_CALL_BYTES = 256 * 1024
TAKEN, REFUSED, TOO_EARLY, UNABLE = 200, 400, 425, 503
_FIELDS = {"run", "call", "name", "arguments", "nonce", "key"}
_MAX_COUNT = 2**53
_MAX_NONCE = 2**63
_MAX_LINE = 300
_SALT = re.compile(rf"[0-9a-f]{{{2 * SALT_BYTES}}}")


class _UsedNonce(LedgerRefused):
    """A call whose nonce its key has used or passed; ``newest`` is that key's newest."""

    def __init__(self, newest: int) -> None:
        super().__init__("the nonce was used already: sign the call again with a larger one")
        self.newest = newest


class LedgerService:
    """What the service answers, without a socket.

    A name's first registration gives it to the key that signed it; every other call must be signed by that key.
    """

    def __init__(self, ledger: SharedRunLedger) -> None:
        """A service over a ledger that has begun.

        Args:
          ledger: of the run.
        """
        self._ledger = ledger
        self._run = ledger.terms()[
            "ledger"
        ]  # a run's name may be anybody's, and a call is for one ledger alone

    def settle(self) -> None:
        """Notes what time alone has decided.

        Raises:
          OSError: the disk is full.
        """
        self._ledger.settle()

    def call(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Answers a signed call.

        Returns:
          An HTTP status and a JSON object; what is refused has one line under "error".
        """
        return _answered(lambda: self._take(body))

    def read(self, what: str, query: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Answers a read; as ``call``."""
        return _answered(lambda: self._look_up(what, query))

    def _take(self, body: bytes) -> Any:
        document = signed_json.read(body, domain=DOMAIN, key=None, max_bytes=MAX_CALL_BYTES)
        if set(document) != _FIELDS:
            raise BadDocument("a call has other fields")
        name, call, nonce, key = (document[field] for field in ("name", "call", "nonce", "key"))
        if not (type(name) is str and type(call) is str and type(nonce) is int and 0 <= nonce < _MAX_NONCE):
            raise BadDocument("a call names itself, its sender and a nonce from 0 to 2**63 - 1")
        if document["run"] != self._run:
            raise LedgerRefused("the call is for another run")
        if call not in _CALLS:
            raise LedgerRefused("there is no such call")
        arguments = _checked(call, document["arguments"])
        self._ledger.settle()
        owner = self._ledger.key_of(name) if name.isascii() else None
        of_itself = call == "transfer" and name == key
        if owner is None and not (call.startswith("register_") or of_itself):
            raise LedgerRefused("the name is not registered")
        if owner is not None and owner != key:
            raise LedgerRefused("the name belongs to another key")
        newest = self._ledger.nonce(key)
        if nonce <= newest:
            raise _UsedNonce(newest)
        try:
            with self._ledger.transaction():
                self._ledger.keep_nonce(key, nonce)
                return self._do(call, name, key, arguments)
        except ValueError:
            if owner is not None or newest >= 0:
                # Refused is answered, too: nobody shall be able to repeat it when it would be taken. A key that has neither a
                # name nor units has nothing to lose, and would fill the disk.
                self._ledger.keep_nonce(key, nonce)
            raise

    def _do(self, call: str, name: str, key: str, arguments: Mapping[str, Any]) -> Any:
        if call == "register_peer":
            return self._ledger.register_peer(name, key, **arguments)._asdict()
        if call == "register_validator":
            return self._ledger.register_validator(name, key, **arguments)._asdict()
        if call == "commit_weights":
            return self._ledger.commit_weights(name, **arguments)
        if call == "reveal_weights":
            salt = bytes.fromhex(arguments["salt"])
            return self._ledger.reveal_weights(name, arguments["round"], arguments["weights"], salt)
        if call == "post_record":
            return self._ledger.post_record(name, **arguments)
        if call == "reject_record":
            return self._ledger.reject_record(name, **arguments)
        return self._ledger.transfer(name, **arguments)

    def _look_up(self, what: str, query: Mapping[str, str]) -> Any:
        ledger = self._ledger
        if what == "status":
            return _plain(ledger.status())
        if what == "terms":
            return ledger.terms()
        if what == "balances":
            return ledger.balances()
        if what == "head":
            return {"head": ledger.head()}
        if what == "registrations":
            round = _round(query["round"]) if "round" in query else None
            return [entry._asdict() for entry in ledger.registrations(round)]
        if what == "history":
            return ledger.history(query.get("name", ""))
        round = _round(query.get("round", ""))
        if what == "record":
            found = ledger.record(round)
            return None if found is None else found._asdict()
        if what == "weights":
            return ledger.weights(round)
        if what == "committed":
            return ledger.committed(round)
        if what == "vetoes":
            return ledger.vetoes(round)
        if what == "epoch":
            epoch = ledger.epoch(round)
            return None if epoch is None else epoch._asdict()
        phase = query.get("phase")
        if what == "beacon" and phase in ("opening", "closing"):
            return ledger.beacon(round, phase).hex()
        raise LedgerRefused("there is no such read")


def _answered(ask: Callable[[], Any]) -> tuple[int, dict[str, Any]]:
    try:
        return TAKEN, {"result": ask()}
    except _UsedNonce as error:
        return REFUSED, {"error": str(error), "nonce": error.newest}
    except NotYetKnown as error:
        return TOO_EARLY, {"error": str(error)}
    except ValueError as error:
        return REFUSED, {"error": _line(error)}
    except OSError as error:
        return UNABLE, {"error": _line(error)}


def _line(error: Exception) -> str:
    """What went wrong, as one line of bounded length."""
    return " ".join(str(error).split())[:_MAX_LINE].encode("ascii", "backslashreplace").decode()


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_COUNT


def _is_units(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_NONCE


def _is_weight(value: Any) -> bool:
    return _is_count(value) or (type(value) is float and math.isfinite(value) and value >= 0)


def _is_table(value: Any, check: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(name.isascii() and check(item) for name, item in value.items())


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_salt(value: Any) -> bool:
    return type(value) is str and _SALT.fullmatch(value) is not None


_CALLS: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {
    "register_peer": {"bucket": _is_text},
    "register_validator": {"bucket": _is_text},
    "commit_weights": {"round": _is_count, "digest": _is_text},
    "reveal_weights": {
        "round": _is_count,
        "weights": lambda value: _is_table(value, _is_weight),
        "salt": _is_salt,
    },
    "post_record": {"round": _is_count, "digest": _is_text},
    "reject_record": {"round": _is_count, "digest": _is_text},
    "transfer": {"to": _is_text, "units": _is_units, "receipt": _is_text},
}
"""Every call, with the check of each argument's type; ranges are the ledger's to judge."""


def _checked(call: str, arguments: Any) -> dict[str, Any]:
    checks = _CALLS[call]
    if not isinstance(arguments, dict) or set(arguments) != set(checks):
        raise LedgerRefused(f"{call} takes {', '.join(checks)}")
    for name, check in checks.items():
        if not check(arguments[name]):
            raise LedgerRefused(f"{call}: {name} is of another type, or out of range")
    return arguments


def _round(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,15}", text) is None:
        raise LedgerRefused("a read of a round names it: ?round=12")
    return int(text)


def _plain(value: Any) -> dict[str, Any]:
    """A named tuple that holds another, as JSON."""
    return {
        name: field._asdict() if hasattr(field, "_asdict") else field
        for name, field in value._asdict().items()
    }
