"""A gate in front of a server on loopback, which can be shut, or made slow, while others go straight in."""

import socket
import threading
import time

_CHUNK = 4096


class Gate:
    """Forwards connections to a port.

    Attributes:
      port: its own.
      open: whether it lets anybody through; shut, it also breaks off who is on the way.
      delay: seconds that every 4 KiB waits.
    """

    def __init__(self, target: int):
        """A gate that is open.

        Args:
          target: the port behind it, on loopback.
        """
        self.open = True
        self.delay = 0.0
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._server.getsockname()[1]
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Shuts it for good."""
        self._closing, self.open = True, False
        self._server.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if not self.open:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        source.settimeout(0.5)
        try:
            while self.open:
                try:
                    data = source.recv(_CHUNK)
                except TimeoutError:
                    continue
                if not data:
                    break
                time.sleep(self.delay)
                sink.sendall(data)
        except OSError:
            pass  # the other side has gone
        finally:
            source.close()
            sink.close()
