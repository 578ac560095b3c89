"""How a batch is made of the images: standardised, and shifted and mirrored where the study did so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from grid import MNIST
from shared import imagesets
from torch import Tensor

MOST_SHIFT = 0.1  # of the side, as in Keras' ImageDataGenerator(width_shift_range=.1, height_shift_range=.1)


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
    """The set "mnist" or "cifar10", or its stand-in: arguments and errors as of imagesets.load.

    MNIST is standardised by one mean and one standard deviation, CIFAR-10 divided by 255 and augmented.
    """
    sets = imagesets.load(name, source, data, limit=limit)
    train, test = (
        Part(torch.tensor(images), torch.tensor(labels)) for images, labels in (sets.train, sets.test)
    )
    images = sets.train[0]
    mean, spread = (float(images.mean()), float(images.std())) if name == MNIST else (0.0, 255.0)
    return Images(sets.about, train, test, mean, spread, augmented=name != MNIST)


def shift_and_mirror(images: Tensor, picks: Tensor) -> Tensor:
    """Images of N x H x W x C moved by whole pixels; what comes in from outside repeats the edge."""
    side, count = images.shape[1], len(picks)
    moves = ((torch.rand(2, count, 1, device=images.device) * 2 - 1) * MOST_SHIFT * side).round().long()
    rows, columns = (torch.arange(side, device=images.device) + moves).clamp(0, side - 1)
    mirrored = torch.rand(count, 1, device=images.device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    return images[picks[:, None, None], rows[:, :, None], columns[:, None, :]]
