"""The listening socket: connections over the limits are closed before anything of them is read."""

import socket
import struct
from typing import Any

from shoestring.serve.admission.connections import Connections, Release

MAX_ACCEPTS = 256
"""Connections taken or refused in a row, before the event loop turns to its other work."""
RESET_AT_CLOSE, NO_LINGER = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)
"""SO_LINGER of a connection that is reset, so that nothing of it stays behind, and of every other one."""


class Listener(socket.socket):
    """A listening socket for asyncio's selector loops, which call its `accept`.

    A connection that is refused costs about 10 us here; as one of asyncio's, it would cost ten times as much.
    """

    def __init__(self, listener: socket.socket, connections: Connections) -> None:
        """Take over a socket that listens; `listener` is detached from its descriptor."""
        family, kind, protocol = listener.family, listener.type, listener.proto
        super().__init__(family, kind, protocol, fileno=listener.detach())
        self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)  # connections inherit it
        self._connections = connections
        self._num_accepts = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection within the limits. Raises BlockingIOError when none waits, as sockets do."""
        while self._num_accepts < MAX_ACCEPTS:
            self._num_accepts += 1
            try:
                connection, peer = super().accept()
            except OSError:
                self._num_accepts = 0
                raise
            release = self._connections.admit(peer[0])
            if release is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                return _Connection(connection, release), peer
            connection.close()
        self._num_accepts = 0
        raise BlockingIOError


class _Connection(socket.socket):
    """A connection that is counted until it is closed."""

    def __init__(self, connection: socket.socket, release: Release) -> None:
        family, kind, protocol = connection.family, connection.type, connection.proto
        super().__init__(family, kind, protocol, fileno=connection.detach())
        self._release: Release | None = release

    def close(self) -> None:
        release, self._release = self._release, None
        super().close()
        if release is not None:
            release()
