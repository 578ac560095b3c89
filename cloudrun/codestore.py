"""Which kept code no run needs any more. Content is kept once for all runs, by hash, in home/objects.

A run needs what its manifest names, for as long as the manifest lies in its folder. A submit that is under
way has found content there that it counts on, and has written no manifest yet: it holds its run's lock, so it
is waited for, and whatever it needs goes back to its place. Whatever cannot be judged stays.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from cloudrun.config import Settings
from cloudrun.runfiles import RunFiles
from cloudrun.store_clean import RunIndex, RunRow
from cloudrun.trash import Batch

RECORDING_S = 30.0  # a submit copies its code into the store within this; else nothing goes
POLL_S = 0.01
_SHA256 = re.compile(r"[0-9a-f]{64}")

Content = tuple[str, int]  # hash and bytes


class CodeStore:
    """The object store of one home, as a clean-up sees it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._objects = settings.objects_dir
        self._read: dict[str, frozenset[str]] = {}  # by digest

    def unneeded(self, rows: Sequence[RunRow], *, leaving: Collection[str] = ()) -> list[Content]:
        """What no run would need, were the manifests of the leaving runs gone; [] where that is not known."""
        kept = self._kept()
        needed = self._needed(rows, leaving) if kept else None
        if needed is None:
            return []
        return [(sha256, size) for sha256, size in kept if sha256 not in needed]

    def sweep(self, planned: Iterable[Content], index: RunIndex, batch: Batch) -> tuple[int, int]:
        """Move what was planned, and is still not needed, into the trash; how many and how many bytes."""
        wanted = dict(planned)
        if not wanted:
            return 0, 0
        free = {sha256 for sha256, _ in self.unneeded(index.rows())}
        moved = [sha256 for sha256 in wanted if sha256 in free and batch.take(_path(sha256))]
        needed = self._needed(index.rows(), ())  # by a submit that began before these were out of its sight
        for sha256 in [*moved]:
            if needed is None or sha256 in needed:
                batch.put_back(_path(sha256))
                moved.remove(sha256)
        return len(moved), sum(wanted[sha256] for sha256 in moved)

    def _kept(self) -> list[Content]:
        found = []
        for folder in _listing(self._objects):
            for name in _listing(self._objects / folder):
                if _SHA256.fullmatch(name):
                    found.append((name, (self._objects / folder / name).lstat().st_size))
        return found

    def _needed(self, rows: Sequence[RunRow], leaving: Collection[str]) -> set[str] | None:
        """The hashes that the manifests at home name; None where one cannot be read."""
        there = {*_listing(self._settings.runs_dir)}
        by_digest: dict[str, list[str]] = {}
        for row in rows:
            if row.id in there and row.id not in leaving:
                by_digest.setdefault(row.bundle, []).append(row.id)
        needed: set[str] = set()
        for digest, ids in by_digest.items():
            found = self._read.get(digest) or self._of_some(ids)
            if found is None:
                return None
            self._read[digest] = found
            needed |= found
        for run_id in there - {row.id for row in rows}:
            found = self._of_unlisted(run_id)
            if found is None:
                return None
            needed |= found
        return needed

    def _of_some(self, ids: Sequence[str]) -> frozenset[str] | None:
        """What runs with the same code need: the first manifest that can be read says it for all."""
        found: frozenset[str] | None = frozenset()
        for run_id in ids:
            manifest = RunFiles(self._settings, run_id).bundle
            if not manifest.exists():
                continue
            found = _hashes(manifest)
            if found is not None:
                break
        return found

    def _of_unlisted(self, run_id: str) -> frozenset[str] | None:
        """A folder without a run in the store: the store was lost, or a submit is under way."""
        files = RunFiles(self._settings, run_id)
        if not files.folder.is_dir():
            return frozenset()
        give_up_at = time.monotonic() + RECORDING_S
        while not files.bundle.exists():
            if not files.walked():
                return frozenset() if not files.bundle.exists() else _hashes(files.bundle)
            if time.monotonic() > give_up_at:
                return None
            time.sleep(POLL_S)
        return _hashes(files.bundle)


def _hashes(manifest: Path) -> frozenset[str] | None:
    try:
        document = json.loads(manifest.read_bytes())
        return frozenset(sha256 for _path, _size, _mode, sha256, _link in document["files"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _listing(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  # thousands of names
    except (FileNotFoundError, NotADirectoryError):
        return []


def _path(sha256: str) -> str:
    return f"objects/{sha256[:2]}/{sha256}"
