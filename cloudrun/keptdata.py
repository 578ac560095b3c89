"""The files of the store of datasets: where each lies, how a version is written, and what nothing needs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from cloudrun.config import Settings
from cloudrun.records import from_json, to_json
from cloudrun.runfiles import RunFiles

# Where what is kept is damaged: what is there already is not copied again.
ADD_AGAIN = "cloudrun data delete that version, then cloudrun data upload its folder again"
GRACE_S = 3600.0  # so long a manifest stays that nothing names: a submit is about to
_PARTIAL = re.compile(r"[0-9a-f]{64}\.(\d+)-\d+")  # pid and thread of who copies
_VERSION_FILE = re.compile(r"v([1-9]\d*)\.json")


class Version(Protocol):
    """What a version has at least."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...


V = TypeVar("V")


def objects_dir(settings: Settings) -> Path:
    return settings.kept_datasets_dir / "objects"


def manifest_path(settings: Settings, digest: str) -> Path:
    return settings.kept_datasets_dir / "manifests" / f"{digest}.json"


def version_path(settings: Settings, name: str, version: str) -> Path:
    return _names_dir(settings) / name / f"{version}.json"


def read_versions(settings: Settings, kind: type[V], name: str = "") -> list[V]:
    """The records of one name or of all, by name and number; those that cannot be read are left out."""
    root = _names_dir(settings)
    names = [name] if name else sorted(_listing(root))
    found = []
    for each in names:
        numbers = [
            int(match[1]) for file in _listing(root / each) if (match := _VERSION_FILE.fullmatch(file))
        ]
        for number in sorted(numbers):
            with suppress(OSError, ValueError, KeyError, TypeError):
                record = json.loads(version_path(settings, each, f"v{number}").read_bytes())
                found.append(from_json(kind, record))
    return found


def write_version(settings: Settings, made: Version) -> bool:
    """Write a version whole or not at all; False when its number is taken."""
    path = version_path(settings, made.name, made.version)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{threading.get_ident()}")
    try:
        partial.write_text(json.dumps(to_json(made)), encoding="ascii")
        path.hardlink_to(partial)  # unlike a rename, it never replaces another's
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


def places_of(settings: Settings) -> dict[str, list[str]]:
    """The buckets that hold data, by digest: s3://bucket/prefix, az://container/prefix."""
    root = settings.kept_datasets_dir / "places"
    places: dict[str, list[str]] = {}
    for digest in _listing(root):
        for file in _listing(root / digest):
            with suppress(OSError, ValueError):
                places.setdefault(digest, []).append((root / digest / file).read_text(encoding="utf-8"))
    return {digest: sorted(found) for digest, found in places.items()}


def add_place(settings: Settings, digest: str, address: str) -> None:
    """Note that a bucket holds it. Idempotent."""
    path = _place_path(settings, digest, address)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent.with_name(f".{os.getpid()}-{threading.get_ident()}")
    partial.write_text(address, encoding="utf-8")
    partial.replace(path)


def drop_place(settings: Settings, digest: str, address: str) -> None:
    """A bucket holds it no more. Idempotent."""
    _place_path(settings, digest, address).unlink(missing_ok=True)


def used_by(settings: Settings) -> dict[str, list[str]]:
    """The ids of runs by the digests of the data that they were given."""
    users: dict[str, list[str]] = {}
    for run_id in sorted(_listing(settings.runs_dir)):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            for row in RunFiles(settings, run_id).load_record()["order"].get("data", []):
                users.setdefault(row["digest"], []).append(run_id)
    return users


def unneeded(
    settings: Settings, needed: Collection[str], given_up: Collection[str]
) -> tuple[list[Path], list[Path]]:
    """The manifests that are not needed and were given up or are not new, and all content that no other
    manifest names. It stays so only for who holds the store alone."""
    hashes: set[str] = set()
    manifests, content = [], []
    for file in _listing(settings.kept_datasets_dir / "manifests"):
        path = settings.kept_datasets_dir / "manifests" / file
        old = path.stem in given_up or time.time() - path.stat().st_mtime > GRACE_S
        if path.stem not in needed and old:
            manifests.append(path)
            continue
        hashes |= {row[3] for row in json.loads(path.read_bytes())["files"]}
    for folder in _listing(objects_dir(settings)):
        for name in _listing(objects_dir(settings) / folder):
            if name not in hashes:
                content.append(objects_dir(settings) / folder / name)
    return manifests, content


def total_bytes(files: Iterable[Path]) -> int:
    """What goes meanwhile, as an unfinished copy does, counts 0."""
    total = 0
    for path in files:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def sweep_partials(settings: Settings) -> None:
    """Remove what copies of killed processes left half-written."""
    for folder in _listing(objects_dir(settings)):
        for name in _listing(objects_dir(settings) / folder):
            match = _PARTIAL.fullmatch(name)
            if match and not Path(f"/proc/{match[1]}").exists():
                (objects_dir(settings) / folder / name).unlink(missing_ok=True)


def _place_path(settings: Settings, digest: str, address: str) -> Path:
    name = hashlib.sha256(address.encode()).hexdigest()[:16]
    return settings.kept_datasets_dir / "places" / digest / name


def _names_dir(settings: Settings) -> Path:
    return settings.kept_datasets_dir / "names"


def _listing(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  # thousands of names
    except (FileNotFoundError, NotADirectoryError):
        return []
