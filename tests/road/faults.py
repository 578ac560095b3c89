"""Ways to hurt a machine under a run: where its files are, disks that are small, lines that are cut."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cloudrun.client import Client
from cloudrun.models import RunState


def wait_for(condition: Callable[[], object], *, within_s: float = 120) -> None:
    """Until the condition holds; other processes are awaited here, which set no event of ours."""
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come about"
        time.sleep(0.02)


def wait_for_log(client: Client, run: str, text: bytes) -> None:
    """Until that text has come home."""
    wait_for(lambda: text in b"".join(client.logs(run)))


def is_running(client: Client, run: str) -> bool:
    """Has its machine said so?"""
    return client.run(run).state is RunState.RUNNING


def agent_base(client: Client, machine: str) -> Path:
    """Where the agent of a local machine keeps everything."""
    for record in client.settings.machines_dir.glob("*/machine.json"):
        if json.loads(record.read_text())["name"] == machine:
            return record.parent / "home" / ".cloudrun"
    raise AssertionError(f"no folder of {machine}")


def run_folder(client: Client, run: str) -> Path:
    """The folder of the run's last attempt on its local machine."""
    attempt = client.attempts(run)[-1]
    return agent_base(client, attempt.machine) / "runs" / f"{attempt.run}.{attempt.number}"


def number_in(path: Path) -> int:
    """A process id as the agent wrote it, once it has."""
    wait_for(lambda: path.exists() and path.read_text().strip("\0 \n"))
    return int(path.read_text())


def may_mount() -> bool:
    """Root may still be refused it, in a container."""
    with suppress(OSError):
        words = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return os.geteuid() == 0 and subprocess.run(words, capture_output=True, check=False).returncode == 0
    return False


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """One megabyte at `folder`; what is yielded makes it big."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def start_cli(client: Client, *words: str) -> subprocess.Popen[str]:
    """A `cloudrun` of its own, on the client's home."""
    return subprocess.Popen(
        [sys.executable, "-m", "cloudrun", *words],
        env={**os.environ, **client.settings.as_environ()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call_cli(client: Client, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a `cloudrun` of its own."""
    process = start_cli(client, *words)
    out, err = process.communicate(timeout=90)
    assert "Traceback" not in err
    return process.returncode, out, err


class CuttableLine:
    """A TCP relay in front of a server; `cut` ends every connection through it, without a goodbye."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._spawn(self._accept)

    def cut(self) -> None:
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                with self._lock:
                    self._ends += [near, far]
                self._spawn(self._relay, near, far)

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            back = threading.Thread(target=self._pump, args=(far, near))
            back.start()
            self._pump(near, far)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()
