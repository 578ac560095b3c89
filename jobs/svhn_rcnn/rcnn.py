"""The network: recurrent convolutional layers (RCL), after "Recurrent Convolutional Neural Network for Object
Recognition" (Liang and Hu, CVPR 2015), with batch normalisation in place of local response normalisation,
or with the latter (`norm="local"`).

    32x32x3 - conv 5x5 - pool - RCL - RCL - pool - RCL - RCL - global max - linear - 10

An RCL applies one feed-forward convolution `ff` and, T - 1 times, one recurrent convolution `rec`:

    r(1) = ff(x)        r(t) = relu(rec(r(t-1)) + ff(x)),  t = 2..T

Readings that the published text leaves open:
- x is the same at every t, so ff(x) is computed once (1.7x fewer operations, the same output).
- Batch normalisation stands after each ReLU, where the normalisation stood, and each t has its own: the
  weights are shared over t, but the statistics differ, and shared ones would fit no t.
- Both pools are 3x3 with stride 2 (32 -> 16 -> 8), the first behind conv1 as in the paper.
- A dropout follows each RCL but the last, behind the pool if there is one.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10
MAP_SIDE = 8  # of the last feature maps, for images of 32x32


class RCL(nn.Module):
    """A recurrent convolutional layer with `channels` in and out, unfolded for `steps` (T) iterations."""

    def __init__(self, channels: int, steps: int, norm: str = "batch") -> None:
        super().__init__()
        if steps < 2:
            raise ValueError(
                f"an RCL needs at least 2 iterations, not {steps}: at t = 1 it is a plain convolution"
            )
        self.ff = nn.Conv2d(channels, channels, 3, padding=1)
        self.rec = nn.Conv2d(channels, channels, 3, padding=1, bias=False)  # ff has the bias of the sum
        self.norms = nn.ModuleList(make_norm(norm, channels) for _ in range(steps - 1))

    def forward(self, x: Tensor) -> Tensor:
        from_input = self.ff(x)
        r = from_input
        for norm in self.norms:
            r = norm(F.relu(self.rec(r) + from_input))
        return r


class RCNN(nn.Module):
    """`as_run` restores two slips of the run of 2017: no dropout, and the global max over the wrong axis.

    (Its third, softmax applied twice, is in `loss`.) The max over the channels leaves one 8x8 map, so the
    linear layer then sees 64 numbers that say where something is and not what.
    """

    def __init__(
        self, channels: int, steps: int, dropout: float, *, norm: str = "batch", as_run: bool = False
    ) -> None:
        super().__init__()
        drop = 0.0 if as_run else dropout
        self.features = nn.Sequential(
            nn.Conv2d(3, channels, 5, padding=2), nn.ReLU(), make_norm(norm, channels),
            nn.MaxPool2d(3, stride=2, padding=1),
            RCL(channels, steps, norm), nn.Dropout(drop),
            RCL(channels, steps, norm), nn.MaxPool2d(3, stride=2, padding=1), nn.Dropout(drop),
            RCL(channels, steps, norm), nn.Dropout(drop),
            RCL(channels, steps, norm),
        )  # fmt: skip
        self.as_run = as_run
        self.linear = nn.Linear(MAP_SIDE * MAP_SIDE if as_run else channels, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        maps = self.features(x)
        pooled = maps.amax(1).flatten(1) if self.as_run else maps.amax((2, 3))
        return self.linear(pooled)


def make_norm(kind: str, channels: int) -> nn.Module:
    """Batch normalisation, or the paper's local response normalisation: alpha .001, beta .75, N = K/8 + 1."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.LocalResponseNorm(channels // 8 + 1, alpha=1e-3, beta=0.75, k=1.0)


def loss(logits: Tensor, labels: Tensor, *, as_run: bool = False) -> Tensor:
    """Mean cross-entropy. `as_run` applies softmax twice: weak gradients, and never a loss below 1.46."""
    if as_run:
        logits = logits.softmax(1)
    return F.cross_entropy(logits, labels)


def count_parameters(channels: int, steps: int, *, norm: str = "batch", as_run: bool = False) -> int:
    """In closed form, to check the network against: convolutions, normalisations, linear layer."""
    normalisations = 2 * channels * (1 + 4 * (steps - 1)) if norm == "batch" else 0
    first = (5 * 5 * 3 + 1) * channels
    rcl = (2 * 9 * channels + 1) * channels
    linear = ((MAP_SIDE * MAP_SIDE if as_run else channels) + 1) * CLASSES
    return first + 4 * rcl + normalisations + linear


def count_flops(channels: int, steps: int, *, hoisted: bool = True) -> int:
    """Operations (2 per multiply-add) of the convolutions and the linear layer, forward, for one image.

    With ff(x) computed anew in each iteration instead of once: hoisted=False.
    """
    per_position = 2 * 9 * channels * channels
    convolutions = 2 * steps - 1 if not hoisted else steps
    rcls = 2 * (16 * 16 + 8 * 8) * per_position * convolutions
    return 2 * 75 * channels * 32 * 32 + rcls + 2 * channels * CLASSES
