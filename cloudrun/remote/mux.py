"""The client side of OpenSSH's connection multiplexing, spoken over the master's control socket.

`ssh` started as a master keeps one authenticated connection and listens on a Unix socket; a client
passes it the three file descriptors of a command and is told how the command ended. We speak that
protocol (OpenSSH's PROTOCOL.mux, version 4, unchanged since 5.6) instead of starting an `ssh` for
each command: no process per command, streams that are plain pipes, and an exit status that is either
there or not, so that exit code 255 is never taken for a lost connection.
"""

from __future__ import annotations

import array
import contextlib
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from cloudrun.errors import ConnectionLost, RemoteError

VERSION = 4
HELLO = 0x00000001
NEW_SESSION = 0x10000002
ALIVE_CHECK = 0x10000004
TERMINATE = 0x10000005
OPEN_FORWARD = 0x10000006
CLOSE_FORWARD = 0x10000007
OK = 0x80000001
EXIT_MESSAGE = 0x80000004
ALIVE = 0x80000005
SESSION_OPENED = 0x80000006
FORWARD_LOCAL = 1
NO_ESCAPE = 0xFFFFFFFF
MOST_BYTES = 256 * 1024  # of one message; the master never sends more
REQUEST_ID = 1  # one request at a time on each control connection


class NoMaster(RemoteError):
    """Nobody serves the control socket: nothing was started."""


class SessionRefused(RemoteError):
    """The master lives but its connection takes no further session (sshd's MaxSessions)."""


class Control:
    """One connection to a master's control socket. Raises NoMaster when there is none."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        self.reported: int | None = None  # the exit code of the open session
        self.over = False  # nothing more will come
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
            self._send(struct.pack(">II", HELLO, VERSION))
            kind, _ = self._receive()
        except (OSError, ConnectionLost) as error:
            self.close()
            raise NoMaster(f"no connection is open at {path}: {error}") from error
        if kind != HELLO:
            self.close()
            raise NoMaster(f"{path} speaks another protocol")

    def open_session(self, command: str, fds: Sequence[int]) -> None:
        """Start the command on those stdin, stdout and stderr. The descriptors may be closed after.

        Raises SessionRefused, and ConnectionLost when the master ended before the session was open
        (then the command did not start).
        """
        self._send(
            struct.pack(">II", NEW_SESSION, REQUEST_ID)
            + _string(b"")
            + struct.pack(">IIIII", 0, 0, 0, 0, NO_ESCAPE)  # tty, X11, agent, subsystem, escape character
            + _string(b"")  # terminal type
            + _string(command.encode("utf-8", "surrogateescape"))
        )
        for fd in fds:
            self._socket.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        kind, body = self._receive()
        if kind != SESSION_OPENED:
            raise SessionRefused(f"the machine takes no further session: {_reason(body)}")

    def exit_code(self) -> int | None:
        """Wait until the session is over: its exit code, or None where none was reported
        (the connection died, or the shell that ran the command was killed). Blocks."""
        while not self.over:
            self.read_news()
        return self.reported

    def read_news(self) -> None:
        """Take in one message of the open session, or its end; blocks until there is one.
        Fills `reported` and `over`."""
        self._socket.settimeout(None)
        try:
            kind, body = self._receive()
        except ConnectionLost:
            self.over = True
            return
        if kind == EXIT_MESSAGE:
            self.reported = int(struct.unpack(">I", body[4:8])[0])

    def master_lives(self) -> bool:
        """Whether the master still answers."""
        try:
            self._send(struct.pack(">II", ALIVE_CHECK, REQUEST_ID))
            return self._receive()[0] == ALIVE
        except ConnectionLost:
            return False

    def terminate(self) -> None:
        """Ask the master to end, and all its sessions with it."""
        with contextlib.suppress(ConnectionLost):
            self._send(struct.pack(">II", TERMINATE, REQUEST_ID))
            self._receive()

    def open_forward(self, local_port: int, remote_host: str, remote_port: int) -> bool:
        """Listen on 127.0.0.1:local_port for remote_host:remote_port. False: the port is taken."""
        return self._forward(OPEN_FORWARD, local_port, remote_host, remote_port)

    def close_forward(self, local_port: int, remote_host: str, remote_port: int) -> bool:
        return self._forward(CLOSE_FORWARD, local_port, remote_host, remote_port)

    def close(self) -> None:
        """Let go; a session of this connection is dropped."""
        self._socket.close()

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _forward(self, verb: int, local_port: int, remote_host: str, remote_port: int) -> bool:
        self._send(
            struct.pack(">III", verb, REQUEST_ID, FORWARD_LOCAL)
            + _string(b"127.0.0.1")
            + struct.pack(">I", local_port)
            + _string(remote_host.encode())
            + struct.pack(">I", remote_port)
        )
        return self._receive()[0] == OK

    def _send(self, message: bytes) -> None:
        try:
            self._socket.sendall(struct.pack(">I", len(message)) + message)
        except OSError as error:
            raise _lost(f"ended: {error}") from error

    def _receive(self) -> tuple[int, bytes]:
        (length,) = struct.unpack(">I", self._read(4))
        if not 4 <= length <= MOST_BYTES:
            raise _lost(f"sent a message of {length} bytes")
        message = self._read(length)
        return struct.unpack(">I", message[:4])[0], message[4:]

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                part = self._socket.recv(count - len(data))
            except OSError as error:
                raise _lost(f"does not answer: {error}") from error
            if not part:
                raise _lost("ended")
            data += part
        return data


def _lost(why: str) -> ConnectionLost:
    return ConnectionLost(f"the connection's process {why}", hint="try again: it connects anew")


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _reason(body: bytes) -> str:
    """The text of FAILURE and PERMISSION_DENIED, after the request id."""
    return body[8:].decode("utf-8", "replace")
