"""The two networks with the defaults of Keras 1.2.2, and its two optimisers.

    MNIST     28x28x1  conv32 pool conv64 pool | dense512 drop.5 dense10
    CIFAR-10  32x32x3  conv32 pool drop.25 conv64 conv64 pool | drop.25 dense512 drop.5 dense10

Convolutions are 3x3, all padded but the third one on CIFAR-10, which gives the published parameter counts. A
ReLU follows each, and batch normalisation, where the net has it, stands behind the ReLU. Left of the bar is
what the rows "fc" freeze.

As in Keras 1.2.2: weights glorot uniform, biases 0; batch normalisation keeps .99 of its running statistics
at each step and adds 1e-3 to the variance; Adam divides by sqrt(v) + 1e-8 before v is corrected; RMSprop has
rho .9 and 1e-8. One thing differs: its running variance was that of the batch plus 1e-3 (on Theano 0.9), here
it is the unbiased one of the batch.
"""

from __future__ import annotations

import math

import torch
from grid import CIFAR10, MNIST
from torch import Tensor, nn

SHAPES = {MNIST: (1, 28, 28), CIFAR10: (3, 32, 32)}
FEATURES, HIDDEN, CLASSES = 64 * 7 * 7, 512, 10
BATCH = {MNIST: 64, CIFAR10: 32}
# As published: (trained, running statistics) without and with batch normalisation.
PARAMETERS = {
    (MNIST, False): (1_630_090, 0), (MNIST, True): (1_631_306, 1_216),
    (CIFAR10, False): (1_667_594, 0), (CIFAR10, True): (1_668_938, 1_344),
}  # fmt: skip
EPSILON = 1e-8  # of both optimisers
DECAY = 1e-6  # of RMSprop's rate, for each step


class Net(nn.Module):
    """`conv` gives maps that flatten to 3,136 features, `head` the logits from those."""

    def __init__(self, data: str, *, bn: bool) -> None:
        super().__init__()
        first, *later = self._convolutions(data)
        self.conv = nn.Sequential(
            *_with_relu(first, bn), nn.MaxPool2d(2), *([nn.Dropout(0.25)] if data == CIFAR10 else []),
            *(layer for conv in later for layer in _with_relu(conv, bn)), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Sequential(
            *([nn.Dropout(0.25)] if data == CIFAR10 else []),
            *_with_relu(nn.Linear(FEATURES, HIDDEN), bn), nn.Dropout(0.5), nn.Linear(HIDDEN, CLASSES),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        return self.conv(images).flatten(1)

    @staticmethod
    def _convolutions(data: str) -> list[nn.Conv2d]:
        first = nn.Conv2d(SHAPES[data][0], 32, 3, padding=1)
        if data == MNIST:
            return [first, nn.Conv2d(32, 64, 3, padding=1)]
        return [first, nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 64, 3)]


def build(data: str, *, bn: bool, seed: int) -> Net:
    """The net as it starts: the same weights with and without batch normalisation. Checks its size."""
    torch.manual_seed(seed)
    net = Net(data, bn=bn)
    if count_parameters(net) != PARAMETERS[data, bn]:
        raise AssertionError(f"{count_parameters(net)} parameters, published {PARAMETERS[data, bn]}")
    return net


def count_parameters(net: nn.Module) -> tuple[int, int]:
    """Trained ones, and running means and variances. Keras prints the sum of both as its total."""
    running = [
        buffer for name, buffer in net.named_buffers() if name.endswith(("running_mean", "running_var"))
    ]
    return sum(p.numel() for p in net.parameters()), sum(buffer.numel() for buffer in running)


def make_optimiser(data: str, layers: nn.Module) -> torch.optim.Optimizer:
    """Adam for MNIST, RMSprop for CIFAR-10. Their rate is given at each step by `set_rate`."""
    if data == MNIST:  # fused: 1.1 to 1.3 times the images/s of the whole net on a CPU, the same formula
        return torch.optim.Adam(layers.parameters(), betas=(0.9, 0.999), eps=EPSILON, fused=True)
    return torch.optim.RMSprop(layers.parameters(), alpha=0.9, eps=EPSILON)


def set_rate(optimiser: torch.optim.Optimizer, rate: float, step: int) -> None:
    """The rate of step 0, 1, 2 ... of this optimiser, as Keras computes it."""
    group = optimiser.param_groups[0]
    if isinstance(optimiser, torch.optim.Adam):  # torch adds eps after the correction, Keras before it
        group["lr"], group["eps"] = rate, EPSILON / math.sqrt(1 - 0.999 ** (step + 1))
    else:
        group["lr"] = rate / (1 + DECAY * step)


def _with_relu(layer: nn.Conv2d | nn.Linear, bn: bool) -> list[nn.Module]:
    if not bn:
        return [layer, nn.ReLU()]
    maps = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
    width = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
    return [layer, nn.ReLU(), maps(width, eps=1e-3, momentum=0.01)]
