"""The shell over fabric and paramiko, for computers without OpenSSH's client.

paramiko does not notice by itself that a peer fell silent, so a watch asks the peer a question every
few seconds and closes the connection when no answer comes. An exit code of -1 is paramiko's word for
"none was reported": ConnectionLost.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self, cast

import fabric  # type: ignore[import-untyped]  # ships no types
import paramiko

from cloudrun.errors import ConnectFailed, ConnectionLost, HostKeyMismatch, RemoteError
from cloudrun.models import Result, SshAddress
from cloudrun.remote.command import checked, wrapped
from cloudrun.remote.shell import CONNECT_TIMEOUT_S, DEAD_PEER_S, Stream
from cloudrun.remote.tunnel import listening

ASK_EVERY_S = 3.0
ANSWER_WITHIN_S = 9.0  # 3 + 9 = 12 s, below DEAD_PEER_S
MOST_CONNECTIONS = 8  # each carries sshd's MaxSessions (10) commands at once
CHUNK_BYTES = 32 * 1024  # one packet
STDERR_BYTES = 64 * 1024  # kept of a stream's stderr, the end of it
NO_STATUS = -1
BROKEN = (paramiko.SSHException, EOFError, OSError)  # paramiko's ways to say that it cannot go on
DYING_S = 5.0  # for a connection that breaks under a write to be known as broken


class FabricShell:
    """A Shell (see shell.py). known_hosts holds the machine's host key; no other file is asked."""

    def __init__(self, address: SshAddress, known_hosts: Path) -> None:
        self.address = address
        self._known_hosts = known_hosts
        self._lock = threading.Lock()
        self._connections: list[fabric.Connection] = []

    def run(
        self, command: str, *, input: bytes = b"", timeout_s: float | None = None, check: bool = True
    ) -> Result:
        with ChannelStream(self._channel(command), command, self.address.host, keep_stderr=None) as stream:
            result = stream.collect(input, timeout_s)
        return checked(result, self.address) if check else result

    def open(self, command: str) -> Stream:
        channel = self._channel(command)
        return ChannelStream(channel, command, self.address.host, keep_stderr=STDERR_BYTES)

    def interactive(self, command: str = "") -> int:
        connection = self._connection(0)
        if command:
            result = connection.run(command, pty=True, warn=True, echo_stdin=False)
        else:
            result = connection.shell()
        if result.exited == NO_STATUS:
            raise self._lost()
        return int(result.exited)

    @contextmanager
    def forward(self, local_port: int, remote_port: int, *, remote_host: str = "127.0.0.1") -> Iterator[int]:
        def carrier() -> paramiko.Channel:
            transport = self._connection(0).transport
            try:
                opened: paramiko.Channel = transport.open_channel(
                    "direct-tcpip", (remote_host, remote_port), ("127.0.0.1", 0), timeout=DEAD_PEER_S
                )
            except BROKEN as error:
                raise self._lost() from error
            return opened

        self._connection(0)  # so that a machine that cannot be reached is told here
        with listening(local_port, carrier) as port:
            yield port

    def close(self) -> None:
        with self._lock:
            for connection in filter(None, self._connections):  # None: it could not be opened
                connection.close()
            self._connections = []

    # --- channels and connections ---

    def _channel(self, command: str) -> paramiko.Channel:
        """A channel on which the command runs, on the first connection that takes one more. A connection
        found dead did not start it: once more, then."""
        for index in range(MOST_CONNECTIONS):
            for last_try in (False, True):
                transport = self._connection(index).transport
                try:
                    channel: paramiko.Channel = transport.open_session(timeout=DEAD_PEER_S)
                except BROKEN as error:
                    if _refused(transport, error):
                        break
                    if last_try:
                        raise self._lost() from error
                    continue
                try:
                    channel.exec_command(wrapped(command))
                except BROKEN as error:
                    raise self._lost() from error
                return channel
        raise ConnectFailed(
            f"{self.address.host} takes no more commands at once", hint="wait for some of them to end"
        )

    def _connection(self, index: int) -> Any:
        """fabric's connection of that index, opened anew where it is not open."""
        with self._lock:
            while len(self._connections) <= index:
                self._connections.append(None)
            connection = self._connections[index]
            if connection is None or not connection.is_connected:
                connection = self._connections[index] = self._connect()
            return connection

    def _connect(self) -> Any:
        """paramiko heeds one key of a kind; known_hosts has two while the host key is being replaced."""
        *others, last = self._known_hosts.read_text().splitlines()
        for line in others:
            with suppress(HostKeyMismatch):
                return self._connect_to(line)
        return self._connect_to(last)

    def _connect_to(self, known_host: str) -> Any:
        """A connection to a host that proves itself by the key of that line of known_hosts."""
        address = self.address
        if not address.key_path.is_file():
            raise ConnectFailed(
                f"the user key {address.key_path} is missing",
                hint="it is made with the machine: launch or attach the machine again",
            )
        connection = fabric.Connection(
            address.host,
            user=address.user,
            port=address.port,
            config=fabric.Config(lazy=True, overrides={"load_ssh_configs": False}),
            connect_timeout=CONNECT_TIMEOUT_S,
            connect_kwargs={
                "key_filename": str(address.key_path),
                "allow_agent": False,
                "look_for_keys": False,
                "banner_timeout": CONNECT_TIMEOUT_S,
                "auth_timeout": CONNECT_TIMEOUT_S,
            },
        )
        entry = paramiko.hostkeys.HostKeyEntry.from_line(known_host)
        if entry is not None:  # else none is known, and none is accepted
            connection.client.get_host_keys().add(entry.hostnames[0], entry.key.get_name(), entry.key)
        connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            connection.open()
        except (paramiko.SSHException, EOFError, OSError, ValueError) as error:
            raise connect_error(address, error) from error
        connection.transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_watch, args=(connection.transport,), daemon=True, name="watch").start()
        return connection

    def _lost(self) -> ConnectionLost:
        return _lost(self.address.host)


