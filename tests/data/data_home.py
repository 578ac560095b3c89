"""Folders of data, and a home that keeps datasets, for the tests of datasets."""

from __future__ import annotations

from pathlib import Path


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read_tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


HORSES = {
    "brown/a.png": b"brown horse",
    "brown/b c.png": b"another brown horse",
    "white/ü.png": b"white horse",
    "white/same.png": b"brown horse",  # kept once with brown/a.png
    "empty": b"",
}
