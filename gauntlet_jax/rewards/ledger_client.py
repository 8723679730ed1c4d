"""A node's way to the ledger service: signed calls and reads over HTTP, which wait out an outage."""

import threading
import time
from collections.abc import Mapping
from typing import Any, Literal

import httpx

from gauntlet_jax.rewards.ledger import (
    LedgerRefused,
    LedgerUnreachable,
    NotYetKnown,
    Posting,
    Registration,
    RunStatus,
)
from gauntlet_jax.rewards.ledger_service import DOMAIN
from gauntlet_jax.storage import signed_json
from gauntlet_jax.storage.identity import Identity
from gauntlet_jax.types import PeerId

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
        self._signing = threading.Lock()

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
        return self._read("terms")

    def status(self) -> RunStatus:
        """Where the run stands."""
        sent = time.time()
        raw = self._read("status")
        self._offset = raw["now"] - (sent + time.time()) / 2
        pending = None if raw["pending"] is None else Posting(**raw["pending"])
        return RunStatus(
            raw["now"],
            raw["round"],
            raw["start"],
            pending,
            tuple(raw["vetoed"]),
            tuple(raw["waiting_for"]),
        )

    def register_peer(self, name: PeerId, bucket: str) -> Registration:
        """Registers this key as a peer."""
        return Registration(**self._call("register_peer", name, bucket=bucket))

    def register_validator(self, name: str, bucket: str) -> Registration:
        """Registers this key as a validator."""
        return Registration(**self._call("register_validator", name, bucket=bucket))

    def registrations(self, round: int | None) -> list[Registration]:
        """Who takes part in a round."""
        query = {} if round is None else {"round": round}
        return [Registration(**entry) for entry in self._read("registrations", **query)]

    def post_weights(self, round: int, weights: Mapping[PeerId, float]) -> None:
        """Posts this validator's incentives of a round."""
        self._call("post_weights", self._name, round=round, weights=dict(weights))

    def post_record(self, round: int, digest: str, payouts: Mapping[PeerId, int], reserve: int) -> None:
        """Posts this validator's record."""
        self._call(
            "post_record", self._name, round=round, digest=digest, payouts=dict(payouts), reserve=reserve
        )

    def reject_record(self, round: int, digest: str) -> None:
        """Rejects another validator's record."""
        self._call("reject_record", self._name, round=round, digest=digest)

    def record(self, round: int) -> Posting | None:
        """The final record of a round."""
        raw = self._read("record", round=round)
        return None if raw is None else Posting(**raw)

    def beacon(self, round: int, phase: Literal["opening", "closing"]) -> bytes:
        """A released beacon."""
        return bytes.fromhex(self._read("beacon", round=round, phase=phase))

    def balances(self) -> dict[str, int]:
        """Units by peer, and the reserve's."""
        return self._read("balances")

    def weights(self, round: int) -> dict[str, dict[str, float]]:
        """The weights of a round by validator, then by peer."""
        return self._read("weights", round=round)

    def history(self, peer: PeerId) -> dict[int, int]:
        """Units that a peer was paid by round."""
        return {int(round): units for round, units in self._read("history", peer=peer).items()}

    def _call(self, call: str, name: str, **arguments: Any) -> Any:
        assert self._identity is not None, "a client without an identity only reads"
        identity = self._identity
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
        try:
            return self._answer("POST", url, signed)
        except _UsedNonce as used:  # this machine's clock is behind what it was
            with self._signing:
                self._nonce = max(self._nonce, used.newest)
            return self._answer("POST", url, signed)

    def _next_nonce(self) -> int:
        """Larger than every one before, also than those of earlier processes of this node."""
        with self._signing:
            self._nonce = max(self._nonce + 1, time.time_ns())
            return self._nonce

    def _read(self, what: str, **query: Any) -> Any:
        url = httpx.URL(f"{self._url}/v1/{what}", params=query or None)
        return self._answer("GET", url, None)

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