class ChannelStream:
    """A Stream (see shell.py) over a paramiko channel."""

    def __init__(
        self, channel: paramiko.Channel, command: str, host: str, *, keep_stderr: int | None
    ) -> None:
        self._channel = channel
        self._command = command
        self._host = host
        self._stdin = _Writer(channel, self._check_end)
        self._stdout = io.BufferedReader(_Reader(channel, self._check_end), CHUNK_BYTES)
        self._stderr = bytearray()
        self._stderr_reader = threading.Thread(
            target=self._read_stderr, args=(keep_stderr,), daemon=True, name="stderr of a stream"
        )
        self._stderr_reader.start()

    @property
    def stdin(self) -> IO[bytes]:
        return cast(IO[bytes], self._stdin)

    @property
    def stdout(self) -> IO[bytes]:
        return self._stdout

    def close_stdin(self) -> None:
        self._stdin.close()

    def wait(self, timeout_s: float | None = None) -> Result:
        if not self._channel.status_event.wait(timeout_s):
            raise _lost(self._host, "no end within the time allowed")
        return self._result(b"")

    def collect(self, input: bytes, timeout_s: float | None) -> Result:
        """Feed the input, read stdout, wait for the end."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        threading.Thread(target=self._feed, args=(input,), daemon=True, name="stdin").start()
        chunks = []
        try:
            while True:
                self._channel.settimeout(_left(deadline))
                if not (chunk := self._channel.recv(CHUNK_BYTES)):
                    break
                chunks.append(chunk)
        except TimeoutError as error:
            raise _lost(self._host, "no end within the time allowed") from error
        if not self._channel.status_event.wait(_left(deadline)):
            raise _lost(self._host, "no end within the time allowed")
        return self._result(b"".join(chunks))

    def close(self) -> None:
        self._channel.close()
        self._stderr_reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _result(self, stdout: bytes) -> Result:
        code = self._channel.exit_status
        if code == NO_STATUS:
            raise _lost(self._host)
        self._stderr_reader.join()
        return Result(self._command, code, stdout, bytes(self._stderr))

    def _check_end(self) -> None:
        """At the end of a stream: the command's own end reports a code before the channel closes."""
        if self._channel.closed and self._channel.exit_status == NO_STATUS:
            raise _lost(self._host)

    def _feed(self, input: bytes) -> None:
        with suppress(*BROKEN):  # the command need not read it all; a loss shows in its status
            for start in range(0, len(input), CHUNK_BYTES):
                self._channel.sendall(input[start : start + CHUNK_BYTES])
            self._channel.shutdown_write()

    def _read_stderr(self, keep: int | None) -> None:
        with suppress(OSError):
            while chunk := self._channel.recv_stderr(CHUNK_BYTES):
                self._stderr += chunk
                if keep is not None:
                    del self._stderr[:-keep]


