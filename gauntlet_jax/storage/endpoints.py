"""Which addresses a reader accepts: a bucket's address is a stranger's word, and must not lead to what only we can reach.

Folders are read below those that the operator allows. Over the network only https to public addresses is spoken: a name is
resolved here, every address that it gives is judged, and the connection goes to one that was judged, so that a name which
resolves otherwise a moment later changes nothing. The operator makes exceptions as HOST:PORT.
"""

import dataclasses
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpcore

MAX_ADDRESS = 512
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:.]{2,45}\]")
_PREFIX = re.compile(r"([A-Za-z0-9_=-][A-Za-z0-9._=-]*/)*[A-Za-z0-9_=-][A-Za-z0-9._=-]*|")
_KEY = re.compile(r"[!-~]{1,256}")
_MOST_QUESTIONS = 64
_OPTIONS = {"endpoint", "region", "access_key", "secret_key"}
_DEFAULT_PORTS = {"https": 443, "http": 80}
# Special by IANA's registries, though the standard library takes them for global.
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))


class RefusedAddress(ValueError):
    """An address that this reader does not accept; the text is one clause."""


class RefusedEndpoint(httpcore.ConnectError):
    """A connection that was not made, since it would have gone to an address that is not public."""


@dataclasses.dataclass(frozen=True)
class Address:
    """A bucket's address, taken apart.

    Attributes:
      scheme: "file", "s3" or "gs".
      bucket: its name; "" for a folder.
      prefix: what its keys begin with, without a slash at its end.
      endpoint: URL of the service; "" for a folder.
      region: of the service; "" where it has none.
      access_key, secret_key: the *public* half of it: with which everybody may read; "" reads anonymously.
      folder: of a "file" address.
    """

    scheme: str
    bucket: str = ""
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = dataclasses.field(default="", repr=False)
    folder: Path = Path("/")


def parse_address(address: str) -> Address:
    """Takes an address apart: ``file:///folder``, ``s3://bucket/prefix?endpoint=...&region=...`` or ``gs://bucket/prefix``.

    Raises:
      RefusedAddress: it is none of these.
    """
    if not 0 < len(address) <= MAX_ADDRESS or not address.isascii() or not address.isprintable():
        raise RefusedAddress(f"an address has 1 to {MAX_ADDRESS} printable ASCII characters")
    try:
        parts = urlsplit(address)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        # Not from the library's error, which repeats parts of the address: there may be a secret among them.
        raise RefusedAddress("not a URL") from None
    if parts.fragment or "@" in parts.netloc or len(dict(options)) < len(options):
        raise RefusedAddress("an address has no fragment, no user and no option twice")
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        if parts.netloc or options or not folder.is_absolute() or ".." in folder.parts or "\0" in str(folder):
            raise RefusedAddress("a folder is written file:///absolute/folder")
        return Address("file", folder=folder)
    if parts.scheme not in ("s3", "gs"):
        raise RefusedAddress("a bucket's address begins with file://, s3:// or gs://")
    prefix = parts.path.strip("/")
    if _BUCKET.fullmatch(parts.netloc) is None or _PREFIX.fullmatch(prefix) is None:
        raise RefusedAddress("a bucket's name or prefix has characters that none has")
    given = dict(options)
    if set(given) - _OPTIONS or (parts.scheme == "gs" and given):
        raise RefusedAddress("an address with an option that there is not")
    region = given.get("region", "us-east-1" if parts.scheme == "s3" else "")
    if parts.scheme == "gs":
        endpoint = "https://storage.googleapis.com"
    else:
        endpoint = given.get("endpoint") or f"https://s3.{region}.amazonaws.com"
    if re.fullmatch(r"[a-z0-9-]{0,32}", region) is None:
        raise RefusedAddress("a region is made of small letters, digits and -")
    if ("access_key" in given) != ("secret_key" in given):
        raise RefusedAddress("access_key and secret_key go together")
    if not all(_KEY.fullmatch(given[name]) for name in ("access_key", "secret_key") if name in given):
        raise RefusedAddress("access_key and secret_key are made of printable ASCII characters")
    return Address(
        parts.scheme,
        parts.netloc,
        prefix,
        _canonical(endpoint),
        region,
        given.get("access_key", ""),
        given.get("secret_key", ""),
    )


@dataclasses.dataclass(frozen=True)
class EndpointPolicy:
    """What a node reads from.

    Attributes:
      endpoints: HOST:PORT that are read from although their address is not public, or the protocol is plain http.
      folders: below which folders are read.
    """

    endpoints: frozenset[str] = frozenset()
    folders: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for endpoint in self.endpoints:
            host, _, port = endpoint.rpartition(":")
            if _HOST.fullmatch(host) is None or re.fullmatch(r"[0-9]{1,5}", port) is None:
                raise ValueError(f"--allow-endpoint {endpoint!r}: expected HOST:PORT, such as 127.0.0.1:9000")

    def check(self, address: str) -> Address:
        """The parts of an address that may be read.

        Raises:
          RefusedAddress: it may not.
        """
        parsed = parse_address(address)
        if parsed.scheme == "file":
            folder = parsed.folder.resolve()
            if not any(folder.is_relative_to(allowed.resolve()) for allowed in self.folders):
                raise RefusedAddress("a folder that is below no --allow-folder")
            return dataclasses.replace(parsed, folder=folder)
        host, port = _host_and_port(parsed.endpoint)
        if not parsed.endpoint.startswith("https://") and not self.allows(host, port):
            raise RefusedAddress("an endpoint without https that is no --allow-endpoint")
        return parsed

    def allows(self, host: str, port: int) -> bool:
        """Whether the operator made an exception for this host, as it is written, and port."""
        return f"{host}:{port}" in self.endpoints


