"""The data: real sets where they can be had, stand-ins where not, and how a batch is made of them.

MNIST is replaced by drawn digits, CIFAR-10 by Fashion-MNIST padded to 32x32 in three equal channels, and that
by drawn digits in colours. `about` says which it is, and every table and picture repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from grid import MNIST
from shared import cifar, drawn, fetch, mnist, readers
from torch import Tensor

SOURCES = ("auto", "real", "drawn")
DRAWN_SIZES = (12_000, 4_000)  # of training and test
DRAWN_SEEDS = (0, 1_000)
MOST_SHIFT = 0.1  # of the side, as in Keras' ImageDataGenerator(width_shift_range=.1)
Pair = tuple[np.ndarray, np.ndarray]


class DataError(Exception):
    """The data that was asked for cannot be had."""


@dataclass(frozen=True)
class Part:
    """Images as N x H x W x C uint8, labels as N int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Part:
        return Part(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Images:
    """A set. A batch is (images - mean) / spread; shifted and mirrored while training if `augmented`."""

    about: str
    train: Part
    test: Part
    mean: float
    spread: float
    augmented: bool

    def to(self, device: torch.device) -> Images:
        train, test = self.train.to(device), self.test.to(device)
        return Images(self.about, train, test, self.mean, self.spread, self.augmented)

    def batch(self, part: Part, picks: Tensor | slice) -> Tensor:
        """float32 N x C x H x W, channels last in memory."""
        return self._scaled(part.images[picks])

    def augmented_batch(self, picks: Tensor) -> Tensor:
        """Of the training set, each image moved by up to a tenth (edges repeated), half of them mirrored."""
        return self._scaled(shift_and_mirror(self.train.images, picks))

    def _scaled(self, images: Tensor) -> Tensor:
        return ((images.float() - self.mean) / self.spread).permute(0, 3, 1, 2)


def load(name: str, source: str, data: Path, *, limit: int = 0) -> Images:
    """The set "mnist" or "cifar10". `source`: real, drawn, or auto (real, or the best stand-in there is).

    limit: so many training images at most, and at most as many test images (0: all).
    """
    try:
        about, train, test = (_read_mnist if name == MNIST else _read_cifar)(source, data, limit)
    except (readers.ReaderError, fetch.FetchError) as error:
        raise DataError(str(error)) from error
    if limit:
        train, test = (train[0][:limit], train[1][:limit]), (test[0][:limit], test[1][:limit])
    about += f" ({len(train[1]):,} training, {len(test[1]):,} test images)"
    mean, spread = (float(train[0].mean()), float(train[0].std())) if name == MNIST else (0.0, 255.0)
    return Images(about, _part(train), _part(test), mean, spread, augmented=name != MNIST)


def shift_and_mirror(images: Tensor, picks: Tensor) -> Tensor:
    """Images of N x H x W x C moved by whole pixels; what comes in from outside repeats the edge."""
    side, count = images.shape[1], len(picks)
    moves = ((torch.rand(2, count, 1, device=images.device) * 2 - 1) * MOST_SHIFT * side).round().long()
    rows, columns = (torch.arange(side, device=images.device) + moves).clamp(0, side - 1)
    mirrored = torch.rand(count, 1, device=images.device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    return images[picks[:, None, None], rows[:, :, None], columns[:, None, :]]


def _read_mnist(source: str, data: Path, limit: int) -> tuple[str, Pair, Pair]:
    if source != "drawn" and _fetched(mnist.fetch_set, "mnist", data, must=source == "real"):
        train, test = mnist.read_set("mnist", data)
        return "MNIST", _with_channel(train), _with_channel(test)
    train, test = _drawn(drawn.draw_grey, limit)
    return "drawn digits, NOT MNIST", _with_channel(train), _with_channel(test)


def _read_cifar(source: str, data: Path, limit: int) -> tuple[str, Pair, Pair]:
    if source != "drawn" and _fetched(_fetch_cifar, "cifar10", data, must=source == "real"):
        train, test = cifar.read_set(data)
        return "CIFAR-10", _channels_last(train), _channels_last(test)
    if source != "drawn" and _fetched(mnist.fetch_set, "fashion", data, must=False):
        train, test = mnist.read_set("fashion", data)
        return "Fashion-MNIST padded to 32x32x3, NOT CIFAR-10", _padded(train), _padded(test)
    train, test = _drawn(drawn.draw_colours, limit)
    return "drawn digits in colours, NOT CIFAR-10", _channels_last(train), _channels_last(test)


def _fetch_cifar(_: str, data: Path) -> None:
    cifar.fetch_set(data)


def _fetched(fetch_set: Callable[[str, Path], None], name: str, data: Path, *, must: bool) -> bool:
    """Whether the set is there now. Where it need not be, a failure is said and taken."""
    try:
        fetch_set(name, data)
    except fetch.FetchError as error:
        if must:
            raise
        print(f"{name} cannot be had ({error}); a stand-in takes its place", flush=True)
        return False
    return True


def _drawn(draw: Callable[..., Pair], limit: int) -> tuple[Pair, Pair]:
    sizes = (min(limit or size, size) for size in DRAWN_SIZES)
    train, test = (draw(size, seed=seed) for size, seed in zip(sizes, DRAWN_SEEDS))  # noqa: B905  Python 3.9
    return train, test


def _part(pair: Pair) -> Part:
    return Part(torch.tensor(pair[0]), torch.tensor(pair[1]))


def _with_channel(pair: Pair) -> Pair:
    return pair[0][..., None], pair[1]


def _channels_last(pair: Pair) -> Pair:
    return pair[0].transpose(0, 2, 3, 1), pair[1]


def _padded(pair: Pair) -> Pair:
    return np.repeat(np.pad(pair[0], ((0, 0), (2, 2), (2, 2)))[..., None], 3, axis=3), pair[1]
