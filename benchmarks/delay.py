"""A TCP proxy on loopback that holds every byte back for a fixed time each way.

Run as a process of its own (`python benchmarks/delay.py HOST PORT MILLISECONDS`), so that it takes no time
from what is measured; it prints its own port and ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from typing import cast

MOST_HELD_BYTES = 64 * 1024 * 1024  # one way; past this the sender has to wait, as on a full line


@contextlib.contextmanager
def delayed(host: str, port: int, rtt_ms: float) -> Iterator[int]:
    """The port of a proxy before host:port with that round-trip time; the port itself for 0."""
    if not rtt_ms:
        yield port
        return
    command = [sys.executable, __file__, host, str(port), str(rtt_ms / 2)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


class Side(asyncio.Protocol):
    """One end of a connection: what arrives here leaves at the other end after the delay."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None
        self.held: deque[tuple[float, bytes]] = deque()  # when due, and what; b"" is the end
        self.held_bytes = 0
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.hold(data)
        if self.held_bytes > MOST_HELD_BYTES and self.transport is not None:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.hold(b"")
        return True  # the other direction goes on

    def connection_lost(self, _error: Exception | None) -> None:
        self.hold(b"")

    def hold(self, data: bytes) -> None:
        self.held.append((self.loop.time() + self.delay_s, data))
        self.held_bytes += len(data)
        if self.timer is None:
            self.timer = self.loop.call_at(self.held[0][0], self.let_go)

    def let_go(self) -> None:
        self.timer = None
        now = self.loop.time()
        while self.held and self.held[0][0] <= now:
            _, data = self.held.popleft()
            self.held_bytes -= len(data)
            self.pass_on(data)
        if self.held:
            self.timer = self.loop.call_at(self.held[0][0], self.let_go)
        if self.held_bytes <= MOST_HELD_BYTES and self.transport is not None:
            self.transport.resume_reading()

    def pass_on(self, data: bytes) -> None:
        there = self.other.transport if self.other is not None else None
        if there is None or there.is_closing():
            return
        if data:
            there.write(data)
        elif there.can_write_eof():
            with contextlib.suppress(OSError):  # it has gone meanwhile
                there.write_eof()


async def serve(host: str, port: int, delay_s: float) -> None:
    """Serve until standard input closes."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    class Front(Side):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(self.connect())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        async def connect(self) -> None:
            assert self.transport is not None
            self.transport.pause_reading()
            try:
                _, back = await loop.create_connection(lambda: Side(self.delay_s), host, port)
            except OSError:
                self.transport.close()
                return
            self.other, back.other = back, self
            self.transport.resume_reading()

    server = await loop.create_server(lambda: Front(delay_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1000))
