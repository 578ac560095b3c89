"""A lock that one process holds and the kernel takes back when it ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Hold:
    """Truthy when the lock is ours. A child process that inherits `fd` holds it on after us."""

    ours: bool
    fd: int

    def __bool__(self) -> bool:
        return self.ours


@contextmanager
def holding(path: Path) -> Iterator[Hold]:
    """Hold the lock at `path` (made if absent) if it is free. Never waits."""
    try:
        descriptor = _open(path)
    except FileNotFoundError:  # seldom; a clean-up takes a hundred thousand locks
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open(path)
    try:
        yield Hold(_take(descriptor), descriptor)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
