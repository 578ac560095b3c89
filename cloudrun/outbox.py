"""Outputs that come home through the run's bucket because no client came for them.

The client signs addresses ahead and leaves them on the machine; agent/outbox.py stores there, without
credentials, what a run left when nobody fetched it:

    PREFIX/RUN/.cloudrun/outbox-N.K      attempt N: its log and outputs, a tar stream in parts
    PREFIX/RUN/.cloudrun/outbox-N.json   the letter, stored last: how it ended, files and parts with sha256

Whoever walks the run on finds the machine gone, reads the letter, and takes in what it names, verified.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cloudrun.bucket import read_object
from cloudrun.errors import TransferFailed
from cloudrun.models import BundleFile
from cloudrun.remote import agentlink, process
from cloudrun.remote.landing import BLOCK_BYTES, Landing, checked_files
from cloudrun.remote.shell import Shell

if TYPE_CHECKING:
    from cloudrun.providers.base import Bucket

PART = "outbox"
PART_BYTES = 64 << 20  # what is sent again when a line breaks, and is in the machine's memory meanwhile
PARTS = 256  # 16 GiB in all
VERSION = 1
THREADS = 8
LOG, OUTPUTS = "log", "outputs/"  # names in the tar

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Letter:
    """What a machine said last of an attempt, and of what it stored."""

    status: process.ProcessStatus
    files: tuple[BundleFile, ...]
    log: tuple[int, str] | None  # size, sha256
    parts: tuple[tuple[int, str], ...]
    skipped: tuple[str, ...]  # what it could not read or had no room for


def leave(
    shell: Shell,
    key: str,
    bucket: Bucket,
    *,
    lives_s: float,
    wait_s: float,
    authority: str = "",
    part_bytes: int = PART_BYTES,
    parts: int = PARTS,
) -> None:
    """Give a machine addresses for what the run `key` will leave, and a watcher that uses them (blocking); it
    comes back with the machine. Idempotent: the newest addresses count.

    lives_s: of the signatures. wait_s: how long after its end a client is awaited. authority: a certificate
    (PEM) to trust beside the machine's own. Raises as base.Bucket does, and what the machine says.
    """
    run, _, number = key.rpartition(".")
    names = [_part_name(run, number, index) for index in range(parts)]
    letter, *addresses = [bucket.sign(name, "PUT", lives_s) for name in (_letter_name(run, number), *names)]
    request = {
        "key": key,
        "letter": letter,
        "parts": addresses,
        "part_bytes": part_bytes,
        "headers": dict(bucket.put_headers),
        "wait_s": wait_s,
        "authority": authority,
        "ends_at": time.time() + lives_s,
    }
    agentlink.call(shell, "leave", request, part=PART)


def drop(shell: Shell, key: str) -> None:
    """All is at home: the machine forgets the addresses, and stores nothing (more). Idempotent."""
    agentlink.call(shell, "drop", {"key": key}, part=PART)


def fetch(bucket: Bucket, key: str, *, outputs: Path, log: Path, progress: Progress) -> Letter | None:
    """Take in what the machine stored of the run `key` (blocking); None where it stored nothing whole.

    Idempotent. Nothing lands that is not what the letter says; raises TransferFailed then.
    """
    run, _, number = key.rpartition(".")
    letter = _read_letter(bucket, run, number)
    if letter is None:
        return None
    outputs.mkdir(parents=True, exist_ok=True)
    with Landing(outputs) as landing, tempfile.TemporaryDirectory(prefix="cloudrun-") as folder:
        regular = [file for file in letter.files if not file.link]
        wanted = {file.path: file for file, _ in landing.find_missing(regular)}
        if wanted or not _is_whole(log, letter.log):
            names = [_part_name(run, number, index) for index in range(len(letter.parts))]
            pieces = _pieces(bucket, names, letter.parts, Path(folder) / "part", progress)
            _unpack(pieces, landing, wanted, log, letter.log)
        landing.sweep()
        landing.make_links([file for file in letter.files if file.link])
    return letter


def sweep(bucket: Bucket, run: str) -> None:
    """Remove what machines stored of a run (blocking). Idempotent. Call it when all is at home."""
    found = [each.key for each in bucket.list(f"{run}/.cloudrun/outbox-")]
    if found:
        bucket.delete(found)


def _letter_name(run: str, number: str) -> str:
    return f"{run}/.cloudrun/outbox-{number}.json"


def _part_name(run: str, number: str, index: int) -> str:
    return f"{run}/.cloudrun/outbox-{number}.{index:03d}"


def _read_letter(bucket: Bucket, run: str, number: str) -> Letter | None:
    content = read_object(bucket, _letter_name(run, number))
    if content is None:
        return None
    try:
        said = json.loads(content)
        return Letter(
            status=process.read_status(said["status"]),
            files=tuple(checked_files(said["files"])),
            log=_size_and_hash(said["log"]) if said["log"] else None,
            parts=tuple(map(_size_and_hash, said["parts"])),
            skipped=tuple(map(str, said["skipped"])),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TransferFailed(
            f"what the machine stored of {run} cannot be read: {type(error).__name__}",
            hint=f"look at {bucket.url}/{_letter_name(run, number)}",
        ) from error


def _size_and_hash(said: Any) -> tuple[int, str]:
    size, sha256 = said
    return int(size), str(sha256)


def _pieces(
    bucket: Bucket, names: Sequence[str], parts: Sequence[tuple[int, str]], to: Path, progress: Progress
) -> Iterator[bytes]:
    """The tar stream, part by part, each verified before anything of it is used."""
    done, total = 0, sum(size for size, _ in parts)
    for name, (size, sha256) in zip(names, parts, strict=True):
        found = bucket.get(name, to)
        if found != sha256 or to.stat().st_size != size:
            raise TransferFailed(
                f"{bucket.url}/{name} is not what the machine stored there",
                hint="it was damaged or changed in the bucket; what was verified before it is at home",
            )
        with to.open("rb") as part:
            while block := part.read(BLOCK_BYTES):
                yield block
        done += size
        progress(done, total)


def _unpack(
    pieces: Iterator[bytes],
    landing: Landing,
    wanted: Mapping[str, BundleFile],
    log: Path,
    log_facts: tuple[int, str] | None,
) -> None:
    left = dict(wanted)
    stream: Any = _Stream(pieces)  # a pipe's one method is all that tarfile needs
    try:
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8") as tar:
            for member in tar:
                is_output = member.name.startswith(OUTPUTS)
                file = left.pop(member.name.removeprefix(OUTPUTS), None) if is_output else None
                if member.name == LOG and log_facts:
                    _take_log(_content(tar, member), log, log_facts)
                elif file is not None and not landing.take(
                    file, 0, _Chunks(_content(tar, member)).read, _count
                ):
                    raise _other_than_told(member.name)
    except tarfile.TarError as error:
        raise _other_than_told(str(error)) from error
    if left:
        raise _other_than_told(next(iter(left)))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise _other_than_told(member.name)
    return content


def _count(_: int) -> None:
    """Progress is told by parts."""


def _take_log(content: IO[bytes], log: Path, facts: tuple[int, str]) -> None:
    """The whole log in the place of what is at home of it."""
    beside = log.with_name(f".{log.name}.fetched")
    digest = hashlib.sha256()
    try:
        with beside.open("wb") as file:
            while block := content.read(BLOCK_BYTES):
                digest.update(block)
                file.write(block)
        if (beside.stat().st_size, digest.hexdigest()) != facts:
            raise _other_than_told(LOG)
        beside.replace(log)
    finally:
        beside.unlink(missing_ok=True)


def _is_whole(log: Path, facts: tuple[int, str] | None) -> bool:
    if facts is None:
        return True
    if not log.is_file() or log.stat().st_size != facts[0]:
        return False
    with log.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == facts[1]


def _other_than_told(what: str) -> TransferFailed:
    return TransferFailed(
        f"what the machine stored is not what its letter says: {what}", hint="do not trust that machine"
    )


class _Stream:
    """Pieces as a file that is read from its beginning to its end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held = pieces, b""

    def read(self, size: int) -> bytes:
        parts = []
        while size:
            self._held = self._held or next(self._pieces, b"")
            if not self._held:
                break
            parts.append(self._held[:size])
            self._held = self._held[size:]
            size -= len(parts[-1])
        return b"".join(parts)


class _Chunks:
    """A file as a machine would send it over the line: length and block in turn, a length of 0 at the end."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content, self._block, self._head = content, b"", True

    def read(self, size: int) -> bytes:
        self._head = not self._head
        if self._head:
            return self._block
        self._block = self._content.read(BLOCK_BYTES)
        return len(self._block).to_bytes(size, "big")
