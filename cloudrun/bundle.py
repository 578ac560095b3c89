"""Stage 4, bundle: a job folder becomes a Bundle, and a Bundle a snapshot that nothing changes any more.

`scan` only reads. `snapshot` copies content into the home object store, objects/ab/<sha256>,
where equal files are kept once. `restore` writes a snapshot out again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from cloudrun.errors import CloudrunError, JobError, Refused, TransferFailed
from cloudrun.hashing import WHOLE_BYTES, HashCache, Meter, clone, copy_hashed, open_steady
from cloudrun.ignore import IgnoreFile, builtin_rule, ignore_file_name, matching_rule
from cloudrun.manifest import (
    SUBMIT_AGAIN,
    check_path,
    digest_files,
    escapes,
    load_manifest,
    save_manifest,
    sort_files,
)
from cloudrun.models import Bundle, BundleFile, Ignored

__all__ = [
    "content_of", "load_manifest", "object_path", "refuse_secrets", "restore", "save_manifest", "scan",
    "snapshot",
]  # fmt: skip

Progress = Callable[[int, int], None]  # bytes done, bytes in all
_KINDS = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "named pipe", stat.S_IFBLK: "device", stat.S_IFCHR: "device"}


def scan(
    folder: Path,
    *,
    shared: Mapping[str, Path],
    outputs: str,
    cache_dir: Path | None = None,
    ignore_file: str = "",
    progress: Progress | None = None,
) -> Bundle:
    """Read a job folder: what travels, with content hashes, and what is left behind by which rule.

    shared: modules to place below shared/, by name. cache_dir: where hashes are remembered
    between scans, None for nowhere. ignore_file: the name of the files whose rules count, "" for what
    counts in a job's folder. progress: bytes of the folder that are hashed, and all of them. Empty folders do
    not travel. Raises JobError for a file that cannot be read or keeps changing, and for links that leave the
    folder.
    """
    root = folder.resolve()
    cache = HashCache(_cache_path(cache_dir, root))
    tree = _Tree(os.fspath(root), outputs, cache, ignore_file or ignore_file_name(root))
    tree.walk(os.fspath(root), "", ())
    tree.read(progress)
    sources = tree.add_shared(shared)
    cache.save()
    files = tuple(sort_files(tree.files))
    return Bundle(
        digest=digest_files(files),
        files=files,
        root=root,
        ignored=tuple(tree.ignored),
        secrets=tuple(tree.secrets),
        sources=sources,
    )


def refuse_secrets(bundle: Bundle) -> None:
    """Raise Refused if anything in the bundle looks like a key or a password."""
    if not bundle.secrets:
        return
    shown = ", ".join(repr(path) for path in bundle.secrets[:5])
    more = f" and {len(bundle.secrets) - 5} more" if len(bundle.secrets) > 5 else ""
    hint = "add them to .cloudrunignore, or pass --allow-secrets if they are meant to travel"
    raise Refused(f"the job's folder holds what looks like secrets: {shown}{more}", hint=hint)


def snapshot(bundle: Bundle, objects_dir: Path, *, progress: Progress | None = None) -> Bundle:
    """Keep the content of a bundle, by hash, in objects_dir; the bundle without its folder.

    Idempotent, and safe with other processes doing the same. Content that is there already
    costs one look. Raises JobError if a file is no longer as it was scanned.
    """
    if bundle.root is None:
        return bundle
    root = os.fspath(bundle.root)
    sources = {path: os.fspath(source) for path, source in bundle.sources}
    base = os.fspath(objects_dir)
    meter = Meter(bundle.size_bytes, progress)
    for file in bundle.files:
        if file.link:
            continue
        target = f"{base}/{file.sha256[:2]}/{file.sha256}"
        if not _has_size(target, file.size):
            _keep(file, sources.get(file.path) or f"{root}/{file.path}", target, meter)
        meter.end_file(file.size)
    return replace(bundle, root=None, sources=())


def restore(bundle: Bundle, objects_dir: Path, to: Path, *, again: str = SUBMIT_AGAIN) -> Path:
    """Write a snapshot out into a new or empty folder, every file verified; returns the folder. again: the
    hint for content that is damaged.

    Raises Refused if the folder holds anything, TransferFailed for content that is missing,
    damaged, or would land outside the folder.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise Refused(f"{to} is not empty", hint="name a folder that does not exist yet")
    try:
        to.mkdir(parents=True, exist_ok=True)
        for file in bundle.files:
            check_path(file.path)
            if not file.link:
                _write_out(file, object_path(objects_dir, file.sha256), f"{to}/{file.path}", again)
        for file in bundle.files:  # links last: nothing is ever written through one
            if file.link:
                _link_out(file, f"{to}/{file.path}")
    except OSError as error:
        raise TransferFailed(
            f"{to}: {error.strerror}: {error.filename!r}", hint="check disk and path"
        ) from error
    return to


