"""Where a machine's files come home: a folder that nothing leaves, whatever the machine says.

Every step below the folder is opened by descriptor without following symlinks; content is gathered
in `.cloudrun-partial/` under its hash, checked, and renamed into place; symlinks come last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from cloudrun.errors import TransferFailed
from cloudrun.models import BundleFile

BLOCK_BYTES = 256 * 1024
MAX_CHUNK_BYTES = 1024 * 1024  # the agent's are a quarter of that
MAX_ROW_BYTES = 1024
PARTIAL = ".cloudrun-partial"
_HOSTILE_HINT = "nothing was written outside the folder; do not trust that machine"
_SHA256 = re.compile(r"[0-9a-f]{64}")


Read = Callable[[int], bytes]  # exactly that many bytes, or ConnectionLost


def read_file_row(path: str, read: Read) -> BundleFile | None:
    """What the machine says of a file just before it sends it as it is now; None where it is gone."""
    size = int.from_bytes(read(4), "big")
    if size > MAX_ROW_BYTES:
        raise _hostile(path, "is described without end")
    if not size:
        return None
    try:
        length, mode, sha256 = json.loads(read(size))
    except (TypeError, ValueError):
        raise _hostile(path, "is described unreadably") from None
    return checked_files([[path, length, mode, sha256, ""]])[0]


def checked_files(rows: Any) -> list[BundleFile]:
    """The machine's list of files, once it is proven harmless: TransferFailed for everything else."""
    try:
        files = [_checked(*row) for row in rows]
    except (TypeError, ValueError) as error:
        raise TransferFailed(
            f"the machine's list of outputs is no such list: {error}", hint=_HOSTILE_HINT
        ) from None
    paths = {file.path for file in files}
    if len(paths) != len(files):
        raise TransferFailed("the machine names an output twice", hint=_HOSTILE_HINT)
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent:
            if parent in paths:
                raise _hostile(path, "goes through another file")
            parent = parent.rpartition("/")[0]
    return files


def stays_inside(path: str, link: str) -> bool:
    """Whether a symlink at path may be made. It may climb as far as its folder is deep, and only before
    it descends: then no other symlink can turn its way out of the tree."""
    parts = link.split("/")
    climbs = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return bool(link) and parts[0] != "" and ".." not in parts[climbs:] and climbs <= path.count("/")


