"""The server process of one local machine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import random
import signal
import socket
import time
from typing import IO

import asyncssh

from cloudrun.server import processes
from cloudrun.server.files import HomeFiles
from cloudrun.server.folder import FALLBACK_HOST, MachineFolder, ServerRecord
from cloudrun.server.session import serve_session

LEAST_PORT = 20000
MOST_PORT = 60999
KEEPALIVE_S = 15  # a client that is silent for three of these is gone
# AES-GCM first: asyncssh's ChaCha20 runs at half its speed. A client's own order comes before ours.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)


def serve(folder: MachineFolder, *, ready_fd: int | None = None) -> int:
    """Serve that folder until SIGTERM. Blocks; returns the exit code.

    Writes one line to ready_fd once it listens: "ready", or why it does not.
    """
    lock = _lock(folder)
    if lock is None:  # another server of this machine was faster, which is as good
        _tell(ready_fd, "ready")
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_serve(folder, ready_fd))
    except (OSError, asyncssh.Error, ValueError) as error:
        _tell(ready_fd, f"{type(error).__name__}: {error}")
        logging.exception("the server could not start")
        return 1
    return 0


def _lock(folder: MachineFolder) -> IO[str] | None:
    """The machine's lock, held for life; None while another server serves. One that is only just
    ending, or starting, is waited for."""
    lock = folder.lock.open("w")
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if folder.live_server():
                return None
        time.sleep(0.02)


async def _serve(folder: MachineFolder, ready_fd: int | None) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    listener = _listen(folder)
    host, port = listener.getsockname()
    server = await asyncssh.listen(
        sock=listener,
        server_factory=_Policy,
        server_host_keys=[str(folder.host_key)],
        authorized_client_keys=str(folder.authorized_keys),
        password_auth=False,
        kbdint_auth=False,
        gss_host=None,
        agent_forwarding=False,
        compression_algs=None,
        encryption_algs=CIPHERS,
        keepalive_interval=KEEPALIVE_S,
        process_factory=serve_session,
        sftp_factory=HomeFiles,
        allow_scp=True,
        line_editor=False,
        encoding=None,
    )
    pid = os.getpid()
    folder.save_server(ServerRecord(pid, processes.start_mark(pid), host, port))
    _tell(ready_fd, "ready")
    await stop.wait()
    server.close()


class _Policy(asyncssh.SSHServer):
    """Whoever holds the machine's key may also forward ports."""

    def connection_requested(self, *_: object) -> bool:
        return True


def _listen(folder: MachineFolder) -> socket.socket:
    """The port of the last time where it is still free, else any free one; the address likewise."""
    machine, last = folder.machine(), folder.server()
    if machine is None:
        raise ValueError(f"{folder.path} holds no machine")
    ports = [last.port] if last else []
    ports += random.sample(range(LEAST_PORT, MOST_PORT), 64)  # any free port will do
    for host in dict.fromkeys((machine.host, FALLBACK_HOST)):
        for port in ports:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
                return listener
            except OSError as error:
                listener.close()
                if error.errno == errno.EADDRNOTAVAIL:  # this system has only 127.0.0.1
                    break
    raise OSError(f"no free port on {machine.host}")


def _tell(ready_fd: int | None, line: str) -> None:
    if ready_fd is None:
        return
    with contextlib.suppress(BrokenPipeError):  # whoever started us is gone: the machine lives all the same
        os.write(ready_fd, f"{line}\n".encode())
    os.close(ready_fd)