class CheckedNetwork(httpcore.NetworkBackend):
    """Connections to addresses that were judged, each answer within a deadline; a backend of ``httpcore``."""

    def __init__(
        self,
        policy: EndpointPolicy,
        seconds: float,
        resolve: Callable[..., list[Any]] = socket.getaddrinfo,
    ) -> None:
        """A network under a policy.

        Args:
          policy: the operator's exceptions.
          seconds: from a request to the last byte of its answer.
          resolve: as ``socket.getaddrinfo``.
        """
        self._policy = policy
        self._seconds = seconds
        self._names = _Names(resolve)
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connects to the first address of a host that answers, all of them being public."""
        until = None if timeout is None else time.monotonic() + timeout
        addresses = self._names.addresses(host, port, timeout)
        if not addresses:
            raise httpcore.ConnectError("its name has no address")
        if not self._policy.allows(host, port) and not all(map(is_public, addresses)):
            raise RefusedEndpoint("its endpoint has an address that is not public")
        failure: Exception = httpcore.ConnectError("no address")
        for address in addresses:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise httpcore.ConnectTimeout("none of its addresses answers in time")
            try:
                stream = self._sockets.connect_tcp(address, port, left, local_address, socket_options)
                return _Deadlined(stream, self._seconds)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        """Refused: nothing public is behind one."""
        raise RefusedEndpoint("a socket of this machine")

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)


class _Names:
    """Addresses of names, within a time: a stranger's name server may take minutes, and the system's call cannot be ended."""

    def __init__(self, resolve: Callable[..., list[Any]]) -> None:
        self._resolve = resolve
        self._asked: dict[tuple[str, int], Future[list[str]]] = {}
        self._lock = threading.Lock()

    def addresses(self, host: str, port: int, timeout: float | None) -> list[str]:
        with self._lock:
            # Who asks again while the first question is open waits for its answer, so one slow name holds one thread.
            answer = self._asked.get((host, port))
            if answer is None:
                if len(self._asked) >= _MOST_QUESTIONS:
                    raise httpcore.ConnectTimeout("too many names are being resolved")
                answer = self._asked[host, port] = Future()
                # Not one that the process would wait for at its end.
                threading.Thread(target=self._ask, args=(host, port, answer), daemon=True).start()
        try:
            return answer.result(timeout)
        except TimeoutError as error:
            if not answer.done():
                raise httpcore.ConnectTimeout("its name is not resolved in time") from error
            raise httpcore.ConnectError("its name cannot be resolved") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("its name cannot be resolved") from error

    def _ask(self, host: str, port: int, answer: Future[list[str]]) -> None:
        try:
            found = self._resolve(host, port, type=socket.SOCK_STREAM)
            answer.set_result(list(dict.fromkeys(str(entry[4][0]) for entry in found)))
        except (OSError, UnicodeError) as error:
            answer.set_exception(error)
        finally:
            with self._lock:
                del self._asked[host, port]


class _Deadlined(httpcore.NetworkStream):
    """A connection whose every answer must be complete in time: one byte now and then would keep within other timeouts."""

    def __init__(self, stream: httpcore.NetworkStream, seconds: float) -> None:
        self._stream = stream
        self._seconds = seconds
        self._until = time.monotonic() + seconds

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the answer took too long")
        return self._stream.read(max_bytes, left if timeout is None else min(left, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # What is left to a request when it is sent is left to its answer.
        self._until = time.monotonic() + (self._seconds if timeout is None else min(timeout, self._seconds))
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        return _Deadlined(self._stream.start_tls(ssl_context, server_hostname, timeout), self._seconds)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, and no private one in disguise."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    listed = any(ip in network for network in _NOT_PUBLIC if network.version == ip.version)
    return (
        ip.is_global
        and not listed
        and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)
    )


def tls() -> ssl.SSLContext:
    """Certificates are checked, always."""
    return ssl.create_default_context()


def _canonical(endpoint: str) -> str:
    """An endpoint's URL as every library reads it alike: what was judged must be what is connected to."""
    host, port = _host_and_port(endpoint)
    scheme = urlsplit(endpoint).scheme
    named = f"[{host}]" if ":" in host else host
    return f"{scheme}://{named}" if port == _DEFAULT_PORTS[scheme] else f"{scheme}://{named}:{port}"


def _host_and_port(endpoint: str) -> tuple[str, int]:
    """Host and port of an endpoint's URL, which has nothing else."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        raise RefusedAddress("an endpoint that is no URL") from None
    if parts.scheme not in _DEFAULT_PORTS or parts.query or parts.fragment or parts.path.strip("/"):
        raise RefusedAddress("an endpoint is written https://HOST or https://HOST:PORT")
    host = parts.hostname or ""
    if "@" in parts.netloc or _HOST.fullmatch(f"[{host}]" if ":" in host else host) is None:
        raise RefusedAddress("an endpoint without a proper host")
    return host, _DEFAULT_PORTS[parts.scheme] if port is None else port
