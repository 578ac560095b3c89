"""Connections into a namespace machine and out of it: bytes moved between its network and this computer's.

So sshd inside sees an ordinary connection: in its own /proc/net/tcp, at its own port, from the client's
address. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

from cloudrun.sim.acceptor import Acceptor

PIECE_BYTES = 1 << 20
LOOPBACK = "127.0.0.1"


def relay(outer: socket.socket, peer: str, address: tuple[str, int]) -> None:
    """Connect to the address as if from `peer` and move bytes both ways. Blocks until both have ended,
    which is at once where nobody listens there."""
    try:
        inner = socket.create_connection(address, source_address=(peer, 0))
    except OSError:
        return
    with inner:
        for end in (outer, inner):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = threading.Thread(target=_pump, args=(outer, inner))
        thread.start()
        _pump(inner, outer)
        thread.join()


class Gate(Acceptor):
    """Lets a machine reach one port of this computer's loopback: a listening socket of the machine's, joined
    to it until closed."""

    def __init__(self, listener: socket.socket, port: int) -> None:
        self._port = port
        super().__init__(listener, self._join, name=f"gate {port}")

    def _join(self, connection: socket.socket, _: object) -> None:
        with connection:
            relay(connection, LOOPBACK, (LOOPBACK, self._port))


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Until the source has ended; then the sink is told. A broken one ends both ways."""
    reader, writer = os.pipe()
    try:
        while waiting := os.splice(source.fileno(), writer, PIECE_BYTES):
            while waiting:
                waiting -= os.splice(reader, sink.fileno(), waiting)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
