"""One SSH session: a command, or a shell on a PTY, with its streams handed over as bare file descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from dataclasses import dataclass

import asyncssh

BUFFER_BYTES = 256 * 1024  # read from a pipe at once; a pipe holds 64 KiB, or 1 MiB once enlarged
PIPE_BYTES = 1024 * 1024
PTY_DRAIN_S = 0.5  # for output still in the PTY when its shell ended; programs it left behind hold it open
ACCEPTED_VARIABLES = ("LANG", "LC_")  # that a client may set, as in sshd_config's usual AcceptEnv
F_SETPIPE_SZ = 1031  # fcntl(2), Linux


@dataclass(slots=True)
class _Streams:
    """Our ends of a child's streams; the child's own ends are closed once it runs."""

    stdin: int
    stdout: int
    stderr: int | None
    theirs: tuple[int, int, int]

    def close_theirs(self) -> None:
        for fd in set(self.theirs):
            os.close(fd)


async def serve_session(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run what the client asked for and report how it ended.

    As with sshd, a command without a PTY ends its session when it has ended and all its output is
    read. When the client goes first, what still runs in the command's process group gets SIGHUP;
    what moved to a session of its own (setsid) lives on.
    """
    streams = _open_pty(process.term_size) if process.term_type else _open_pipes()
    child = await _spawn(process, streams)
    feeding = asyncio.create_task(_feed(process, streams.stdin, child.pid))
    try:
        await process.redirect(
            stdout=streams.stdout,
            stderr=streams.stderr,
            bufsize=BUFFER_BYTES,
            send_eof=False,  # the channel's one EOF is sent with the exit status, after both streams
        )
        code = await _finish(process, child)
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        if child.returncode is None:
            _signal_group(child.pid, signal.SIGHUP)
    if code is not None:
        _report(process, code)
        await process.wait_closed()


async def _spawn(process: asyncssh.SSHServerProcess[bytes], streams: _Streams) -> asyncio.subprocess.Process:
    on_pty = bool(process.term_type)
    try:
        return await asyncio.create_subprocess_exec(
            *_argv(process.command, on_pty=on_pty),
            stdin=streams.theirs[0],
            stdout=streams.theirs[1],
            stderr=streams.theirs[2],
            cwd=os.environ["HOME"],
            env=_environment(process),
            start_new_session=True,
            preexec_fn=_take_terminal if on_pty else None,
        )
    finally:
        streams.close_theirs()


async def _feed(process: asyncssh.SSHServerProcess[bytes], fd: int, group: int) -> None:
    """Hand the client's input, signals and window sizes on, until it ends its input.

    By hand, as asyncio's pipe writer (3.11) may drop its buffer when input and its end come close together.
    """
    os.set_blocking(fd, False)
    try:
        while True:
            try:
                data = await process.stdin.read(BUFFER_BYTES)
            except asyncssh.TerminalSizeChanged as change:
                _set_window(fd, change.term_size)  # the kernel tells the programs there
            except asyncssh.SignalReceived as received:
                _signal_group(group, signal.Signals[f"SIG{received.signal}"])
            except asyncssh.BreakReceived:
                _signal_group(group, signal.SIGINT)
            else:
                if not data:
                    return
                await _write(fd, data)
    except (OSError, asyncssh.Error, KeyError):
        return  # the command closed its stdin, the client is gone, or it sent a signal of no known name
    finally:
        os.close(fd)


async def _write(fd: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            writable = asyncio.Event()
            loop.add_writer(fd, writable.set)
            try:
                await writable.wait()
            finally:
                loop.remove_writer(fd)


async def _finish(process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process) -> int | None:
    """Wait for the end of output and child: its return code, or None when the client went away first."""
    closed = asyncio.create_task(process.channel.wait_closed())
    ended = asyncio.create_task(child.wait())
    output = asyncio.create_task(_drain(process))
    tasks = (closed, ended, output)
    try:
        await asyncio.wait((closed, ended), return_when=asyncio.FIRST_COMPLETED)
        patience = PTY_DRAIN_S if process.term_type else None
        await asyncio.wait((closed, output), return_when=asyncio.FIRST_COMPLETED, timeout=patience)
        return None if closed.done() else ended.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _drain(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Wait until all that the command put out is in the channel."""
    await process.stdout.drain()
    await process.stderr.drain()


def _report(process: asyncssh.SSHServerProcess[bytes], code: int) -> None:
    if code >= 0:
        process.exit(code)
    else:
        process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))


def _argv(command: str | None, *, on_pty: bool) -> tuple[str, ...]:
    if command is not None:
        return ("/bin/sh", "-c", command)
    # Not a login shell: /etc/profile would reset PATH, and with it the interpreter of this machine.
    shell = os.environ.get("SHELL", "/bin/sh")
    return (shell, "-i") if on_pty else (shell,)


def _environment(process: asyncssh.SSHServerProcess[bytes]) -> dict[str, str]:
    """The machine's own environment (the server's), and what belongs to this session."""
    environment = dict(os.environ)
    for name, value in process.env.items():
        if name.startswith(ACCEPTED_VARIABLES):
            environment[name] = value
    here, there = process.get_extra_info("sockname"), process.get_extra_info("peername")
    environment["SSH_CONNECTION"] = f"{there[0]} {there[1]} {here[0]} {here[1]}"
    if process.term_type:
        environment["TERM"] = process.term_type
    return environment


def _open_pipes() -> _Streams:
    pipes = [os.pipe() for _ in range(3)]
    for reader, _ in pipes[:2]:
        with contextlib.suppress(OSError):  # not Linux, or the user's pipe quota is used up
            fcntl.fcntl(reader, F_SETPIPE_SZ, PIPE_BYTES)
    (their_in, our_in), (our_out, their_out), (our_err, their_err) = pipes
    return _Streams(our_in, our_out, our_err, (their_in, their_out, their_err))


def _open_pty(size: tuple[int, int, int, int]) -> _Streams:
    ours, theirs = os.openpty()
    _set_window(ours, size)  # before the first program there asks for it
    return _Streams(ours, os.dup(ours), None, (theirs, theirs, theirs))


def _set_window(fd: int, size: tuple[int, int, int, int]) -> None:
    columns, rows, width, height = size
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, width, height))


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _take_terminal() -> None:
    """In the child: make the PTY on its stdin the controlling terminal of its new session."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
