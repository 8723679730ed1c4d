"""The ledger behind HTTP, the trusted stand-in for a chain: bounds on what a stranger may send, and for how long.

Reads are GETs, ``/v1/status`` or ``/v1/record?round=3``; a call is a POST of its signed document to ``/v1/call``. Answers are
JSON objects with "result", or with one line under "error".
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from gauntlet_jax.rewards.ledger_service import MAX_CALL_BYTES, LedgerService

_SETTLE_SECONDS = 0.1
_PATIENCE_SECONDS = 10.0
_KEPT_ALIVE_SECONDS = 30
_MOST_CONNECTIONS = 512
_MOST_HEADER_BYTES = 16 * 1024


def application(service: LedgerService) -> Starlette:
    """The service as an ASGI application; its ledger is used in the server's thread alone.

    Args:
      service: what it answers.
    """

    async def call(request: Request) -> JSONResponse:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                body = await _bounded_body(request)
        except (TimeoutError, ClientDisconnect):
            return _hang_up(f"the call did not come within {_PATIENCE_SECONDS:g} s", 408)
        if body is None:
            return _hang_up(f"a call has at most {MAX_CALL_BYTES} bytes", 413)
        status, answer = service.call(body)
        return JSONResponse(answer, status)

    async def read(request: Request) -> JSONResponse:
        status, answer = service.read(request.path_params["what"], request.query_params)
        return JSONResponse(answer, status)

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code)

    @contextlib.asynccontextmanager
    async def clockwork(app: Starlette) -> AsyncIterator[None]:
        async def tick() -> None:
            while True:
                with contextlib.suppress(OSError):  # a full disk: whoever asks is told
                    service.settle()
                await asyncio.sleep(_SETTLE_SECONDS)

        ticking = asyncio.create_task(tick())
        yield
        ticking.cancel()

    return Starlette(
        routes=[
            Route("/v1/call", call, methods=["POST"]),
            Route("/v1/{what}", read, methods=["GET"]),
        ],
        exception_handlers={HTTPException: refused},
        lifespan=clockwork,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
      OSError: the port is in use, or the host is none of this machine.
    """
    return socket.create_server((host, port), backlog=128)


def server_of(app: Starlette) -> uvicorn.Server:
    """A server for ``run(sockets=[...])``, which Ctrl-C, SIGTERM or ``should_exit`` end."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=_ImpatientProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEPT_ALIVE_SECONDS,
            timeout_graceful_shutdown=2,
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
        )
    )


class _ImpatientProtocol(H11Protocol):
    """Hangs up on a connection whose request does not get on; between requests the server itself does."""

    _was_silent = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_again()

    def _watch_again(self) -> None:
        asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._watch)

    def _watch(self) -> None:
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        silent = not answering and self.timeout_keep_alive_task is None
        if silent and self._was_silent:
            self.transport.close()
            return
        self._was_silent = silent
        self._watch_again()


def _hang_up(line: str, status: int) -> JSONResponse:
    """A refusal after which nothing more of the request is read."""
    return JSONResponse({"error": line}, status, headers={"connection": "close"})


async def _bounded_body(request: Request) -> bytes | None:
    """The body, or None once there is too much of it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_CALL_BYTES:
            return None
    return bytes(body)
