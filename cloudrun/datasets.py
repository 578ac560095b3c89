"""Datasets at home: versions of folders, kept by content, so that the same file is kept once.

    datasets/names/NAME/v1.json      one version: digest, time, size, where it came from
    datasets/manifests/<digest>.json its files; equal trees share one
    datasets/objects/ab/<sha256>     their content; copied, never linked to files of the user's

Whoever adds holds the lock shared, whoever deletes holds it alone. What a kill leaves is a version that does
not exist yet, with content that the next try finds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cloudrun import bundle, events, keptdata
from cloudrun.config import Settings
from cloudrun.errors import Ambiguous, NotFound, Refused
from cloudrun.events import OnEvent, ignore
from cloudrun.ignore import OWN_FILE
from cloudrun.manifest import digest_files, load_manifest, save_manifest
from cloudrun.models import Bundle
from cloudrun.words import nearest

TIE_FILE = ".cloudrun-data"  # in a folder: the dataset that it belongs to
FILE_MODE = 0o644  # of all files, so that who added it does not change a dataset's digest
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"v[1-9]\d{0,8}")
_DIGEST = re.compile(r"[0-9a-f]{6,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True, slots=True)
class Dataset:
    """One version of a dataset. With `url` the machines fetch it themselves, and its sizes are not known."""

    name: str
    version: str  # v1, v2, ...
    digest: str
    added_at: datetime
    size_bytes: int = 0
    files: int = 0
    source: str = ""  # the folder, run or address that it was made from
    url: str = ""
    sha256: str = ""  # of what the address gives
    extract: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}:{self.version}"


def check_name(name: str) -> str:
    """Raises Refused for what cannot name a dataset, or the place where a run finds it."""
    if not _NAME.fullmatch(name) or _VERSION.fullmatch(name):
        raise Refused(f"{name!r} cannot name a dataset", hint="use letters, digits, . _ and -, not v1 or v2")
    return name


def list_datasets(settings: Settings, name: str = "") -> list[Dataset]:
    """All versions, or those of one name: by name, the oldest first. Damaged records are left out."""
    return keptdata.read_versions(settings, Dataset, name)


def find_dataset(settings: Settings, text: str) -> Dataset:
    """NAME for its newest version, NAME:v1, or NAME:DIGEST with at least 6 digits of it.

    Raises NotFound, and Ambiguous for a digest that fits several contents.
    """
    name, _, wanted = text.partition(":")
    versions = list_datasets(settings, name) if _NAME.fullmatch(name) else []
    if not versions:
        known = sorted({each.name for each in list_datasets(settings)})
        hint = nearest(name, known) or "cloudrun data upload FOLDER --name NAME adds one"
        raise NotFound(f"there is no dataset {name!r}", hint=hint)
    fitting = [each for each in versions if fits(each, wanted)]
    if len({each.digest for each in fitting}) > 1 and wanted:
        raise Ambiguous(f"{text} fits several versions", hint="write more digits of it, or v1, v2, ...")
    if not fitting:
        raise NotFound(f"{name} has no version {wanted!r}", hint=f"cloudrun data list {name}")
    return fitting[-1]


def fits(dataset: Dataset, wanted: str) -> bool:
    """Whether a word behind the name means this version; no word means any."""
    return (
        not wanted
        or dataset.version == wanted
        or bool(_DIGEST.fullmatch(wanted) and dataset.digest.startswith(wanted))
    )


def is_version(word: str) -> bool:
    return bool(_VERSION.fullmatch(word))


def scan_folder(settings: Settings, folder: Path, *, progress: Progress | None = None) -> Bundle:
    """The files of a folder with their hashes; .cloudrunignore leaves out what it says, .gitignore does not
    count. Raises NotFound, and JobError for links that leave the folder or files that cannot be read."""
    if not folder.is_dir():
        raise NotFound(f"{folder} is not a folder", hint="name the folder that holds the files")
    found = bundle.scan(
        folder,
        shared={},
        outputs="",
        cache_dir=settings.home / "cache",
        ignore_file=OWN_FILE,
        progress=progress,
    )
    files = tuple(
        file if file.link else replace(file, mode=FILE_MODE) for file in found.files if file.path != TIE_FILE
    )
    return replace(found, digest=digest_files(files), files=files)


def add_folder(
    settings: Settings, name: str, folder: Path, *, source: str = "", on_event: OnEvent = ignore
) -> tuple[Dataset, Bundle]:
    """A new version with what the folder holds (blocking). The newest one, where it holds the same already.

    Interrupted at any moment, call it again: content that arrived is not copied again.
    """
    check_name(name)
    with _using(settings):
        found = scan_folder(settings, folder, progress=partial(_tell, on_event, "read"))
        tree = keep_tree(settings, found, progress=partial(_tell, on_event, "keep"))
        made = Dataset(
            name=name,
            version="",
            digest=tree.digest,
            added_at=datetime.now(UTC),
            size_bytes=tree.size_bytes,
            files=len(tree.files),
            source=source or str(folder.resolve()),
        )
        return _add_version(settings, made), tree


def _tell(on_event: OnEvent, what: str, done: int, total: int) -> None:
    on_event(events.Progress(what, done, total))


def add_url(settings: Settings, name: str, url: str, *, sha256: str, extract: bool = False) -> Dataset:
    """A version that machines fetch themselves, verified there; nothing is fetched now."""
    check_name(name)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise Refused(f"{url!r} is no address to fetch from", hint="it begins with https:// or http://")
    if not _SHA256.fullmatch(sha256.lower()):
        raise Refused(f"{sha256!r} is no sha256", hint="64 hexadecimal digits, as `sha256sum` prints them")
    facts = f"{sha256.lower()}\0{'extract' if extract else file_name(url)}"
    made = Dataset(
        name=name,
        version="",
        digest=hashlib.sha256(facts.encode()).hexdigest(),
        added_at=datetime.now(UTC),
        source=url,
        url=url,
        sha256=sha256.lower(),
        extract=extract,
    )
    with _using(settings):
        return _add_version(settings, made)


def file_name(url: str) -> str:
    """What a file fetched from there is called: the last part of the address."""
    last = unquote(urlsplit(url).path).rpartition("/")[2]
    return last if last not in ("", ".", "..") and "\0" not in last and "/" not in last else "data"


def keep_tree(settings: Settings, tree: Bundle, *, progress: Progress | None = None) -> Bundle:
    """Keep content and manifest of what was scanned (blocking); idempotent. It stays as long as a version or
    an unfinished run needs it, and for an hour in any case."""
    keptdata.sweep_partials(settings)
    kept = bundle.snapshot(tree, keptdata.objects_dir(settings), progress=progress)
    save_manifest(replace(kept, ignored=(), secrets=()), keptdata.manifest_path(settings, kept.digest))
    return kept


def load_tree(settings: Settings, digest: str) -> Bundle:
    """The files of a dataset. Raises NotFound where it was deleted."""
    try:
        return load_manifest(keptdata.manifest_path(settings, digest), again=keptdata.ADD_AGAIN)
    except NotFound as error:
        message = f"the data with digest {digest[:12]} is not kept on this computer"
        raise NotFound(message, hint="it was deleted: cloudrun data upload adds it again") from error


def tree_of(settings: Settings, dataset: Dataset) -> Bundle:
    """The files of a version. Raises Refused for one that only machines fetch."""
    if dataset.url:
        hint = f"it is fetched on the machine, from {dataset.url}"
        raise Refused(f"{dataset.label} is not kept on this computer", hint=hint)
    return load_tree(settings, dataset.digest)


def get(settings: Settings, dataset: Dataset, paths: Sequence[str], to: Path) -> Bundle:
    """Write a version, or files and folders of it, into a new or empty folder, verified (blocking)."""
    tree = tree_of(settings, dataset)
    wanted = [path.strip("/") for path in paths]
    for path in wanted:
        if not any(_below(file.path, path) for file in tree.files):
            raise NotFound(f"{dataset.label} has no {path!r}", hint=f"cloudrun data files {dataset.label}")
    files = tuple(
        file for file in tree.files if not wanted or any(_below(file.path, path) for path in wanted)
    )
    part = replace(tree, files=files)
    bundle.restore(part, keptdata.objects_dir(settings), to, again=keptdata.ADD_AGAIN)
    return part


def used_by(settings: Settings) -> dict[str, list[str]]:
    """Which runs, by id, were given which data, by digest; from their records at home."""
    return keptdata.used_by(settings)


def delete(
    settings: Settings,
    chosen: Sequence[Dataset],
    *,
    active: Collection[str],
    remove: Callable[[Path], object] = Path.unlink,
) -> int:
    """Forget these versions, and remove the content that nothing needs any more; the bytes freed.

    active: ids of the runs that have not ended. Raises Refused where one of them uses a version.
    remove: what is done with each file that goes, versions first; for good without one.
    Interrupted, call it again.
    """
    with _using(settings, alone=True):
        users = refuse_used(settings, chosen, active=active)
        for each in chosen:
            version = keptdata.version_path(settings, each.name, each.version)
            if version.exists():
                remove(version)
        manifests, content = _left_without(settings, chosen, users, active)
        freed = keptdata.total_bytes(content)
        for path in manifests + content:
            remove(path)
        return freed


def refuse_used(
    settings: Settings, chosen: Sequence[Dataset], *, active: Collection[str]
) -> dict[str, list[str]]:
    """Raise Refused where a run that has not ended uses a version; what `used_by` says otherwise."""
    users = used_by(settings)
    for each in chosen:
        busy = sorted(set(users.get(each.digest, [])) & set(active))
        if busy:
            hint = f"wait for it, or cloudrun cancel {busy[0]}"
            raise Refused(f"{each.label} is in use by {', '.join(busy)}", hint=hint)
    return users


def freed_without(settings: Settings, chosen: Sequence[Dataset], *, active: Collection[str]) -> int:
    """The bytes that deleting these versions would free: what they share with others stays."""
    with _using(settings):
        return keptdata.total_bytes(_left_without(settings, chosen, used_by(settings), active)[1])


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Be the only one who adds to the store or deletes from it (blocking)."""
    with _using(settings, alone=True):
        yield


def _left_without(
    settings: Settings,
    chosen: Sequence[Dataset],
    users: Mapping[str, Sequence[str]],
    active: Collection[str],
) -> tuple[list[Path], list[Path]]:
    """The manifests and the content that nothing but these versions needs."""
    gone = {each.label for each in chosen}
    kept = {each.digest for each in list_datasets(settings) if each.label not in gone}
    needed = kept | {digest for digest, runs in users.items() if set(runs) & set(active)}
    return keptdata.unneeded(settings, needed, {each.digest for each in chosen})


@contextmanager
def _using(settings: Settings, *, alone: bool = False) -> Iterator[None]:
    """Hold the lock of the store (blocking): with others who add, or alone to delete."""
    folder = settings.kept_datasets_dir
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def _add_version(settings: Settings, made: Dataset) -> Dataset:
    """The newest version where it is the same already; else the next number that nobody else took."""
    versions = list_datasets(settings, made.name)
    if versions and versions[-1].digest == made.digest and versions[-1].url == made.url:
        return versions[-1]
    number = int(versions[-1].version[1:]) + 1 if versions else 1
    while not keptdata.write_version(settings, replace(made, version=f"v{number}")):
        number += 1
    return replace(made, version=f"v{number}")


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")
