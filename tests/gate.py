"""A port of this machine that leads to another one while it is open: what is away for a while, for tests."""

import socket
import threading
from contextlib import suppress


class Gate:
    """A port of this machine that leads to another one while it is open."""

    def __init__(self, leads_to: int) -> None:
        self._leads_to, self._parts = leads_to, list[socket.socket]()
        self.port = 0

    def open(self) -> None:
        """Let what connects through."""
        door = socket.create_server(("127.0.0.1", self.port))
        self.port = door.getsockname()[1]
        self._parts.append(door)
        threading.Thread(target=self._accept, args=(door,), daemon=True).start()

    def close(self) -> None:
        """Cut all connections, and take no more."""
        for part in self._parts:
            with suppress(OSError):
                part.shutdown(socket.SHUT_RDWR)
            part.close()
        self._parts.clear()

    def _accept(self, door: socket.socket) -> None:
        while True:
            try:
                ours, _ = door.accept()
                theirs = socket.create_connection(("127.0.0.1", self._leads_to))
            except OSError:
                return
            self._parts += [ours, theirs]
            for source, sink in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while some := source.recv(2**16):
                sink.sendall(some)
            sink.shutdown(socket.SHUT_WR)
