"""Outputs at home: listing them and handing them out. What came over the line was verified there."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from cloudrun.models import BundleFile


def list_folder(folder: Path) -> list[BundleFile]:
    """Every file below the folder, sorted by path; links as links, never followed."""
    return sorted(_walk(os.fspath(folder), ""), key=lambda file: file.path)


def copy_folder(folder: Path, to: Path, *, progress: Callable[[int, int], None]) -> int:
    """Copy the outputs to a folder of the user's; files already there with the same size and time are
    left. Returns the bytes copied. Files of the user's that are not outputs stay."""
    files = list_folder(folder)
    total, done = sum(file.size for file in files), 0
    for file in files:
        done += _copy(folder / file.path, to / file.path)
        progress(done, total)
    return done


def _walk(root: str, prefix: str) -> Iterator[BundleFile]:
    try:
        entries = list(os.scandir(f"{root}/{prefix}"))
    except FileNotFoundError:
        return
    for entry in entries:
        path = f"{prefix}{entry.name}"
        info = entry.stat(follow_symlinks=False)
        if entry.is_symlink():
            yield BundleFile(path, 0, 0o777, "", link=os.fspath(Path(entry.path).readlink()))
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path + "/")
        elif entry.is_file(follow_symlinks=False):
            yield BundleFile(path, info.st_size, stat.S_IMODE(info.st_mode), "")


def _copy(source: Path, target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    info = source.lstat()
    if source.is_symlink():
        target.unlink(missing_ok=True)
        target.symlink_to(source.readlink())
        return 0
    if target.is_file() and not target.is_symlink():
        there = target.stat()
        if (there.st_size, there.st_mtime_ns) == (info.st_size, info.st_mtime_ns):
            return info.st_size
    shutil.copy2(source, target, follow_symlinks=False)
    return info.st_size
