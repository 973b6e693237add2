"""A way to a server on which answers get lost: the server has read the request, and the connection breaks."""

import socket
import threading
from contextlib import closing, suppress


class Severing:
    """Passes bytes on to a server of this machine, and loses the answer to the first so many requests.

    Args:
        port: of the server.
        n_lost: answers to lose; may be set again later.
        asked: what a request holds whose answer may be lost; b"" is in all of them.
        shown: bytes of a lost answer that arrive all the same.

    Attributes:
        port: where it listens.
        n_lost: answers that are still to be lost.
    """

    def __init__(self, port: int, n_lost: int = 0, *, asked: bytes = b"", shown: int = 100) -> None:
        self.n_lost = n_lost
        self._to, self._asked, self._shown = port, asked, shown
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                incoming, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(incoming,), daemon=True).start()

    def _pass_on(self, incoming: socket.socket) -> None:
        seen = threading.Event()
        with closing(incoming), suppress(OSError), socket.create_connection(("127.0.0.1", self._to)) as server:
            threading.Thread(target=self._send, args=(incoming, server, seen), daemon=True).start()
            while answer := server.recv(65536):
                if seen.is_set() and self.n_lost > 0:
                    self.n_lost -= 1
                    incoming.sendall(answer[: self._shown])
                    incoming.shutdown(socket.SHUT_RDWR)
                    return
                seen.clear()  # what is asked next on this connection is another request
                incoming.sendall(answer)

    def _send(self, incoming: socket.socket, server: socket.socket, seen: threading.Event) -> None:
        with suppress(OSError):
            while sent := incoming.recv(65536):
                if self._asked in sent:
                    seen.set()
                server.sendall(sent)

    def close(self) -> None:
        """Refuse further connections; those that there are go on."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who accepts, and would let one more in
        self._listener.close()