def object_path(objects_dir: Path, sha256: str) -> Path:
    """Where the object store keeps the content with that hash."""
    return objects_dir / sha256[:2] / sha256


def content_of(objects_dir: Path) -> Callable[[str], BinaryIO]:
    """Opens the kept content of a hash for reading; made once, since thousands of files ask."""
    base = os.fspath(objects_dir)
    return lambda sha256: open(f"{base}/{sha256[:2]}/{sha256}", "rb", buffering=0)  # noqa: PTH123


class _Tree:
    """One walk over a job's folder. Strings and not Paths: this is the hot loop."""

    def __init__(self, root: str, outputs: str, cache: HashCache, ignore_file: str) -> None:
        self._root = root
        self._outputs = outputs
        self._cache = cache
        self._ignore_file = ignore_file
        self.files: list[BundleFile] = []
        self.ignored: list[Ignored] = []
        self.secrets: list[str] = []
        self._unread: list[tuple[str, str, os.stat_result]] = []  # path, place, facts

    def walk(self, folder: str, prefix: str, rules: tuple[IgnoreFile, ...]) -> None:
        """Take in a folder; prefix is its place in the bundle, "" or "sub/folder/"."""
        entries = _entries(folder, prefix)
        if any(entry.name == self._ignore_file for entry in entries):
            rules = (*rules, _read_rules(folder, prefix, self._ignore_file))
        for entry in entries:
            path = prefix + entry.name
            is_dir = entry.is_dir(follow_symlinks=False)
            rule = builtin_rule(path, entry.name, self._outputs)
            rule = rule or (matching_rule(rules, path, entry.name, is_dir) if rules else "")
            if rule:
                self.ignored.append(Ignored(path + "/" if is_dir else path, rule))
            elif is_dir:
                self.walk(f"{folder}/{entry.name}", path + "/", rules)
            else:
                self._take(path, f"{folder}/{entry.name}", entry.is_symlink())

    def read(self, progress: Progress | None = None) -> None:
        """Hash the files that the walks found."""
        unread, self._unread = self._unread, []
        meter = Meter(sum(facts.st_size for _, _, facts in unread), progress)
        for path, place, facts in unread:
            try:
                size, sha256, secret = self._cache.facts(path, place, facts, meter.on_read)
            except FileNotFoundError:  # gone since the folder was listed
                continue
            self.files.append(BundleFile(path, size, facts.st_mode & 0o777, sha256))
            if secret:
                self.secrets.append(path)
            meter.end_file(facts.st_size)

    def add_shared(self, shared: Mapping[str, Path]) -> tuple[tuple[str, Path], ...]:
        """Place the shared modules; where each of their files is taken from."""
        mine = {file.path for file in self.files}
        already = len(self.files)
        for name, source in shared.items():
            path = f"shared/{name}"
            if path in mine or any(other.startswith(path + "/") for other in mine):
                continue
            if source.is_dir():
                self.walk(os.fspath(source), path + "/", ())
            else:
                self._take(path, os.fspath(source.resolve()), False)
        self.read()
        return tuple(
            (file.path, _source(shared, file.path)) for file in self.files[already:] if not file.link
        )

    def _take(self, path: str, place: str, is_link: bool) -> None:
        try:
            if is_link:
                self._take_link(path, place)
                return
            facts = os.lstat(place)
            kind = _KINDS.get(stat.S_IFMT(facts.st_mode))
            if kind:
                self.ignored.append(Ignored(path, f"built-in: a {kind}, not a file"))
                return
        except FileNotFoundError:  # gone since the folder was listed
            return
        self._unread.append((path, place, facts))

    def _take_link(self, path: str, place: str) -> None:
        target = os.readlink(place)  # noqa: PTH115  # keeps undecodable bytes as they are
        real = os.path.realpath(place)
        inside = real == self._root or real.startswith(self._root + "/")
        if escapes(path, target) or not inside:
            hint = "copy what it points at into the folder, or add the link to .cloudrunignore"
            raise JobError(f"{path!r} links out of the job's folder, to {target!r}", hint=hint)
        self.files.append(BundleFile(path, 0, 0o777, "", target))


