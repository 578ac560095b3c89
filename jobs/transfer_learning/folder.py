"""A folder of images as one set: folders named like the classes, or a table labels.csv of file,target.

    FOLDER/CLASS/*.png ...                  classes, split by name of the file
    FOLDER/{train,val,test}/CLASS/*.png     classes, split as they lie (val is optional)
    FOLDER/labels.csv                       file,target and more; numbers make it a score to predict

A column `group` in the table keeps what belongs together on one side of the split. A split column splits by
its value: one year is for validation and test, all others for training.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from shared import settings

TABLE = "labels.csv"
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}
PARTS = ("train", "val", "test")
SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}  # where nothing says how to split
MOST_PIXELS = 100_000_000  # of one image; more is taken for an attack on the memory
YES = {"1", "true", "yes", "x"}


class DataError(Exception):
    """The images that were asked for cannot be had, or are not as they should be."""


@dataclass(frozen=True)
class ImageSet:
    """Images with their targets. `read(side)` gives N x 3 x side x side uint8, to be indexed by arrays.

    classes: their names, targets being numbers of them; empty where a score is predicted (targets float32).
    parts: for train, val and test the numbers of the images.
    """

    about: str
    classes: tuple[str, ...]
    targets: np.ndarray
    parts: dict[str, np.ndarray]
    read: Callable[[int], Any]

    @property
    def outputs(self) -> int:
        return max(len(self.classes), 1)

    def described(self) -> str:
        counts = ", ".join(f"{len(self.parts[part]):,} {name}" for part, name in
                           zip(PARTS, ("train", "validation", "test")))  # noqa: B905  # fmt: skip
        what = f"{len(self.classes)} classes" if self.classes else "a score"
        return f"{self.about}, {what} ({counts})"

    def limited(self, train: int) -> ImageSet:
        """At most `train` training images, and half as many of each other part; 0 keeps all."""
        if not train:
            return self
        most = {"train": train, "val": train // 2, "test": train // 2}
        random = np.random.default_rng(0)
        chosen = {name: np.sort(random.permutation(part)[: most[name]]) for name, part in self.parts.items()}
        return replace(self, parts=chosen)


@dataclass(frozen=True)
class SplitBy:
    """Rows with this value in this column are for validation and test; `test_column` marks those for test."""

    column: str
    value: str
    test_column: str = ""


def read_folder(folder: Path, cache: Path, *, about: str = "", split_by: SplitBy | None = None) -> ImageSet:
    """The set in a folder. Decoded on `read`, which keeps the pixels in `cache`. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    if (folder / TABLE).is_file():
        files, targets, classes, parts = _read_table(folder, split_by)
    elif split_by:
        raise DataError(f"{folder} has no {TABLE}, so there is no column {split_by.column!r} to split by")
    else:
        files, targets, classes, parts = _read_class_folders(folder)
    return of_files(files, about or folder.name, classes, targets, parts, cache)


def of_files(
    files: list[Path],
    about: str,
    classes: tuple[str, ...],
    targets: np.ndarray,
    parts: dict[str, np.ndarray],
    cache: Path,
) -> ImageSet:
    """A set of files whose targets and parts are known."""
    return ImageSet(about, classes, targets, parts, lambda side: _decode(files, side, cache))


def split_by_name(groups: list[str]) -> dict[str, np.ndarray]:
    """Training, validation and test by a hash of each group's name: the same everywhere."""
    places = np.array([_place(group) for group in groups])
    ends = np.cumsum([SHARES[name] for name in PARTS])
    part = np.searchsorted(ends[:-1], places, side="right")
    return {name: np.flatnonzero(part == number) for number, name in enumerate(PARTS)}


def _read_class_folders(
    folder: Path,
) -> tuple[list[Path], np.ndarray, tuple[str, ...], dict[str, np.ndarray]]:
    given = [part for part in PARTS if (folder / part).is_dir()]
    tops = [folder / part for part in given] if "train" in given else [folder]
    classes = tuple(sorted({path.name for top in tops for path in top.iterdir() if path.is_dir()}))
    files, targets, tops_of = [], [], []
    for top in tops:
        for number, name in enumerate(classes):
            there = sorted(path for path in (top / name).glob("**/*") if path.suffix.lower() in ENDINGS)
            files += there
            targets += [number] * len(there)
            tops_of += [top.name] * len(there)
    if len(classes) < 2 or not files:
        raise DataError(f"{folder} holds no {TABLE} and fewer than two folders of images, one for each class")
    parts = split_by_name([path.stem for path in files])
    if len(tops) > 1:
        parts = {part: np.flatnonzero(np.array(tops_of) == part) for part in PARTS}
        if not len(parts["val"]):
            kept = split_by_name([path.stem for path in files])
            rest = np.setdiff1d(parts["train"], kept["val"])
            parts = {**parts, "train": rest, "val": np.intersect1d(parts["train"], kept["val"])}
    return files, np.array(targets, np.int64), classes, _checked(parts, folder)


