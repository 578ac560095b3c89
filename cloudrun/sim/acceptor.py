"""A listening socket served until it is closed. Standard library only."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Acceptor:
    """Hands each connection to `serve`, in a thread of its own. Owns the listening socket."""

    def __init__(
        self, listener: socket.socket, serve: Callable[[socket.socket, object], None], *, name: str
    ) -> None:
        self._listener, self._serve = listener, serve
        self._thread = threading.Thread(target=self._accept, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Idempotent. What is being served goes on until it has ended."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept, which close alone does not
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, peer), daemon=True).start()
