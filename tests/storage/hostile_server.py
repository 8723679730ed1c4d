"""A server on loopback that lies, stalls and floods, and its bucket as this machine reads it."""

import email.utils
import socket
import struct
import threading
from contextlib import closing, contextmanager, suppress

from gauntlet_jax.storage.endpoints import EndpointPolicy
from gauntlet_jax.storage.public_bucket import PublicReader, ReadLimits

SECONDS = 0.5
LATE = 1.5  # seconds after which a read has outstayed its deadline, on a busy machine
AT = 1_760_000_000.0
MODIFIED = email.utils.formatdate(AT, usegmt=True)
IN_TIME = "did not answer in time"


class Hostile:
    """A server on loopback; what it does with a connection is a function of (connection, request, stop)."""

    def __init__(self, behave):
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(0.05)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.port = self._listener.getsockname()[1]
        self.requests = []
        self.connections = 0

    def close(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self):
        while not self._stop.is_set():
            with suppress(TimeoutError):
                connection, _ = self._listener.accept()
                connection.settimeout(0.05)
                self.connections += 1
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection):
        with closing(connection), suppress(OSError):
            while (request := self._request(connection)) is not None:
                self.requests.append(request)
                self._behave(connection, request, self._stop)

    def _request(self, connection):
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            if self._stop.is_set():
                return None
            with suppress(TimeoutError):
                more = connection.recv(65536)
                if not more:
                    return None
                data += more
        return data.decode()


def answer(body=b"hello", *, status="200 OK", length=None, modified=MODIFIED, extra=()):
    """An HTTP answer; "" leaves a header out."""
    lines = [f"HTTP/1.1 {status}"]
    size = str(len(body)) if length is None else length
    lines += [f"Content-Length: {size}"] if size else []
    lines += [f"Last-Modified: {modified}"] if modified else []
    return "\r\n".join([*lines, *extra, "", ""]).encode() + body


def saying(data, *, ends=True):
    """A behavior: says the same to everybody, and ends the connection."""

    def behave(connection, request, stop):
        connection.sendall(data.split(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.startswith("HEAD") else data)
        if ends:
            connection.shutdown(socket.SHUT_RDWR)

    return behave


def dripping(before, drop):
    """A behavior: sends the beginning at once and then a drop now and then."""

    def behave(connection, request, stop):
        connection.sendall(before)
        while not stop.wait(0.02):
            connection.sendall(drop)

    return behave


def silent(connection, request, stop):
    stop.wait(10)


def resetting(connection, request, stop):
    connection.sendall(answer(b"x" * 100)[:-50])
    # No polite goodbye.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def flooding(before):
    """A behavior: sends as much as the other side takes."""

    def behave(connection, request, stop):
        connection.sendall(before)
        while not stop.is_set():
            connection.sendall(b"x" * 65536)

    return behave


@contextmanager
def bucket_of(behave, *, keys="", connections=4):
    """A hostile server, and its bucket as this machine reads it."""
    with closing(Hostile(behave)) as server:
        policy = EndpointPolicy(frozenset({f"127.0.0.1:{server.port}"}))
        with closing(PublicReader(policy, ReadLimits(SECONDS, 0.3, connections))) as reader:
            yield server, reader.open(f"s3://bucket/run?endpoint=http://127.0.0.1:{server.port}{keys}")
