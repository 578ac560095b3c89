"""The local half of a session on a master: three pipes and the control connection that tells its end."""

from __future__ import annotations

import io
import os
import select
import selectors
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Self, cast

from cloudrun.errors import ConnectionLost
from cloudrun.models import Result
from cloudrun.remote.mux import Control

CHUNK_BYTES = 256 * 1024
DYING_S = 5.0  # for the kernel to close what a process that ended had open
STDERR_BYTES = 64 * 1024  # kept of a stream's stderr, the end of it


@dataclass(slots=True)
class Session:
    """A command that runs: our ends of its streams, and its control connection."""

    command: str
    control: Control
    stdin: int
    stdout: int
    stderr: int
    master_lives: Callable[[], bool]
    host: str

    def lost(self, why: str = "the connection died") -> ConnectionLost:
        return ConnectionLost(
            f"{self.host}: {why} while a command ran",
            hint="what ran there may go on running; try again when the machine answers",
        )


def collect(session: Session, input: bytes, timeout_s: float | None) -> Result:
    """Feed the input, read both outputs, wait for the end. Closes the session in any case."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    gathered: dict[int, list[bytes]] = {session.stdout: [], session.stderr: []}
    rest = memoryview(input)
    open_fds = {session.stdin, session.stdout, session.stderr}
    try:
        with selectors.DefaultSelector() as selector:
            os.set_blocking(session.stdin, False)
            selector.register(session.stdin, selectors.EVENT_WRITE)
            selector.register(session.stdout, selectors.EVENT_READ)
            selector.register(session.stderr, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in _ready(selector, session, deadline):
                    if key.fd == session.stdin:
                        rest = _feed(session.stdin, rest)
                        ended = not rest
                    else:
                        chunk = os.read(key.fd, CHUNK_BYTES)
                        gathered[key.fd].append(chunk)
                        ended = not chunk
                    if ended:
                        selector.unregister(key.fd)
                        os.close(key.fd)
                        open_fds.discard(key.fd)
        _await_end(session, deadline)
    finally:
        session.control.close()
        for fd in open_fds:
            os.close(fd)
    if session.control.reported is None:
        raise session.lost()
    return Result(
        session.command,
        session.control.reported,
        b"".join(gathered[session.stdout]),
        b"".join(gathered[session.stderr]),
    )


class PipeStream:
    """A Stream (see shell.py) over a session's pipes: stdin and stdout have a fileno and no copy between."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._news = threading.Lock()
        self._stdin = _Writer(session.stdin, self._check)
        self._stdout = io.BufferedReader(_Reader(session.stdout, self._check), CHUNK_BYTES)
        self._stderr = _Tail(session.stderr)

    @property
    def stdin(self) -> IO[bytes]:
        return cast(IO[bytes], self._stdin)

    @property
    def stdout(self) -> IO[bytes]:
        return self._stdout

    def close_stdin(self) -> None:
        self._stdin.close()

    def wait(self, timeout_s: float | None = None) -> Result:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._news:
            _await_end(self._session, deadline)
        if self._session.control.reported is None:
            raise self._session.lost()
        return Result(self._session.command, self._session.control.reported, b"", self._stderr.text())

    def close(self) -> None:
        self._session.control.close()
        self._stdin.close()
        self._stdout.close()  # first: while output waits to be read, the master ends neither stream
        self._stderr.text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _check(self) -> None:
        """At the end of stdout, or a broken stdin: was it the command's doing, or did the connection die?

        The end of the command is reported, or still on its way while the master is alive. The pipes
        of a dying master may close a moment before its control connections do.
        """
        if not self._over():
            if self._session.master_lives():
                return
            with self._news:
                _await_end(self._session, time.monotonic() + DYING_S)
        if self._session.control.reported is None:
            raise self._session.lost()

    def _over(self) -> bool:
        with self._news:
            return _over(self._session)


class _Reader(io.FileIO):
    """The reading end of a pipe that tells the command's end from the connection's."""

    def __init__(self, fd: int, check_end: Callable[[], None]) -> None:
        super().__init__(fd, "rb")
        self._check_end = check_end

    def readinto(self, buffer: object, /) -> int:
        count = super().readinto(buffer)  # type: ignore[arg-type]  # any writable buffer
        if not count:
            self._check_end()
        return count or 0

    def readall(self) -> bytes:
        data = super().readall()
        self._check_end()
        return data


class _Writer(io.FileIO):
    """The writing end of a pipe. Unbuffered: what is written is on its way."""

    def __init__(self, fd: int, check: Callable[[], None]) -> None:
        super().__init__(fd, "wb")
        self._check = check

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]  # any bytes-like
        except BrokenPipeError:
            self._check()
            raise


class _Tail:
    """Reads a stderr in the background, so that it never fills up, and keeps its end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._kept = b""
        self._thread = threading.Thread(target=self._read, daemon=True, name="stderr of a stream")
        self._thread.start()

    def text(self) -> bytes:
        """All that is kept, once the command's stderr has ended."""
        self._thread.join()
        return self._kept

    def _read(self) -> None:
        with open(self._fd, "rb", buffering=0) as pipe:  # noqa: PTH123  # a file descriptor
            while chunk := pipe.read(CHUNK_BYTES):
                self._kept = (self._kept + chunk)[-STDERR_BYTES:]


def _feed(fd: int, rest: memoryview) -> memoryview:
    """Write what the pipe takes; nothing is left once the command closed its stdin."""
    if not rest:
        return rest
    try:
        return rest[os.write(fd, rest[:CHUNK_BYTES]) :]
    except BrokenPipeError:
        return rest[:0]


def _ready(
    selector: selectors.BaseSelector, session: Session, deadline: float | None
) -> list[tuple[selectors.SelectorKey, int]]:
    ready = selector.select(None if deadline is None else max(0.0, deadline - time.monotonic()))
    if not ready:
        raise session.lost("no end within the time allowed")
    return ready


def _await_end(session: Session, deadline: float | None) -> None:
    """Until the master closed the control connection: then the exit code is there, or never will be."""
    while not session.control.over:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([session.control], [], [], left)
        if not readable:
            raise session.lost("no end within the time allowed")
        session.control.read_news()


def _over(session: Session) -> bool:
    """Whether the session is known to be over, without waiting. An exit code is as good as the end."""
    while not session.control.over and session.control.reported is None:
        readable, _, _ = select.select([session.control], [], [], 0)
        if not readable:
            return False
        session.control.read_news()
    return True
