"""The one interface to a machine's command line. Two implementations fill it
(openssh.py: OpenSSH's client over a persistent control connection; ssh.py: fabric/paramiko)
and one contract suite holds both to it.

A command is one string for the machine's /bin/sh. Secrets never stand in it: they go over stdin.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import IO, Protocol, Self, runtime_checkable

from cloudrun.models import Result, SshAddress

DEAD_PEER_S = 15.0  # a peer that is silent this long is lost
CONNECT_TIMEOUT_S = 10.0


class Stream(Protocol):
    """A running remote command with both directions open, for transfers and for following.

    stdin and stdout are binary files. `wait` blocks until the command ended and
    returns its Result (stdout empty: the caller has read it; stderr kept, at most 64 KiB).
    Reads, writes and wait raise ConnectionLost when the connection died.
    """

    @property
    def stdin(self) -> IO[bytes]: ...
    @property
    def stdout(self) -> IO[bytes]: ...
    def close_stdin(self) -> None: ...
    def wait(self, timeout_s: float | None = None) -> Result: ...
    def close(self) -> None:
        """Drop the command at once. Safe to call twice."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


@runtime_checkable
class Shell(Protocol):
    """That machine's command line. Connects on first use; every method may reconnect.

    Thread-safe: several commands may run at once over the one connection.
    """

    address: SshAddress

    def run(
        self,
        command: str,
        *,
        input: bytes = b"",
        timeout_s: float | None = None,
        check: bool = True,
    ) -> Result:
        """Run and wait (blocking). Raises ConnectFailed, HostKeyMismatch, ConnectionLost,
        and with check CommandFailed. A command that itself exits 255 or -1 is a Result,
        never mistaken for a lost connection. timeout_s past: ConnectionLost."""
        ...

    def open(self, command: str) -> Stream:
        """Start a command and return at once with its streams."""
        ...

    def interactive(self, command: str = "") -> int:
        """Join this terminal to a PTY there; "" is a login shell. Blocks; returns the exit code."""
        ...

    def forward(
        self, local_port: int, remote_port: int, *, remote_host: str = "127.0.0.1"
    ) -> AbstractContextManager[int]:
        """Forward 127.0.0.1:local_port here (0 = any free) to remote_host:remote_port there
        while the context is open; yields the local port."""
        ...

    def close(self) -> None:
        """Let the connection go. OpenSSH's control connection may outlive this by its ControlPersist."""
        ...
