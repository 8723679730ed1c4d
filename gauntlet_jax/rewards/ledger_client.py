"""A node's way to the ledger service: signed calls and reads over HTTP, which wait out an outage."""

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import httpx

from gauntlet_jax.rewards import ledger_answers
from gauntlet_jax.rewards.ledger import (
    Epoch,
    LedgerRefused,
    LedgerUnreachable,
    NotYetKnown,
    Posting,
    Registration,
    RunStatus,
)
from gauntlet_jax.rewards.ledger_service import DOMAIN
from gauntlet_jax.rewards.weight_commit import checked_weight, weights_digest
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.types import PeerId

_Answer = TypeVar("_Answer")
_RECEIPT_BYTES = 16
_TIMEOUT_SECONDS = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_MAX_ANSWER_BYTES = 64 * 1024 * 1024
_TOO_EARLY = 425


class _UsedNonce(LedgerRefused):
    """The ledger knows a later call of this key; ``newest`` is its nonce."""

    def __init__(self, told: str, newest: int) -> None:
        super().__init__(told)
        self.newest = newest


class LedgerClient:
    """A ``SharedLedger`` behind a URL."""

    def __init__(
        self,
        url: str,
        *,
        identity: Identity | None = None,
        name: str = "",
        wait_seconds: float = 0.0,
        stop: threading.Event | None = None,
    ) -> None:
        """A client; nothing is sent yet.

        Args:
          url: of the service, such as http://127.0.0.1:7400.
          identity: signs the calls; without one there are only reads.
          name: this node's name.
          wait_seconds: how long an unreachable ledger is waited for.
          stop: ends that wait.

        Raises:
          ValueError: the URL is none.
        """
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
            raise ValueError(f"ledger {url!r}: expected a URL such as http://127.0.0.1:7400")
        self._url = url.rstrip("/")
        self._identity = identity
        self._name = name
        self._wait_seconds = wait_seconds
        self._stop = stop or threading.Event()
        self._http = httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False, trust_env=False)
        self._offset: float | None = None
        self._run: str | None = None
        self._nonce = 0
        self._calling = threading.Lock()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def now(self) -> float:
        """The ledger's time, seconds: this machine's clock, corrected by what the ledger said last."""
        if self._offset is None:
            self.status()
        return time.time() + (self._offset or 0.0)

    def terms(self) -> dict[str, Any]:
        """The run's terms."""
        return self._read(ledger_answers.terms, "terms")

    def status(self) -> RunStatus:
        """Where the run stands."""
        sent = time.time()
        found = self._read(ledger_answers.status, "status")
        self._offset = found.now - (sent + time.time()) / 2
        return found

    def register_peer(self, name: PeerId, bucket: str) -> Registration:
        """Registers this key as a peer; where that costs something, this key's account pays."""
        return self._call(ledger_answers.registration, "register_peer", name, bucket=bucket)

    def register_validator(self, name: str, bucket: str) -> Registration:
        """Registers this key as a validator."""
        return self._call(ledger_answers.registration, "register_validator", name, bucket=bucket)

    def registrations(self, round: int | None) -> list[Registration]:
        """Who takes part in a round; None: everybody who holds a slot, and the validators."""
        query = {} if round is None else {"round": round}
        return self._read(ledger_answers.registrations, "registrations", **query)

    def commit_weights(self, round: int, weights: Mapping[PeerId, float], salt: bytes) -> None:
        """Binds this validator to its weights: only their hash leaves this machine.

        Raises:
          ValueError: a weight is negative or not finite, or the salt has not 32 bytes.
        """
        digest = weights_digest(round, self._name, weights, salt)
        self._call(_nothing, "commit_weights", self._name, round=round, digest=digest)

    def reveal_weights(self, round: int, weights: Mapping[PeerId, float], salt: bytes) -> None:
        """Shows the weights that this validator is bound to."""
        numbers = {peer: checked_weight(weight) for peer, weight in weights.items()}
        self._call(_nothing, "reveal_weights", self._name, round=round, weights=numbers, salt=salt.hex())

    def committed(self, round: int) -> tuple[str, ...]:
        """The validators that are bound to weights of a round."""
        return self._read(ledger_answers.names, "committed", round=round)

    def weights(self, round: int) -> dict[str, dict[PeerId, float]]:
        """The revealed weights of a round by validator, then by peer."""
        return self._read(ledger_answers.weights, "weights", round=round)

    def post_record(self, round: int, digest: str) -> None:
        """Posts this validator's record."""
        self._call(_nothing, "post_record", self._name, round=round, digest=digest)

    def reject_record(self, round: int, digest: str) -> None:
        """Rejects another validator's record."""
        self._call(_nothing, "reject_record", self._name, round=round, digest=digest)

    def record(self, round: int) -> Posting | None:
        """The final record of a round."""
        return self._read(ledger_answers.record, "record", round=round)

    def epoch(self, round: int) -> Epoch | None:
        """What a round's weights came to; None until it is final."""
        return self._read(ledger_answers.epoch, "epoch", round=round)

    def vetoes(self, round: int) -> dict[str, str]:
        """Whose records of a final round were vetoed, and why."""
        return self._read(ledger_answers.vetoes, "vetoes", round=round)

    def beacon(self, round: int, phase: Literal["opening", "closing"]) -> bytes:
        """A released beacon."""
        return self._read(ledger_answers.beacon, "beacon", round=round, phase=phase)

    def transfer(self, to: str, units: int, *, receipt: str | None = None) -> None:
        """Gives units of this node's account to another; a client without a name gives its key's.

        Args:
          to: a registered name, or a public key.
          units: at least 1.
          receipt: 32 hexadecimal digits that tell this transfer from others: the same again is no change. None makes it one of
            its own, also over an outage that it waits out.
        """
        name = self._name or self._signer().public_key
        arguments = {"to": to, "units": units, "receipt": receipt or secrets.token_hex(_RECEIPT_BYTES)}
        self._call(_nothing, "transfer", name, **arguments)

    def balances(self) -> dict[str, int]:
        """Units by account."""
        return self._read(ledger_answers.balances, "balances")

    def history(self, name: str) -> dict[int, int]:
        """Units that a peer or validator was paid by round."""
        return self._read(ledger_answers.history, "history", name=name)

    def _signer(self) -> Identity:
        assert self._identity is not None, "a client without an identity only reads"
        return self._identity

    def _call(self, checked: Callable[[Any], _Answer], call: str, name: str, **arguments: Any) -> _Answer:
        identity = self._signer()
        if self._run is None:
            self._run = self.terms()["ledger"]

        def signed() -> bytes:
            # Anew for every try: a call whose answer was lost may have been taken, and a nonce serves once.
            fields = {
                "run": self._run,
                "call": call,
                "name": name,
                "arguments": arguments,
                "nonce": self._next_nonce(),
            }
            return signed_json.sign(identity, DOMAIN, fields)

        url = f"{self._url}/v1/call"
        # One call at a time: of two on their way the ledger would refuse the one that comes in the other's place.
        with self._calling:
            try:
                return self._checked(checked, self._answer("POST", url, signed))
            except _UsedNonce as used:  # this machine's clock is behind what it was
                self._nonce = max(self._nonce, used.newest)
                return self._checked(checked, self._answer("POST", url, signed))

    def _next_nonce(self) -> int:
        """Larger than every one before, also than those of earlier processes of this node."""
        self._nonce = max(self._nonce + 1, time.time_ns())
        return self._nonce

    def _read(self, checked: Callable[[Any], _Answer], what: str, **query: Any) -> _Answer:
        url = httpx.URL(f"{self._url}/v1/{what}", params=query or None)
        return self._checked(checked, self._answer("GET", url, None))

    def _checked(self, checked: Callable[[Any], _Answer], raw: Any) -> _Answer:
        try:
            return checked(raw)
        except ledger_answers.BadAnswer as error:
            raise LedgerUnreachable(f"{self._url} is no ledger: its answer has {error}") from error

    def _answer(self, method: str, url: httpx.URL | str, body: Any) -> Any:
        """Asks until there is an answer, or the time to wait is over."""
        until, pause = time.monotonic() + self._wait_seconds, _FIRST_PAUSE
        while True:
            try:
                return self._ask(method, url, None if body is None else body())
            except LedgerUnreachable:
                if self._stop.is_set() or time.monotonic() + pause >= until:
                    raise
            self._stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _ask(self, method: str, url: httpx.URL | str, body: bytes | None) -> Any:
        try:
            with self._http.stream(method, url, content=body) as response:
                answer = b""
                for chunk in response.iter_bytes():
                    answer += chunk
                    if len(answer) > _MAX_ANSWER_BYTES:
                        raise LedgerUnreachable(f"ledger {self._url}: its answer has no end")
                status = response.status_code
        except httpx.HTTPError as error:
            raise LedgerUnreachable(
                f"ledger {self._url} does not answer ({type(error).__name__}): is gauntlet ledger serve running there?"
            ) from error
        try:
            document = signed_json.json_of(answer)
        except signed_json.BadDocument as error:
            raise LedgerUnreachable(f"{self._url} is no ledger: its answer is not JSON") from error
        if status == httpx.codes.OK and "result" in document:
            return document["result"]
        told = str(document.get("error", f"HTTP status {status}"))[:300]
        if status == _TOO_EARLY:
            raise NotYetKnown(f"ledger {self._url}: {told}")
        if type(document.get("nonce")) is int:
            raise _UsedNonce(told, document["nonce"])
        if httpx.codes.is_server_error(status):
            raise LedgerUnreachable(f"ledger {self._url}: {told}")
        raise LedgerRefused(told)


def _nothing(raw: Any) -> None:
    """Of a call that is answered with nothing: taken is taken."""
