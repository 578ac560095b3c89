"""Which images: emoji, MNIST and Fashion-MNIST as published, what is drawn here, or a folder of yours.

Each gives the same record (folder.ImageSet), whose words say what it is, wherever a figure on it is shown.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import drawn
import numpy as np
import torch
from folder import DataError, ImageSet, SplitBy, of_files, read_folder, split_by_name
from shared import fetch, mnist, readers
from torch.nn import functional as F

NAMES = ("auto", "emoji", "sizes", "shapes", "mnist", "fashion")
MAKERS = ("google", "twitter")
OWN_NAMES = ("cache", *NAMES)  # folders that the sets above have below the data
NO_CLASS = "Component"  # five signs that are parts of other emoji
SHAPES = 1800  # pictures of the stand-in
FETCH_EMOJI = Path(__file__).with_name("fetch_emoji.sh")
FETCH_TIMEOUT_S = 900.0


def load(name: str, data: Path, *, folder: str = "", split_by: SplitBy | None = None) -> ImageSet:
    """The set by name, or the folder if one is given. "auto" is emoji where they can be had, else shapes."""
    cache = data / "cache"
    own = find_folder(folder, data)
    try:
        if own:
            return read_folder(own, cache, split_by=split_by)
        if name in ("mnist", "fashion"):
            return _load_grey(name, data)
        if name == "shapes" or (name == "auto" and not _can_have_emoji(data)):
            about = "drawn shapes, NOT photographs"
            return read_folder(drawn.write_shapes(data, SHAPES), cache, about=about)
        if name == "sizes":
            return _load_sizes(data, cache)
        return _load_emoji(data, cache)
    except (readers.ReaderError, fetch.FetchError) as error:
        raise DataError(str(error)) from error


def find_folder(folder: str, data: Path) -> Path | None:
    """The folder of images that was asked for, by its path or by the name that --data gave it; else the one
    that --data gave, if any. Raises DataError where it gave several."""
    given = [name for name in os.environ.get("CLOUDRUN_DATA_NAMES", "").split(":") if name]
    if folder:
        return data / folder if folder in given else Path(folder).expanduser()
    images = [name for name in given if name not in OWN_NAMES]
    if len(images) > 1:
        raise DataError(f"--data gave {', '.join(images)}: choose one with --images NAME")
    return data / images[0] if images else None


def fetch_emoji(data: Path) -> None:
    """Make data/emoji hold the emoji. Raises DataError where they cannot be had."""
    if (data / "emoji" / "emoji.json").is_file():
        return
    print("fetching emoji (136 MB, by npm)", flush=True)
    command = ["sh", str(FETCH_EMOJI), str(data)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"emoji cannot be fetched: {error}") from error
    if done.returncode:
        raise DataError(f"emoji cannot be had: {done.stderr.strip() or done.returncode}")


def list_emoji(data: Path) -> list[tuple[Path, str, str]]:
    """File, category and code of each emoji, both makers' pictures one after the other."""
    folder = data / "emoji"
    try:
        entries = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
        rows = [(folder / maker / entry["image"], entry["category"], entry["unified"])
                for entry in entries for maker in MAKERS if entry["category"] != NO_CLASS]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'emoji.json'} is not the list of emoji: {error}") from error
    found = [row for row in rows if row[0].is_file()]
    if not found:
        raise DataError(f"{folder} holds none of the pictures that emoji.json lists")
    return found


def _can_have_emoji(data: Path) -> bool:
    try:
        fetch_emoji(data)
    except DataError as error:
        print(f"{error}; drawn shapes are used instead", flush=True)
        return False
    return True


def _load_emoji(data: Path, cache: Path) -> ImageSet:
    """Nine categories; an emoji's two pictures are on the same side of the split."""
    fetch_emoji(data)
    rows = list_emoji(data)
    classes = tuple(sorted({category for _, category, _ in rows}))
    targets = np.array([classes.index(category) for _, category, _ in rows], np.int64)
    parts = split_by_name([code for _, _, code in rows])
    return of_files(
        [file for file, _, _ in rows], "emoji of Noto and Twemoji", classes, targets, parts, cache
    )


def _load_sizes(data: Path, cache: Path) -> ImageSet:
    """A score that is known because it was drawn: the stand-in for photographs with a measured one."""
    if _can_have_emoji(data):
        sources, name = [(code, file) for file, _, code in list_emoji(data)], "emoji"
    else:
        shapes = sorted(drawn.write_shapes(data, SHAPES).glob("*/*.png"))
        sources, name = [(file.stem, file) for file in shapes], "shapes"
    folder = drawn.write_sizes(data, sources, name=name)
    by = SplitBy("year", str(drawn.TEST_YEAR), "big")
    return read_folder(folder, cache, about=f"{name} drawn at a known size, NOT photographs", split_by=by)


def _load_grey(name: str, data: Path) -> ImageSet:
    mnist.fetch_set(name, data)
    (train, train_labels), (test, test_labels) = mnist.read_set(name, data)
    images = np.concatenate([train, test])
    held_out = len(train) * 9 // 10
    parts = {"train": np.arange(held_out), "val": np.arange(held_out, len(train)),
             "test": np.arange(len(train), len(images))}  # fmt: skip
    classes = tuple(str(number) for number in range(10))
    targets = np.concatenate([train_labels, test_labels])
    return ImageSet(mnist.TITLES[name], classes, targets, parts, lambda side: Enlarged(images, side))


class Enlarged:
    """Grey images at another size, in three equal channels; each when it is asked for."""

    def __init__(self, images: np.ndarray, side: int) -> None:
        self._images, self._side = images, side

    def __getitem__(self, picks: np.ndarray) -> np.ndarray:
        grey = torch.from_numpy(self._images[picks])[:, None].float()
        sides = (self._side, self._side)
        large = F.interpolate(grey, sides, mode="bilinear", align_corners=False).round().to(torch.uint8)
        return large.expand(-1, 3, -1, -1).numpy()
