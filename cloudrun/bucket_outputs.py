"""A run's outputs in a bucket: put there whole, told from a push that was cut, and brought back verified.

    PREFIX/RUN/<path of the output>
    PREFIX/RUN/.cloudrun/manifest.json     written last: what is there, with sizes and hashes
    PREFIX/RUN/.cloudrun/names/<sha256>    outputs whose name a bucket could not keep

A push may end anywhere and be made again: it stores what is not there, and then the manifest.
It takes nothing away: what is no longer at home stays in the bucket, and in its manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudrun.bucket import read_object
from cloudrun.errors import TransferFailed
from cloudrun.hashing import HashCache
from cloudrun.models import BundleFile
from cloudrun.outputs import list_folder
from cloudrun.remote.landing import checked_files, stays_inside

if TYPE_CHECKING:
    from cloudrun.providers.base import Bucket

OWN = ".cloudrun"
MANIFEST = f"{OWN}/manifest.json"
VERSION = 1
THREADS = 8
LONGEST_KEY = 700  # of 1,024 bytes at S3: the prefix needs some

Progress = Callable[[int, int], None]


def push(bucket: Bucket, run: str, folder: Path, *, cache: Path, progress: Progress) -> int:
    """Store what the bucket does not have yet (blocking), the manifest last; returns the bytes sent.

    cache: a file that remembers hashes between pushes. Idempotent. Raises as base.Bucket does, and
    CloudrunError for a file that keeps changing.
    """
    known = read_manifest(bucket, run)
    found = _hashed(folder, cache)
    changed = [file for file in found if known.get(file.path) != file]
    wanted = _lacking(bucket, run, [file for file in changed if not file.link])
    sent = _Sum(sum(file.size for file in wanted), progress)

    def store(file: BundleFile) -> None:
        bucket.put(key_of(run, file.path), folder / file.path, file.sha256)
        sent.add(file.size)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(store, wanted))
    if changed or not known:
        _write_manifest(bucket, run, {**known, **{file.path: file for file in found}})
    return sent.done


def _lacking(bucket: Bucket, run: str, files: Sequence[BundleFile]) -> list[BundleFile]:
    """Those of the files that are not there yet with this content: a push that was cut stored some, and wrote
    no manifest. A listing tells sizes; only where one fits is the object itself asked for its sha256."""
    if not files:
        return []
    there = {each.key: each for each in bucket.list(f"{run}/")}

    def is_there(file: BundleFile) -> bool:
        known = there.get(key_of(run, file.path))
        if known is None or known.size != file.size:
            return False
        if not known.sha256:
            known = bucket.look(known.key)
        return known is not None and known.sha256 == file.sha256

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(is_there, files))
    return [file for file, answer in zip(files, answers, strict=True) if not answer]


def read_manifest(bucket: Bucket, run: str) -> dict[str, BundleFile]:
    """What was pushed whole, by path; nothing before the first push came to its end. Raises TransferFailed
    for a manifest that is damaged or hostile."""
    content = read_object(bucket, f"{run}/{MANIFEST}")
    if content is None:
        return {}
    try:
        stored = json.loads(content)
        rows = [[each[name] for name in _ROW] for each in stored["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise TransferFailed(
            f"{bucket.url}/{run}/{MANIFEST} cannot be read: {error!r}",
            hint=f"cloudrun outputs push {run} writes it anew, if the outputs are at home",
        ) from error
    return {file.path: file for file in checked_files(rows)}


def fetch(bucket: Bucket, run: str, files: Sequence[BundleFile], folder: Path, *, progress: Progress) -> int:
    """Bring those files into the folder, each verified against the manifest (blocking); returns the bytes
    fetched. What is there already is left. Raises TransferFailed."""
    missing = [file for file in files if not os.path.lexists(folder / file.path)]
    got = _Sum(sum(file.size for file in missing), progress)

    def bring(file: BundleFile) -> None:
        _bring(bucket, run, file, folder)
        got.add(file.size)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(bring, [file for file in missing if not file.link]))
    for file in missing:
        if file.link and stays_inside(file.path, file.link):  # last: nothing is written through one
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).symlink_to(file.link)
    return got.done


def forget(bucket: Bucket, run: str, goes: Callable[[str], bool]) -> None:
    """Write the manifest anew without the outputs whose path goes (blocking), before their objects are
    deleted: what it names is there, whatever ends that. Idempotent. Raises as `read_manifest` does."""
    known = read_manifest(bucket, run)
    left = {path: file for path, file in known.items() if not goes(path)}
    if len(left) < len(known):
        _write_manifest(bucket, run, left)


def key_of(run: str, path: str) -> str:
    """Where an output lies. A name that is no text, too long, or ours goes by its hash."""
    raw = os.fsencode(path)
    odd = raw.decode("utf-8", "replace") != path or len(raw) > LONGEST_KEY or any(ord(c) < 32 for c in path)
    if odd or path.startswith(f"{OWN}/"):
        return f"{run}/{OWN}/names/{hashlib.sha256(raw).hexdigest()}"
    return f"{run}/{path}"


_ROW = ("path", "size", "mode", "sha256", "link")


class _Sum:
    """Bytes done, told as they come from several threads."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.done, self._total, self._progress = 0, total, progress

    def add(self, size: int) -> None:
        self.done += size
        self._progress(self.done, self._total)


def _hashed(folder: Path, cache: Path) -> list[BundleFile]:
    """Every file below the folder with its hash."""
    hashes = HashCache(cache)
    found = []
    for file in list_folder(folder):
        if file.link:
            if stays_inside(file.path, file.link):
                found.append(file)
            continue
        path = folder / file.path
        info = path.lstat()
        size, sha256, _ = hashes.facts(file.path, os.fspath(path), info)
        found.append(BundleFile(file.path, size, info.st_mode & 0o777, sha256))
    hashes.save()
    return found


def _write_manifest(bucket: Bucket, run: str, files: Mapping[str, BundleFile]) -> None:
    rows: list[dict[str, Any]] = [
        {name: getattr(files[path], name) for name in _ROW} for path in sorted(files)
    ]
    content = json.dumps({"version": VERSION, "run": run, "files": rows}).encode()
    with tempfile.TemporaryDirectory(prefix="cloudrun-") as folder:
        path = Path(folder) / "manifest"
        path.write_bytes(content)
        bucket.put(f"{run}/{MANIFEST}", path, hashlib.sha256(content).hexdigest())


def _bring(bucket: Bucket, run: str, file: BundleFile, folder: Path) -> None:
    to = folder / file.path
    partial = to.with_name(f".{hashlib.sha256(os.fsencode(to.name)).hexdigest()[:16]}.fetched")
    try:
        found = bucket.get(key_of(run, file.path), partial)
        if found != file.sha256:
            raise TransferFailed(
                f"{bucket.url}/{run}/{file.path} is another than its manifest says",
                hint=f"a push was cut there: cloudrun outputs push {run}, if it is at home",
            )
        partial.chmod(file.mode)
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
