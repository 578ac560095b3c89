"""The data: which digits, where they come from, how they are split, and how a batch is made.

Three sets give the same record: SVHN (the real .mat files), MNIST (the real idx files, padded to 32x32 and
repeated in three channels), and rendered digits (render.py), which are not SVHN and are named so everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import download
import numpy as np
import render
import torch
from shared import fetch, mnist, readers

VAL_PER_CLASS, VAL_EXTRA_PER_CLASS = 400, 200  # of train and of extra, as in the paper
SPREAD = 64.0  # about the standard deviation of these sets, on the scale 0..255
SPLIT_SEED = 0  # the split is part of the data: the same in every run
RENDERED_SIZES = {"train": 73_257, "extra": 36_628, "test": 26_032}  # SVHN's, but for extra (531,131)
NAMES = ("auto", "svhn", "mnist", "rendered")
Pair = tuple[np.ndarray, np.ndarray]  # images N x 3 x 32 x 32 uint8, labels N int64


class Sets(NamedTuple):
    """The published files of a data set, and what they are in words."""

    about: str
    train: Pair
    extra: Pair | None
    test: Pair


class DataError(Exception):
    """The data that was asked for cannot be had."""


@dataclass(frozen=True)
class Part:
    """One set: images as N x 3 x 32 x 32 uint8, labels as N int64."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Part:
        return Part(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Digits:
    """The three sets; `about` says in words what they are."""

    about: str
    train: Part
    val: Part
    test: Part


def load(name: str, data: Path, *, limit: int = 0, hard: float = 1.0) -> Digits:
    """The set by name: "svhn", "mnist", "rendered", or "auto" (SVHN if it can be had, else rendered).

    `limit` keeps about that many images for training and validation together, and a quarter of it for test.
    """
    if name == "auto":
        name = _find_svhn(data)
    try:
        sets = _read(name, data, limit, hard)
    except (readers.ReaderError, fetch.FetchError) as error:
        raise DataError(str(error)) from error
    if limit:
        sets = _limited(sets, limit)
    parts = [Part(*map(torch.from_numpy, pair)) for pair in (*split(sets.train, sets.extra), sets.test)]
    train, val, test = (f"{len(part):,}" for part in parts)
    return Digits(f"{sets.about} ({train} train, {val} validation, {test} test)", *parts)


def split(train: Pair, extra: Pair | None) -> tuple[Pair, Pair]:
    """Training and validation set: 400 a class of train and 200 of extra become validation.

    A file with fewer than 100 images for each of those gives a hundredth of its size a class.
    """
    random = np.random.default_rng(SPLIT_SEED)
    keep_parts, val_parts = [], []
    for pair, most in ((train, VAL_PER_CLASS), (extra, VAL_EXTRA_PER_CLASS)):
        if pair is None:
            continue
        images, labels = pair
        chosen = _choose_per_class(labels, min(most, len(labels) // 100), random)
        keep_parts.append((images[~chosen], labels[~chosen]))
        val_parts.append((images[chosen], labels[chosen]))
    return _joined(keep_parts), _joined(val_parts)


def mean_image(images: torch.Tensor) -> torch.Tensor:
    """The mean of every pixel over the training set, 3 x 32 x 32, on the scale 0..255."""
    total = torch.zeros(images.shape[1:], dtype=torch.int64)
    for part in images.split(8192):
        total += part.sum(0, dtype=torch.int64)  # whole numbers: exact, whatever the order
    return (total.double() / len(images)).float()


def normalise(batch: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """uint8 -> float32 around 0, less the mean image, in the memory layout that convolutions like best."""
    return ((batch.float() - mean) / SPREAD).contiguous(memory_format=torch.channels_last)


def _find_svhn(data: Path) -> str:
    try:
        download.fetch_svhn(data)
    except fetch.FetchError as error:
        print(f"SVHN cannot be had ({error}); using rendered digits instead", flush=True)
        return "rendered"
    return "svhn"


def _read(name: str, data: Path, limit: int, hard: float) -> Sets:
    if name == "svhn":
        return _read_svhn(data)
    if name == "mnist":
        return _read_mnist(data)
    return _read_rendered(data, limit, hard)


def _read_svhn(data: Path) -> Sets:
    download.fetch_svhn(data)
    files = [data / "svhn" / f"{name}_32x32.mat" for name in ("train", "extra", "test")]
    return Sets("SVHN", *map(_read_mat_cached, files))


def _read_mnist(data: Path) -> Sets:
    mnist.fetch_set("mnist", data)
    train, test = ((_as_svhn(images), labels) for images, labels in mnist.read_set("mnist", data))
    return Sets("MNIST, padded to 32x32, three equal channels", train, None, test)


def _read_rendered(data: Path, limit: int, hard: float) -> Sets:
    sizes = RENDERED_SIZES
    if limit:
        sizes = {"train": limit * 2 // 3, "extra": limit - limit * 2 // 3, "test": limit // 4}
    folder = data / "rendered" / f"v{render.VERSION}-{'-'.join(map(str, sizes.values()))}-hard{hard:g}"
    files = [render.write_set(folder, name, size, hard=hard) for name, size in sizes.items()]
    about = f"rendered digits, NOT SVHN, hard {hard:g}, test in held-out typefaces"
    return Sets(about, *map(readers.read_mat, files))


def _read_mat_cached(file: Path) -> Pair:
    """The .mat file by way of an uncompressed copy beside it: 8 times faster (1.8 s -> 0.26 s for train)."""
    stat = file.stat()
    cache = file.with_suffix(f".{stat.st_size}-{stat.st_mtime_ns}.npz")
    if not cache.is_file():
        images, labels = readers.read_mat(file)
        partial = cache.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.savez(stream, images=images, labels=labels)
        partial.replace(cache)
    with np.load(cache) as content:
        return content["images"], content["labels"]


def _limited(sets: Sets, limit: int) -> Sets:
    """Two thirds of train and one third of extra, where there is an extra; a quarter as many for test."""
    of_train = limit * 2 // 3 if sets.extra else limit
    extra = _first(sets.extra, limit - of_train) if sets.extra else None
    return Sets(sets.about, _first(sets.train, of_train), extra, _first(sets.test, limit // 4))


def _first(pair: Pair, count: int) -> Pair:
    return pair[0][:count], pair[1][:count]


def _choose_per_class(labels: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """A mask with `count` images of each class."""
    chosen = np.zeros(len(labels), bool)
    for digit in range(10):
        (places,) = np.nonzero(labels == digit)
        if len(places) <= count:
            raise DataError(
                f"{len(places)} images of the digit {digit} are too few, validation takes {count}"
            )
        chosen[random.choice(places, count, replace=False)] = True
    return chosen


def _as_svhn(images: np.ndarray) -> np.ndarray:
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return np.repeat(padded[:, None], 3, axis=1)


def _joined(pairs: list[Pair]) -> Pair:
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