class _Reader(io.RawIOBase):
    def __init__(self, channel: paramiko.Channel, check_end: Callable[[], None]) -> None:
        self._channel = channel
        self._check_end = check_end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._channel.recv(len(buffer))
        if not data:
            self._check_end()
        buffer[: len(data)] = data
        return len(data)


class _Writer(io.RawIOBase):
    """Unbuffered: what is written is on its way. Every write is whole."""

    def __init__(self, channel: paramiko.Channel, check_end: Callable[[], None]) -> None:
        self._channel = channel
        self._check_end = check_end

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        try:
            for start in range(0, len(view), CHUNK_BYTES):
                self._channel.sendall(bytes(view[start : start + CHUNK_BYTES]))
        except BROKEN as error:
            self._channel.status_event.wait(DYING_S)  # set by either end: the command's, the connection's
            self._check_end()
            raise BrokenPipeError("the command has ended") from error
        return len(view)

    def close(self) -> None:
        if not self.closed:
            with suppress(*BROKEN):
                self._channel.shutdown_write()
        super().close()


def connect_error(address: SshAddress, error: Exception) -> RemoteError:
    """paramiko's word as one of our errors."""
    where = f"{address.user}@{address.host}:{address.port}"
    if isinstance(error, paramiko.BadHostKeyException) or "not found in known_hosts" in str(error):
        return HostKeyMismatch(
            f"{where}: another host key than recorded",
            hint="somebody else may be answering there; if the machine was rebuilt, attach or launch it anew",
        )
    if isinstance(error, paramiko.AuthenticationException):
        return ConnectFailed(
            f"{where}: {error}",
            hint="the machine does not accept this key: was it made for another machine?",
        )
    if isinstance(error, ConnectionRefusedError | paramiko.ssh_exception.NoValidConnectionsError):
        return ConnectFailed(
            f"{where}: connection refused",
            hint="no SSH server answers there: is it stopped? see: cloudrun machines list",
        )
    return ConnectFailed(f"{where}: {error}", hint="is the machine up, and the network? then try again")


def _watch(transport: paramiko.Transport) -> None:
    """Ask the peer now and then whether it is there; close the connection when it does not answer."""
    while transport.is_active():
        patience = threading.Timer(ANSWER_WITHIN_S, transport.close)
        patience.daemon = True
        patience.start()
        with suppress(*BROKEN):
            transport.global_request("keepalive@openssh.com", wait=True)
        patience.cancel()
        transport.join(ASK_EVERY_S)


def _refused(transport: paramiko.Transport, error: Exception) -> bool:
    """Whether the live peer said no (sshd's MaxSessions). With several threads asking at once paramiko
    gives the reason to one of them and a bare SSHException to the others."""
    return transport.is_active() and isinstance(error, paramiko.SSHException) and "Timeout" not in str(error)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.001, deadline - time.monotonic())


def _lost(host: str, why: str = "the connection died") -> ConnectionLost:
    return ConnectionLost(
        f"{host}: {why} while a command ran",
        hint="what ran there may go on running; try again when the machine answers",
    )
