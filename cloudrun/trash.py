"""The trash: what was cleaned away lies in home/trash until it is emptied, and can be put back.

Each clean-up has a folder of its own there, numbered, that holds what went under the path that it had at
home. Nothing else is written down: a clean-up that was killed has moved some things and not others, and
both `put_back` and the next clean-up see which from the folders alone. Moving is renaming, so the
trash lies on the same file system as the rest of home.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from cloudrun.errors import CloudrunError, NotFound, Refused
from cloudrun.locks import holding


class Trash:
    """The trash of one home folder. Making one touches nothing."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "trash"
        self._home = home
        self._doomed = home / "trash-emptied"  # no longer to be had back; an interrupted emptying left it
        self._lock = home / "trash.lock"

    @contextmanager
    def working(self) -> Iterator[None]:
        """Be the one process that moves things in or out. Raises Refused when another does."""
        with holding(self._lock) as hold:
            if not hold:
                raise Refused("another clean-up is at work", hint="wait for its end, and try again")
            yield

    def batches(self) -> list[Path]:
        """The clean-ups that can be undone, oldest first."""
        found = [path for path in _children(self.folder) if path.name.partition("-")[0].isdigit()]
        return sorted(found, key=_number)

    def begin(self, now: datetime) -> Batch:
        """A new place for what a clean-up takes, made with its first thing. The caller holds `working`."""
        known = self.batches()
        number = _number(known[-1]) + 1 if known else 1
        return Batch(self._home, self.folder / f"{number:04d}-{now:%Y-%m-%dT%H%M%SZ}")

    def put_back(self) -> tuple[Path, list[str]]:
        """Undo the newest clean-up; its folder, and the paths that stay in the trash because something else
        has their place now. Interrupted, it goes on where it was. Raises NotFound with nothing to undo."""
        known = self.batches()
        if not known:
            raise NotFound("the trash is empty: there is nothing to undo", hint="cloudrun clean --dry-run")
        return known[-1], Batch(self._home, known[-1]).put_back()

    def holds(self, part: str) -> bool:
        """Whether undoing the newest clean-up brings something of that folder of home back."""
        return any((batch / part).is_dir() for batch in self.batches()[-1:])

    def measure(self) -> tuple[int, int]:
        """Bytes and files that emptying frees."""
        sizes = [measure(os.fspath(folder)) for folder in (self.folder, self._doomed)]
        return sum(size for size, _ in sizes), sum(files for _, files in sizes)

    def empty(self) -> tuple[int, int]:
        """Delete all of it for good (blocking); the bytes and files. Interrupted, the next call deletes the
        rest: from the first moment on nothing of it can be put back, so that no run comes back in part."""
        self._doomed.mkdir(exist_ok=True, parents=True)
        known = [int(path.name) for path in _children(self._doomed)]
        if self.folder.exists():
            self.folder.rename(self._doomed / str(max(known, default=0) + 1))
        return remove_tree(os.fspath(self._doomed))


class Batch:
    """What one clean-up moved, under the paths of home."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.folder = folder
        self._home = os.fspath(home)
        self._there = os.fspath(folder)
        self._made: set[str] = set()

    def take(self, path: str) -> bool:
        """Move what is at home/path into the trash; False where nothing is."""
        parent = os.path.dirname(path)  # noqa: PTH120  # hot loop, no Path objects
        if parent not in self._made:
            os.makedirs(f"{self._there}/{parent}", mode=0o700, exist_ok=True)  # noqa: PTH103
            self._made.add(parent)
        try:
            os.rename(f"{self._home}/{path}", f"{self._there}/{path}")  # noqa: PTH104
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            raise CloudrunError(
                f"{self._home}/{path} lies on another disk than the trash",
                hint=f"have all of {self._home} on one disk, or delete it by hand",
            ) from error
        return True

    def put_back(self, path: str = "") -> list[str]:
        """Move home/path, or all, back to where it was; the paths whose place is taken stay in the trash."""
        left: list[str] = []
        self._merge(path, left)
        return left

    def _merge(self, path: str, left: list[str]) -> None:
        source, target = f"{self._there}/{path}", f"{self._home}/{path}"
        if not os.path.lexists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
            os.rename(source, target)  # noqa: PTH104
            return
        if _is_folder(source) and _is_folder(target):
            for name in sorted(os.listdir(source), key=_put_back_order):  # noqa: PTH208
                self._merge(f"{path}/{name}" if path else name, left)
            if not os.listdir(source):  # noqa: PTH208
                os.rmdir(source)  # noqa: PTH106
            return
        if _same_for_us(source, path):
            os.unlink(source)  # noqa: PTH108
            return
        left.append(path)


def measure(path: str) -> tuple[int, int]:
    """Bytes and files at or below a path; links as links. What goes meanwhile counts 0."""
    if not _is_folder(path):
        try:
            return os.lstat(path).st_size, 1
        except FileNotFoundError:
            return 0, 0
    return _measure(path)


def remove_tree(folder: str) -> tuple[int, int]:
    """Delete a folder and all below it; the bytes and files. Links are deleted, never followed. A folder that
    its owner made read-only is no obstacle."""
    gone = [0, 0]
    try:
        _remove(folder, gone)
    except PermissionError:
        _open_up(folder)
        _remove(folder, gone)
    return gone[0], gone[1]


def _measure(folder: str) -> tuple[int, int]:
    size = files = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    more, many = _measure(entry.path)
                    size, files = size + more, files + many
                else:
                    size += entry.stat(follow_symlinks=False).st_size
                    files += 1
    except (FileNotFoundError, PermissionError):
        pass
    return size, files


def _remove(folder: str, gone: list[int]) -> None:
    with os.scandir(folder) as listing:
        entries = [*listing]
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _remove(entry.path, gone)
        else:
            size = entry.stat(follow_symlinks=False).st_size
            os.unlink(entry.path)  # noqa: PTH108
            gone[0] += size
            gone[1] += 1
    os.rmdir(folder)  # noqa: PTH106


def _open_up(folder: str) -> None:
    os.chmod(folder, 0o700)  # noqa: PTH101
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _open_up(entry.path)


def _put_back_order(name: str) -> tuple[bool, bool]:
    """Of datasets the versions first and the content last: none of it is there without what needs it."""
    return name == "objects", name == "manifests"


def _same_for_us(source: str, path: str) -> bool:
    """Content under its hash, and a lock that nobody holds: whatever has their place is as good."""
    if path.startswith(("objects/", "datasets/objects/", "datasets/manifests/")):
        return True
    return path.startswith("runs/") and path.count("/") == 2 and os.lstat(source).st_size == 0


def _children(folder: Path) -> list[Path]:
    return [*folder.iterdir()] if folder.is_dir() else []


def _number(batch: Path) -> int:
    return int(batch.name.partition("-")[0])


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)  # noqa: PTH112, PTH114
