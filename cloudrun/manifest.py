"""The manifest of a bundle: its digest, its form on disk, and the check that its paths are harmless.

The digest is over names, modes and content hashes in the order of the names' bytes, so that
the same tree has the same digest wherever and whenever it is scanned.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cloudrun.errors import NotFound, TransferFailed
from cloudrun.models import Bundle, BundleFile, Ignored

FORMAT = 1
SUBMIT_AGAIN = "submit the job again: its code is kept anew"  # where what is kept at home is damaged
_SHA256 = re.compile(r"[0-9a-f]{64}")


def digest_files(files: Iterable[BundleFile]) -> str:
    """sha256 over the sorted manifest. No field can hold a NUL, so the fields cannot run together."""
    hasher = hashlib.sha256()
    for file in sort_files(files):
        mode = 0 if file.link else file.mode
        hasher.update(b"%s\0%o\0%s\0%s\0" % (_raw(file.path), mode, file.sha256.encode(), _raw(file.link)))
    return hasher.hexdigest()


def sort_files(files: Iterable[BundleFile]) -> list[BundleFile]:
    """In the order of their names' bytes."""
    return sorted(files, key=lambda file: _raw(file.path))


def save_manifest(bundle: Bundle, path: Path) -> None:
    """Write the manifest, whole or not at all. Names that are not UTF-8 survive the round trip."""
    document = {
        "format": FORMAT,
        "digest": bundle.digest,
        "files": [[file.path, file.size, file.mode, file.sha256, file.link] for file in bundle.files],
        "ignored": [[ignored.path, ignored.rule] for ignored in bundle.ignored],
        "secrets": list(bundle.secrets),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(document, separators=(",", ":")), encoding="ascii")
    partial.replace(path)


def load_manifest(path: Path, *, again: str = SUBMIT_AGAIN) -> Bundle:
    """Read a manifest back as a snapshot (root None). again: the hint where it is damaged.

    Raises NotFound, and TransferFailed for one that is damaged or names paths outside its tree.
    """
    try:
        bundle = _parse(json.loads(path.read_bytes()))
        sound = digest_files(bundle.files) == bundle.digest
    except FileNotFoundError as error:
        raise NotFound(f"no manifest {path}", hint="was the run's folder deleted?") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TransferFailed(f"{path}: not a manifest: {error}", hint=again) from error
    for file in bundle.files:
        check_path(file.path)
    if not sound:
        raise TransferFailed(f"{path}: damaged: its digest does not fit", hint=again)
    return bundle


def check_path(path: str) -> None:
    """Raise TransferFailed unless the path stays below the folder that it is put in."""
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise TransferFailed(f"refused path {path!r}", hint="it would be written outside its folder")


def escapes(path: str, target: str) -> bool:
    """Whether a link at `path` with that target leaves its tree, going by the names alone."""
    if target.startswith("/"):
        return True
    place = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120  # surrogates
    return place == ".." or place.startswith("../")


def _parse(document: Any) -> Bundle:
    if not isinstance(document, dict) or document["format"] != FORMAT:
        raise ValueError("unknown format")
    return Bundle(
        digest=str(document["digest"]),
        files=tuple(_file(*row) for row in document["files"]),
        ignored=tuple(Ignored(str(path), str(rule)) for path, rule in document["ignored"]),
        secrets=tuple(str(path) for path in document["secrets"]),
    )


def _file(path: str, size: int, mode: int, sha256: str, link: str) -> BundleFile:
    texts = isinstance(path, str) and isinstance(sha256, str) and isinstance(link, str)
    numbers = type(size) is int and type(mode) is int and size >= 0 and 0 <= mode <= 0o7777
    if not texts or not numbers or bool(link) == bool(_SHA256.fullmatch(sha256)):
        raise ValueError(f"bad entry {path!r}")
    return BundleFile(path, size, mode, sha256, link)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
