"""A local port whose connections are carried over channels of a connection (for shells without their own)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from cloudrun.errors import ConnectFailed, RemoteError

CHUNK_BYTES = 64 * 1024


class Carrier(Protocol):
    """The far end of one carried connection, as a socket sees it."""

    def recv(self, count: int, /) -> bytes: ...
    def sendall(self, data: bytes, /) -> object: ...
    def shutdown_write(self) -> None: ...
    def close(self) -> None: ...


@contextmanager
def listening(local_port: int, open_carrier: Callable[[], Carrier]) -> Iterator[int]:
    """Listen on 127.0.0.1:local_port (0 = any free) while the context is open; yields the port.

    Every connection gets a carrier of its own. Connections that are open at the end are cut.
    """
    try:
        listener = socket.create_server(("127.0.0.1", local_port))
    except OSError as error:
        raise ConnectFailed(
            f"port {local_port} of this computer is taken", hint="choose another, or 0 for any"
        ) from error
    tunnel = _Tunnel(listener, open_carrier)
    threading.Thread(target=tunnel.accept, daemon=True, name="tunnel").start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        tunnel.close()


class _Tunnel:
    def __init__(self, listener: socket.socket, open_carrier: Callable[[], Carrier]) -> None:
        self._listener = listener
        self._open_carrier = open_carrier
        self._carried: set[tuple[socket.socket, Carrier]] = set()

    def accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True, name="tunnel").start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self._listener.close()
        for near, far in list(self._carried):
            _cut(near)
            far.close()

    def _carry(self, near: socket.socket) -> None:
        try:
            far = self._open_carrier()
        except RemoteError:  # whoever connected sees what a closed port looks like
            near.close()
            return
        self._carried.add((near, far))
        outward = threading.Thread(target=_outward, args=(near, far), daemon=True, name="tunnel")
        outward.start()
        _inward(far, near)
        outward.join()
        near.close()
        far.close()
        self._carried.discard((near, far))


def _outward(near: socket.socket, far: Carrier) -> None:
    with contextlib.suppress(OSError):
        while data := near.recv(CHUNK_BYTES):
            far.sendall(data)
        far.shutdown_write()


def _inward(far: Carrier, near: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := far.recv(CHUNK_BYTES):
            near.sendall(data)
        near.shutdown(socket.SHUT_WR)


def _cut(near: socket.socket) -> None:
    with contextlib.suppress(OSError):
        near.shutdown(socket.SHUT_RDWR)
