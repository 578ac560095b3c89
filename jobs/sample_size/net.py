"""The network of the study: two convolutions and a hidden layer, each with batch normalisation.

    28x28x1 or 32x32x3 - conv32 - pool - conv64 - pool - dense128 - dropout - dense10

Small, so that the whole curve takes an hour on two CPU cores; the same for every number of images, so that
the images are what is compared.
"""

from __future__ import annotations

from torch import Tensor, nn

SHAPES = {"mnist": (1, 28, 28), "fashion": (1, 28, 28), "cifar10": (3, 32, 32)}
CLASSES = 10


class Net(nn.Module):
    """Images of `channels` x `side` x `side`; `side` is a multiple of four."""

    def __init__(self, channels: int, side: int, *, dropout: float = 0.25) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolution(channels, 32), *_convolution(32, 64), nn.Flatten(),
            nn.Linear(64 * (side // 4) ** 2, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(128, CLASSES),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def count_parameters(channels: int, side: int) -> int:
    """Of the net, in closed form, to check it against."""
    convolutions = 9 * channels * 32 + 9 * 32 * 64 + 2 * (32 + 64)
    return convolutions + 64 * (side // 4) ** 2 * 128 + 2 * 128 + 128 * CLASSES + CLASSES


def _convolution(channels: int, out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