class Landing:
    """The folder while files land in it. One at a time for each folder, across processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parent: tuple[str, int] | None = None  # the folder used last: files come folder by folder

    def __enter__(self) -> Self:
        self._root = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._partial = self._lock_partial()
        except BaseException:
            os.close(self._root)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._let_go()
        with contextlib.suppress(OSError):  # not empty: what was cut short waits there
            os.rmdir(PARTIAL, dir_fd=self._root)
        os.close(self._partial)
        os.close(self._root)

    def find_missing(self, files: Sequence[BundleFile]) -> list[tuple[BundleFile, int]]:
        """The files whose content is not here yet, and how many bytes of each are, from an earlier try."""
        held = {name: os.stat(name, dir_fd=self._partial).st_size for name in os.listdir(self._partial)}  # noqa: PTH208
        missing = []
        for file in files:
            if not self._has(file):
                offset = held.pop(file.sha256, 0)
                missing.append((file, offset if offset <= file.size else 0))
        return missing

    def take(self, file: BundleFile, offset: int, read: Read, received: Callable[[int], None]) -> bool:
        """Read one file into its place; received is told of its bytes.

        False when it is not what was announced: then it changed meanwhile, or is damaged. Raises
        TransferFailed for more bytes than announced.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | (0 if offset else os.O_TRUNC)
        part = os.open(file.sha256, flags, 0o600, dir_fd=self._partial)
        try:
            digest = _hash_start(part, offset)
            left = file.size - offset
            while size := int.from_bytes(read(4), "big"):
                if size > min(left, MAX_CHUNK_BYTES):
                    raise _hostile(file.path, "has more bytes than announced")
                block = read(size)
                _write_all(part, block)
                digest.update(block)
                left -= size
                received(size)
            right = not left and digest.hexdigest() == file.sha256
            os.fchmod(part, file.mode & 0o755 | 0o600)
        finally:
            os.close(part)
        if right:
            self._settle(file)
        else:
            os.unlink(file.sha256, dir_fd=self._partial)
        return right

    def make_links(self, links: Sequence[BundleFile]) -> list[str]:
        """Make the symlinks that stay inside; the paths of the others."""
        left = []
        for link in links:
            if not stays_inside(link.path, link.link) or not self._make_link(link):
                left.append(link.path)
        return left

    def sweep(self) -> None:
        """Forget what was cut short and is not wanted any more."""
        for name in os.listdir(self._partial):  # noqa: PTH208  # a descriptor
            os.unlink(name, dir_fd=self._partial)

    def _lock_partial(self) -> int:
        while True:
            with contextlib.suppress(FileExistsError):
                os.mkdir(PARTIAL, 0o700, dir_fd=self._root)
            try:
                partial = os.open(PARTIAL, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._root)
            except FileNotFoundError:
                continue
            fcntl.flock(partial, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(partial), os.stat(PARTIAL, dir_fd=self._root)):
                    return partial
            os.close(partial)  # its last user removed it while we waited

    def _has(self, file: BundleFile) -> bool:
        folder, _, name = file.path.rpartition("/")
        parent = self._open_parent(folder, make=False)
        if parent is None:
            return False
        try:
            here = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
        except OSError:
            return False
        try:
            if os.fstat(here).st_size != file.size:
                return False
            with contextlib.suppress(OSError):
                return str(_hash_start(here, file.size).hexdigest()) == file.sha256
            return False
        finally:
            os.close(here)

    def _settle(self, file: BundleFile) -> None:
        folder, _, name = file.path.rpartition("/")
        try:
            os.rename(
                file.sha256, name, src_dir_fd=self._partial, dst_dir_fd=self._open_parent(folder, make=True)
            )
        except OSError as error:
            raise _in_the_way(file.path, error) from error

    def _make_link(self, link: BundleFile) -> bool:
        folder, _, name = link.path.rpartition("/")
        parent = self._open_parent(folder, make=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink("link", dir_fd=self._partial)
        os.symlink(os.fsencode(link.link), "link", dir_fd=self._partial)
        try:
            os.rename("link", name, src_dir_fd=self._partial, dst_dir_fd=parent)
        except OSError:
            os.unlink("link", dir_fd=self._partial)
            return False  # a folder stands there
        return True

    def _open_parent(self, folder: str, *, make: bool) -> int | None:
        """The folder below ours, never through a symlink. What stands in its way gives way: it is ours."""
        if not folder:
            return self._root
        if self._parent is not None and self._parent[0] == folder:
            return self._parent[1]
        self._let_go()
        here = os.dup(self._root)
        try:
            for part in folder.split("/"):
                inner = self._enter(here, part, make=make)
                if inner is None:
                    return None
                os.close(here)
                here = inner
            self._parent = (folder, os.dup(here))
        finally:
            os.close(here)
        return self._parent[1]

    def _enter(self, here: int, part: str, *, make: bool) -> int | None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        try:
            return os.open(part, flags, dir_fd=here)
        except OSError as error:
            if not make:
                return None
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                os.unlink(part, dir_fd=here)
            elif error.errno != errno.ENOENT:
                raise _in_the_way(part, error) from error
        try:
            os.mkdir(part, 0o755, dir_fd=here)
            return os.open(part, flags, dir_fd=here)
        except OSError as error:
            raise _in_the_way(part, error) from error

    def _let_go(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None


def _checked(path: Any, size: Any, mode: Any, sha256: Any, link: Any) -> BundleFile:
    if not (isinstance(path, str) and isinstance(sha256, str) and isinstance(link, str)):
        raise TypeError("a name or checksum is no text")
    if not (type(size) is int and type(mode) is int and size >= 0):
        raise TypeError("a size or mode is no number")
    parts = path.split("/")
    if "\0" in path or "\0" in link or any(part in ("", ".", "..") for part in parts):
        raise _hostile(path, "would be written outside the folder")
    if parts[0] == PARTIAL:
        raise _hostile(path, "takes the name of our own folder")
    if bool(link) == bool(_SHA256.fullmatch(sha256)):
        raise _hostile(path, "has neither checksum nor target, or both")
    try:
        os.fsencode(path + link)
    except UnicodeEncodeError:
        raise _hostile(path, "is no possible file name") from None
    return BundleFile(path, size, mode & 0o777, sha256, link)


def _hash_start(file: int, size: int) -> Any:
    """The running hash over the first size bytes; the file stands behind them afterwards."""
    digest = hashlib.sha256()
    for block in _read_blocks(file, size):
        digest.update(block)
    return digest


def _read_blocks(file: int, size: int) -> Iterator[bytes]:
    while size and (block := os.read(file, min(BLOCK_BYTES, size))):
        yield block
        size -= len(block)


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(file, view) :]
        except OSError as error:
            raise TransferFailed(
                f"cannot write here: {error.strerror}",
                hint="free space on this computer, then pull again: it goes on from there",
            ) from error


def _hostile(path: str, why: str) -> TransferFailed:
    return TransferFailed(f"refused the machine's output {path!r}: it {why}", hint=_HOSTILE_HINT)


def _in_the_way(path: str, error: OSError) -> TransferFailed:
    return TransferFailed(
        f"cannot write {path!r}: {error.strerror}", hint="move away what stands there, then pull again"
    )