def _entries(folder: str, prefix: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        hint = "mend its permissions, or add it to .cloudrunignore"
        raise JobError(f"{prefix or folder!r} cannot be listed: {error.strerror}", hint=hint) from error


def _read_rules(folder: str, prefix: str, name: str) -> IgnoreFile:
    path = Path(folder) / name
    try:
        text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    except OSError as error:
        raise JobError(f"{path} cannot be read: {error.strerror}", hint="mend or remove it") from error
    return IgnoreFile(text, prefix + name, prefix)


def _source(shared: Mapping[str, Path], path: str) -> Path:
    name, _, below = path.removeprefix("shared/").partition("/")
    return shared[name] / below if below else shared[name]


def _cache_path(cache_dir: Path | None, root: Path) -> Path | None:
    if cache_dir is None:
        return None
    return cache_dir / f"hashes-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"


def _has_size(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size  # noqa: PTH116  # hot loop, no Path objects
    except FileNotFoundError:
        return False


def _keep(file: BundleFile, source: str, target: str, meter: Meter) -> None:
    """Copy one file into the store under its hash, whole or not at all."""
    partial = f"{target}.{os.getpid()}-{threading.get_ident()}"
    try:
        reader = open_steady(source)
    except OSError as error:
        raise _changed(file) from error
    try:
        sha256 = _copy(reader, partial, meter)
        if sha256 != file.sha256:
            raise _changed(file)
        os.rename(partial, target)  # noqa: PTH104  # hot loop, no Path objects
    except OSError as error:
        hint = "free some space, or move CLOUDRUN_HOME to a larger disk"
        raise CloudrunError(f"no copy can be kept at home: {error.strerror}", hint=hint) from error
    finally:
        os.close(reader)
        if os.path.lexists(partial):
            os.unlink(partial)  # noqa: PTH108


def _copy(reader: int, partial: str, meter: Meter) -> str:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        writer = os.open(partial, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(partial), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
        writer = os.open(partial, flags, 0o600)
    try:
        if os.fstat(reader).st_size > WHOLE_BYTES and clone(reader, writer):
            with open(writer, "rb", closefd=False) as cloned:
                return hashlib.file_digest(cloned, "sha256").hexdigest()
        return copy_hashed(reader, writer, meter.on_read)
    finally:
        os.close(writer)


def _changed(file: BundleFile) -> JobError:
    return JobError(f"{file.path!r} changed after the plan was made", hint="submit again")


def _write_out(file: BundleFile, source: Path, target: str, again: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            sha256 = copy_hashed(reader, writer)
            os.fchmod(writer, file.mode & 0o777)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
    if sha256 != file.sha256:
        raise TransferFailed(f"the kept content of {file.path!r} is damaged", hint=again)


def _link_out(file: BundleFile, target: str) -> None:
    if escapes(file.path, file.link):
        raise TransferFailed(f"refused link {file.path!r} to {file.link!r}", hint="it leaves its folder")
    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103, PTH120
    os.symlink(file.link, target)  # noqa: PTH211  # undecodable bytes as they are
