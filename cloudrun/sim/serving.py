"""What every double is while it is started: a server on a thread of its own."""

from __future__ import annotations

from threading import Thread
from typing import Protocol, TypeVar

SHUTDOWN_POLL_S = 0.05  # how often the server looks whether it should end

Part = TypeVar("Part")


class Server(Protocol):
    """What every server of socketserver can do."""

    server_port: int

    def serve_forever(self, poll_interval: float) -> None: ...
    def shutdown(self) -> None: ...
    def server_close(self) -> None: ...


class Serving:
    """Answers from the moment it is made until stop()."""

    def __init__(self, server: Server, name: str) -> None:
        self.port = server.server_port
        self._server = server
        self._thread = Thread(target=server.serve_forever, args=(SHUTDOWN_POLL_S,), name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop answering (blocking, for SHUTDOWN_POLL_S at most after the last answer), free the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def started(part: Part | None) -> Part:
    """A part that start() makes. Raises ValueError before."""
    if part is None:
        raise ValueError("the double is not started")
    return part