def _read_table(
    folder: Path, split_by: SplitBy | None
) -> tuple[list[Path], np.ndarray, tuple[str, ...], dict[str, np.ndarray]]:
    table = folder / TABLE
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}") from error
    needed = ["file", "target", *([split_by.column, split_by.test_column] if split_by else [])]
    missing = [name for name in needed if name and name not in (rows[0] if rows else {})]
    if missing:
        raise DataError(f"{table} has no column {' and no column '.join(missing)}, or no row")
    files = [_inside(folder, row["file"] or "", number) for number, row in enumerate(rows, 2)]
    targets, classes = _parse_targets(table, [row["target"] or "" for row in rows])
    groups = [row.get("group") or path.stem for row, path in zip(rows, files)]  # noqa: B905  Python 3.9
    parts = _split_by_column(rows, groups, split_by) if split_by else split_by_name(groups)
    return files, targets, classes, _checked(parts, table)


def _parse_targets(table: Path, words: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers are a score, other words are classes."""
    try:
        scores = np.array([float(word) for word in words], np.float32)
    except ValueError:
        classes = tuple(sorted(set(words)))
        if not all(classes) or len(classes) < 2:
            raise DataError(f"{table}: a row has no target, or all have the same") from None
        return np.array([classes.index(word) for word in words], np.int64), classes
    if not all(math.isfinite(score) for score in scores):
        raise DataError(f"{table}: a target is not a finite number (row {_first_bad(scores) + 2})")
    return scores, ()


def _split_by_column(rows: list[dict[str, str]], groups: list[str], by: SplitBy) -> dict[str, np.ndarray]:
    held_out = np.array([row[by.column] == by.value for row in rows])
    if by.test_column:
        for_test = np.array([(row[by.test_column] or "").strip().lower() in YES for row in rows])
    else:
        for_test = np.array([_place(group) < 0.5 for group in groups])
    return {
        "train": np.flatnonzero(~held_out),
        "val": np.flatnonzero(held_out & ~for_test),
        "test": np.flatnonzero(held_out & for_test),
    }


def _checked(parts: dict[str, np.ndarray], where: Path) -> dict[str, np.ndarray]:
    empty = [part for part in PARTS if not len(parts[part])]
    if empty:
        raise DataError(f"{where}: no image is left for {' and '.join(empty)}")
    return parts


def _inside(folder: Path, name: str, row: int) -> Path:
    path = folder / name
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{folder / TABLE}, row {row}: {name!r} is not the name of a file in that folder")
    if not path.is_file():
        raise DataError(f"{folder / TABLE}, row {row}: {path} is not there")
    return path


def _decode(files: list[Path], side: int, cache: Path) -> np.ndarray:
    """All images, cropped to a square in the middle, transparent ones on white; kept for the next time."""
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr((stats, side)).encode()).hexdigest()[:16]
    kept = cache / f"{key}-{side}.npy"
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial")
        shape = (len(files), 3, side, side)
        images = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        with ThreadPoolExecutor(settings.usable_cpus()) as pool:
            for number, image in enumerate(pool.map(lambda file: _decode_one(file, side), files)):
                images[number] = image
        images.flush()
        del images
        partial.replace(kept)
    return np.load(kept, mmap_mode="c")  # a private copy of what is touched: larger than memory is fine


def _decode_one(file: Path, side: int) -> np.ndarray:
    try:
        with Image.open(file) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(f"{file}: {image.width}x{image.height} pixels are more than a picture has")
            image.draft("RGB", (side, side))  # JPEG: decoded at about the size that is needed
            square = ImageOps.fit(image.convert("RGBA"), (side, side), Image.Resampling.BICUBIC)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be decoded: {error}") from error
    paper = Image.new("RGBA", square.size, "white")
    return np.asarray(Image.alpha_composite(paper, square).convert("RGB")).transpose(2, 0, 1)


def _place(group: str) -> float:
    """A number from 0 to 1 that the name alone decides."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64


def _first_bad(scores: np.ndarray) -> int:
    return int(np.flatnonzero(~np.isfinite(scores))[0])
