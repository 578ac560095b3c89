"""Content to a machine and outputs home, by hash: only what is missing travels, as one stream.

A push costs one command and at most two answers, a pull one command for the list and one for the
content, however many files there are. What was cut short goes on where it stopped. Everything that
comes home is checked by sha256. All blocking.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from cloudrun.errors import ConnectionLost, TransferFailed
from cloudrun.manifest import SUBMIT_AGAIN, digest_files
from cloudrun.models import Bundle, BundleFile
from cloudrun.remote import agentlink
from cloudrun.remote.landing import BLOCK_BYTES, Landing, checked_files, read_file_row
from cloudrun.remote.shell import Shell

Progress = Callable[[int, int], None]  # bytes done, bytes in all
OpenContent = Callable[[str], IO[bytes]]  # sha256 -> readable binary file

LAST_WORD_S = 2.0  # what an agent that stopped reading gets to say why
MAX_ROUNDS = 3  # of fetching anew what was written over while it was read


@dataclass(frozen=True, slots=True)
class PushResult:
    """What really travelled."""

    files_sent: int = 0
    bytes_sent: int = 0


@dataclass(frozen=True, slots=True)
class PullResult:
    """What the outputs hold, and how much of it had to travel. `skipped` was left on the machine:
    symlinks out of the tree, and files that the machine's user may not read."""

    files: int = 0
    bytes: int = 0
    bytes_received: int = 0
    skipped: tuple[str, ...] = ()


def push_bundle(
    shell: Shell,
    bundle: Bundle,
    open_content: OpenContent,
    *,
    progress: Progress | None = None,
    again: str = SUBMIT_AGAIN,
) -> PushResult:
    """Bring the bundle's missing content to the machine. Idempotent; a cut push goes on where it stopped.
    again: the hint for content that is damaged at home.

    Raises TransferFailed (disk full, content damaged at home) and ConnectionLost.
    """
    with agentlink.open_verb(shell, f"receive {bundle.digest}") as link:
        return _send_missing(link, bundle, open_content, progress, again)[0]


def push_folder(shell: Shell, key: str, folder: Path, name: str, *, progress: Progress | None = None) -> str:
    """Bring a folder to runs/<key>/<name>/ and return that path on the machine.

    Symlinks and special files stay at home. A folder that is there already is left as it is.
    """
    places, files = {}, []
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        file = _describe(path, path.relative_to(folder))
        places[file.sha256] = path
        files.append(file)
    bundle = Bundle(digest_files(files), tuple(files))
    with agentlink.open_verb(shell, f"receive {bundle.digest} {key} {name}") as link:
        sent = _send_missing(link, bundle, lambda sha256: places[sha256].open("rb"), progress, SUBMIT_AGAIN)
        return sent[1]


def list_outputs(shell: Shell, key: str, *, prefix: str = "") -> list[BundleFile]:
    """The run's files and symlinks on the machine whose path below outputs starts with prefix.

    Raises TransferFailed for names that no honest machine sends.
    """
    return _read_listing(shell, key, prefix)[0]


def pull_outputs(
    shell: Shell, key: str, to: Path, *, prefix: str = "", progress: Progress | None = None
) -> PullResult:
    """Bring the outputs to the folder `to`, verified. Nothing is written outside it, or removed.

    Only what differs travels. Files that changed since they were listed are fetched as they are now.
    A file appears whole or not at all. Raises TransferFailed and ConnectionLost; call again to go on.
    """
    to.mkdir(parents=True, exist_ok=True)
    files, skipped = _read_listing(shell, key, prefix)
    with Landing(to) as landing:
        wanted = landing.find_missing([file for file in files if not file.link])
        received, changed = _fetch(shell, key, landing, wanted, progress)
        for _ in range(MAX_ROUNDS):
            if not changed:
                break
            got, changed = _fetch_anew(shell, key, landing, changed)
            received += got
        if changed:
            raise TransferFailed(
                f"{len(changed)} outputs did not arrive as their checksums say, first {changed[0]!r}",
                hint="pull again when the run has ended; if it stays so, the machine's disk is bad",
            )
        if not prefix:
            landing.sweep()
        left = landing.make_links([file for file in files if file.link])
    total = sum(file.size for file in files)
    return PullResult(len(files) - len(left), total, received, tuple(skipped + left))


# --- push --------------------------------------------------------------------------------


