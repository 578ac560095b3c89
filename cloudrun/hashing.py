"""Content hashes of files: computed once, remembered, and never trusted when in doubt.

A remembered hash counts only while size, mtime, ctime and inode are all the same. A file that
was touched within the last moments before a scan is not remembered at all: a second write in
the same tick of the file system's clock would leave every one of those the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from cloudrun.errors import CloudrunError, JobError
from cloudrun.leaks import HEAD_BYTES, looks_secret

RACY_NS = 2_000_000_000  # the coarsest clock of a file system in use (FAT) ticks every 2 s
WHOLE_BYTES = 1 << 20  # up to this size a file is read at once
_TRIES = 3
_FICLONE = 0x40049409  # ioctl_ficlone(2): _IOW(0x94, 9, int)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # never hangs on a fifo put in its place

Facts = tuple[int, str, bool]  # size, sha256, looks like a secret
OnRead = Callable[[int], None]  # so many more bytes of a large file


class HashCache:
    """The hashes of one tree. `path` is None for a cache that is not kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known = _load(path)
        self._fresh: dict[str, list[object]] = {}
        self._newest_ns = time.time_ns() - RACY_NS
        self._misses = 0

    def facts(self, name: str, path: str, stat: os.stat_result, on_read: OnRead | None = None) -> Facts:
        """Size, hash and suspicion of one file, name being its place in the tree.

        Raises JobError for a file that keeps changing or cannot be read, FileNotFoundError.
        """
        row = self._known.get(name)
        if (
            row is not None
            and row[1] == stat.st_mtime_ns
            and row[0] == stat.st_size
            and row[2] == stat.st_ctime_ns
            and row[3] == stat.st_ino
        ):
            self._fresh[name] = row
            return row[0], row[4], row[5]  # type: ignore[return-value]  # checked in _load
        self._misses += 1
        stat, sha256, secret = _read_steady(name, path, on_read)
        if stat.st_mtime_ns < self._newest_ns and stat.st_ctime_ns < self._newest_ns:
            key = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            self._fresh[name] = [*key, sha256, secret]
        return stat.st_size, sha256, secret

    def save(self) -> None:
        """Keep what this scan saw. A cache that cannot be written costs time, never correctness."""
        if self._path is None or (not self._misses and len(self._fresh) == len(self._known)):
            return
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self._fresh, separators=(",", ":")), encoding="ascii")
            partial.replace(self._path)
        except OSError:
            partial.unlink(missing_ok=True)


class Meter:
    """Tells how much of several files was read: as each large one goes on, and after each one."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._total, self._progress = total, progress or (lambda *_: None)
        self._before = self._within = 0

    def on_read(self, size: int) -> None:
        self._within += size
        self._progress(min(self._before + self._within, self._total), self._total)

    def end_file(self, size: int) -> None:
        self._before, self._within = self._before + size, 0
        self._progress(min(self._before, self._total), self._total)


def copy_hashed(source: int, target: int, on_read: OnRead | None = None) -> str:
    """Copy from one file descriptor to another to the end; the sha256 of what went over."""
    hasher = hashlib.sha256()
    block = min(os.fstat(source).st_size + 1, WHOLE_BYTES)  # a small file needs no large buffer
    while chunk := os.read(source, block):
        hasher.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
        if on_read is not None:
            on_read(len(chunk))
    return hasher.hexdigest()


def clone(source: int, target: int) -> bool:
    """Let the empty file `target` share the blocks of `source`, where the file system can (btrfs, XFS)."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def open_steady(path: str) -> int:
    """A descriptor of a regular file for reading; follows no link and waits for nothing."""
    return os.open(path, _READ)


def _read_steady(name: str, path: str, on_read: OnRead | None) -> tuple[os.stat_result, str, bool]:
    """Hash a file whose facts are the same before and after; a few tries."""
    for _ in range(_TRIES):
        try:
            file = open_steady(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            hint = "mend its permissions, or add it to .cloudrunignore"
            raise JobError(f"{name!r} cannot be read: {error.strerror}", hint=hint) from error
        try:
            before = os.fstat(file)
            sha256, head = _digest(file, before.st_size, on_read)
            after = os.fstat(file)
        except OSError as error:
            raise CloudrunError(
                f"{name!r} cannot be read: {error.strerror}", hint="check the disk"
            ) from error
        finally:
            os.close(file)
        if _facts(before) == _facts(after):
            return after, sha256, looks_secret(name, after.st_size, head)
    raise JobError(f"{name!r} keeps changing while it is read", hint="stop what writes it, or ignore it")


def _facts(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _digest(file: int, size: int, on_read: OnRead | None) -> tuple[str, bytes]:
    if size <= WHOLE_BYTES:
        data = os.read(file, size + 1)
        if len(data) == size:
            return hashlib.sha256(data).hexdigest(), data[:HEAD_BYTES]
        os.lseek(file, 0, os.SEEK_SET)
    hasher = hashlib.sha256()
    head = b""
    while chunk := os.read(file, WHOLE_BYTES):
        head = head or chunk[:HEAD_BYTES]
        hasher.update(chunk)
        if on_read is not None:
            on_read(len(chunk))
    return hasher.hexdigest(), head


def _load(path: Path | None) -> dict[str, list[object]]:
    """What an earlier scan kept; anything odd counts as nothing kept."""
    try:
        rows = json.loads(path.read_bytes()) if path else {}
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(rows, dict) or not all(map(_sound, rows.values())):
        return {}
    return rows


def _sound(row: object) -> bool:
    """size, mtime_ns, ctime_ns, inode, sha256, looks like a secret."""
    return type(row) is list and [type(each) for each in row] == [int, int, int, int, str, bool]
