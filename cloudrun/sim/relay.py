"""A connection into a namespace machine: bytes moved between this computer's network and the machine's own.

So sshd inside sees an ordinary connection: in its own /proc/net/tcp, at its own port, from the client's
address. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

PIECE_BYTES = 1 << 20


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