def _send_missing(
    link: agentlink.Link, bundle: Bundle, open_content: OpenContent, progress: Progress | None, again: str
) -> tuple[PushResult, str]:
    """What travelled, and the path where the machine laid the files out ("" where it did not)."""
    if link.read_json()["have"]:
        return PushResult(), str(link.read_json()["path"])
    rows = [[file.path, file.size, file.mode, file.sha256, file.link] for file in bundle.files]
    link.write(agentlink.pack({"files": rows}))
    wanted = [(bundle.files[index], offset) for index, offset in link.read_json()["missing"]]
    total = sum(file.size - offset for file, offset in wanted)
    sent = 0
    with _Answer(link) as answer:
        for block in _blocks(wanted, open_content, again):
            answer.write(block)
            sent += len(block)
            if progress is not None:
                progress(sent, total)
        path = answer.wait()
    return PushResult(len(wanted), sent), path


def _blocks(
    wanted: Sequence[tuple[BundleFile, int]], open_content: OpenContent, again: str
) -> Iterator[bytes]:
    """The missing content end to end, in pieces that are worth a write each."""
    held: list[bytes] = []
    size = 0
    for file, offset in wanted:
        for piece in _pieces(file, offset, open_content, again):
            held.append(piece)
            size += len(piece)
            if size >= BLOCK_BYTES:
                yield b"".join(held)
                held, size = [], 0
    if held:
        yield b"".join(held)


def _pieces(file: BundleFile, offset: int, open_content: OpenContent, again: str) -> Iterator[bytes]:
    left = file.size - offset
    with open_content(file.sha256) as content:
        if offset:
            content.seek(offset)
        while left:
            piece = content.read(min(left, BLOCK_BYTES))
            if not piece:
                raise TransferFailed(
                    f"the content of {file.path!r} at home is shorter than its manifest says",
                    hint=again,
                )
            left -= len(piece)
            yield piece


def _describe(path: Path, name: Path) -> BundleFile:
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        facts = os.fstat(content.fileno())
    text = os.fsencode(name).decode("utf-8", "surrogateescape")
    return BundleFile(text, facts.st_size, stat.S_IMODE(facts.st_mode), sha256)


class _Answer:
    """The agent's last word, listened for while we write: it may fail before it has read everything."""

    def __init__(self, link: agentlink.Link) -> None:
        self._link = link
        self._failure: Exception | None = None
        self._path = ""
        self._thread = threading.Thread(target=self._listen, name="cloudrun-push", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._link.close()
        self._thread.join()

    def write(self, data: bytes) -> None:
        """Raises what the agent said went wrong rather than that it does not listen any more."""
        if not self._failure:
            try:
                return self._link.write(data)
            except ConnectionLost as loss:
                self._link.close_stdin()
                self._thread.join(LAST_WORD_S)
                raise self._failure or loss from None
        raise self._failure

    def wait(self) -> str:
        self._thread.join()
        if self._failure:
            raise self._failure
        return self._path

    def _listen(self) -> None:
        try:
            self._path = str(self._link.read_json()["path"])
        except Exception as error:
            self._failure = error


# --- pull --------------------------------------------------------------------------------


def _read_listing(shell: Shell, key: str, prefix: str) -> tuple[list[BundleFile], list[str]]:
    """The outputs as the machine lists them, checked; and what it could not read."""
    answer = agentlink.call(shell, "manifest", {"key": key, "prefix": prefix})
    if not isinstance(answer, dict) or not isinstance(answer.get("skipped"), list):
        raise TransferFailed("the machine's list of outputs cannot be read", hint="try again")
    files = checked_files(answer.get("files"))
    return sorted(files, key=lambda file: file.path), [str(path) for path in answer["skipped"]]


def _fetch(
    shell: Shell,
    key: str,
    landing: Landing,
    wanted: Sequence[tuple[BundleFile, int]],
    progress: Progress | None,
) -> tuple[int, list[str]]:
    """Bytes received, and the paths that are no longer what the list said."""
    if not wanted:
        return 0, []
    total = sum(file.size - offset for file, offset in wanted)
    request = {"key": key, "wanted": [[file.path, file.size, offset] for file, offset in wanted]}
    done, changed = 0, []

    def received(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    with agentlink.open_verb(shell, "send", prologue=agentlink.pack(request)) as link:
        link.read_frame()
        for file, offset in wanted:
            if not landing.take(file, offset, link.read, received):
                changed.append(file.path)
    return done, changed


def _fetch_anew(shell: Shell, key: str, landing: Landing, paths: Sequence[str]) -> tuple[int, list[str]]:
    """The files as they are now, whatever the list said: each is hashed and read through one descriptor."""
    request = {"key": key, "wanted": [[path, -1, 0] for path in paths]}
    sizes: list[int] = []
    changed = []
    with agentlink.open_verb(shell, "send", prologue=agentlink.pack(request)) as link:
        link.read_frame()
        for path in paths:
            file = read_file_row(path, link.read)
            if file is not None and not landing.take(file, 0, link.read, sizes.append):
                changed.append(path)
    return sum(sizes), changed
