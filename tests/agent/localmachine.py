"""A machine without a network: a folder as $HOME and /bin/sh, behind the Shell protocol.

What the SSH shells add is tested with them; here the agent and its client run as they are, over real pipes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

from cloudrun.errors import CommandFailed, ConnectionLost
from cloudrun.manifest import digest_files
from cloudrun.models import Bundle, BundleFile, Result, SshAddress
from cloudrun.remote import process, transfer


class LocalStream:
    """A command's pipes. `cut_after` bytes of either direction the line goes dead, as a pulled plug does."""

    def __init__(self, shell: LocalShell, command: str) -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            env=shell.env,
            cwd=shell.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.stdin: IO[bytes] = _Counter(self, self.process.stdin, shell, "sent")
        self.stdout: IO[bytes] = _Counter(self, self.process.stdout, shell, "received")

    def close_stdin(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def wait(self, timeout_s: float | None = None) -> Result:
        stderr = self.process.stderr.read()
        return Result("", self.process.wait(timeout_s), b"", stderr)

    def close(self) -> None:
        """The plug: both pipes end; the agent is not killed, as on a real machine."""
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Counter:
    def __init__(self, stream: LocalStream, pipe: IO[bytes], shell: LocalShell, direction: str) -> None:
        self._stream, self._pipe, self._shell, self._direction = stream, pipe, shell, direction

    def read(self, size: int) -> bytes:
        data = self._pipe.read(min(size, self._allowed(size)))
        self._count(len(data))
        return data

    def write(self, data: bytes) -> int:
        data = data[: self._allowed(len(data))]
        self._pipe.write(data)
        self._count(len(data))
        return len(data)

    def flush(self) -> None:
        self._pipe.flush()

    def _allowed(self, size: int) -> int:
        limit = self._shell.cut_after.get(self._direction)
        if limit is None:
            return size
        if limit <= 0:
            del self._shell.cut_after[self._direction]
            self._pipe.flush()
            raise ConnectionLost("cut by the test")
        return min(size, limit)

    def _count(self, size: int) -> None:
        setattr(self._shell, self._direction, getattr(self._shell, self._direction) + size)
        if self._direction in self._shell.cut_after:
            self._shell.cut_after[self._direction] -= size


class LocalShell:
    """The Shell protocol over /bin/sh in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.address = SshAddress("localhost", 22, "nobody", home / "key")
        self.env = {"HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C"}
        self.sent = self.received = 0
        self.cut_after: dict[str, int] = {}

    @property
    def base(self) -> Path:
        return self.home / ".cloudrun"

    def run_dir(self, key: str) -> Path:
        return self.base / "runs" / key

    def run(
        self, command: str, *, input: bytes = b"", timeout_s: float | None = None, check: bool = True
    ) -> Result:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env=self.env,
            cwd=self.home,
            input=input,
            capture_output=True,
            timeout=timeout_s,
        )
        result = Result(command, done.returncode, done.stdout, done.stderr)
        if check and not result:
            raise CommandFailed("failed", result=result)
        return result

    def open(self, command: str) -> LocalStream:
        return LocalStream(self, command)

    def close(self) -> None:
        pass


def pids_of(home: Path) -> list[int]:
    """Processes whose environment has that home."""
    mark = b"HOME=" + os.fsencode(home)
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def local_machine(folder: Path) -> Iterator[LocalShell]:
    """A machine below the folder; whatever was left running on it is ended afterwards, by the ids of its own
    home."""
    home = folder / "machine"
    home.mkdir()
    yield LocalShell(home)
    for pid in pids_of(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def make_bundle(files: dict[str, bytes]) -> tuple[Bundle, Callable[[str], IO[bytes]]]:
    """A bundle of these contents, and what opens them."""
    entries = tuple(
        BundleFile(name, len(data), 0o644, hashlib.sha256(data).hexdigest())
        for name, data in sorted(files.items())
    )
    contents = {entry.sha256: files[entry.path] for entry in entries}
    return Bundle(digest_files(entries), entries), lambda sha256: io.BytesIO(contents[sha256])


def start_script(
    shell: LocalShell, script: str, *, key: str = "aaaa2222.1", **fields: object
) -> process.ProcessStatus:
    """Push a bundle of one shell script and start it."""
    bundle, open_content = make_bundle({"job.sh": script.encode()})
    transfer.push_bundle(shell, bundle, open_content)
    spec = process.ProcessSpec(key=key, bundle=bundle.digest, command=("/bin/sh", "job.sh"), **fields)  # type: ignore[arg-type]
    return process.start(shell, spec)


def follow_to_end(
    shell: LocalShell, key: str = "aaaa2222.1", offset: int = 0
) -> tuple[bytes, process.ProcessStatus]:
    """The log from offset on, and the last status."""
    log, last = b"", None
    for item in process.follow(shell, key, log_offset=offset):
        if isinstance(item, process.LogChunk):
            log += item.data
        elif isinstance(item, process.StateChange):
            last = item.status
    assert last is not None
    return log, last


def wait_for(condition: Callable[[], object], *, timeout_s: float = 90.0) -> None:
    """Until the condition holds; what is awaited here is another process, so there is no event to wait on."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        threading.Event().wait(0.01)
