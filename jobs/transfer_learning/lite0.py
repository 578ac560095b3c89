"""EfficientNet-Lite0: the network whose ImageNet weights come as a package that any machine can install.

EfficientNet-B0 (https://arxiv.org/abs/1905.11946) without squeeze-and-excitation and with ReLU6, as its
authors published it for small devices. Convolutions pad as in TensorFlow, where it was trained: "same",
with the odd pixel at the right and at the bottom.
"""

from __future__ import annotations

from nets import Staged
from torch import Tensor, nn
from torch.nn import functional as F

# Blocks, kernel, stride of the first block, expansion, width.
LAYERS = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
STEM, HEAD = 32, 1280
EPSILON = 1e-3  # of batch normalisation, as the weights were trained
MOMENTUM = 0.1  # published with 0.01: then a run of 100 steps is asked with statistics of its random start


class SameConv2d(nn.Conv2d):
    """A convolution whose output has ceil(input / stride) pixels a side."""

    def __init__(self, before: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, width, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        down, across = (self._missing(side) for side in x.shape[2:])
        if not down and not across:
            return super().forward(x)
        if down % 2 == across % 2 == 0:  # symmetric: the convolution pads by itself
            return F.conv2d(x, self.weight, None, self.stride, (down // 2, across // 2), 1, self.groups)
        padded = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return F.conv2d(padded, self.weight, None, self.stride, 0, 1, self.groups)

    def _missing(self, side: int) -> int:
        """Pixels of padding that this side needs in all."""
        stride, kernel = self.stride[0], self.kernel_size[0]
        return max((-(-side // stride) - 1) * stride + kernel - side, 0)


class Block(nn.Module):
    """Widen, filter each map by itself, narrow; the input is added where the size allows it."""

    def __init__(self, before: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and before == width
        if self.expands:
            self._expand_conv, self._bn0 = SameConv2d(before, wide, 1), _norm(wide)
        self._depthwise_conv, self._bn1 = SameConv2d(wide, wide, kernel, stride, groups=wide), _norm(wide)
        self._project_conv, self._bn2 = SameConv2d(wide, width, 1), _norm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class Lite0(Staged):
    scale = ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv2d(3, STEM, 3, 2), _norm(STEM)
        blocks: list[Block] = []
        self.ends = []
        before = STEM
        for count, kernel, stride, expansion, width in LAYERS:
            for number in range(count):
                blocks.append(Block(before, width, kernel, stride if number == 0 else 1, expansion))
                before = width
            self.ends.append(len(blocks))
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = SameConv2d(before, HEAD, 1), _norm(HEAD)
        self.pool, self.drop = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.2)
        self._fc = nn.Linear(HEAD, outputs)

    def stages(self) -> list[tuple[str, nn.Module]]:
        starts = [0, *self.ends[:-1]]
        layers = [
            (f"layer{number}", self._blocks[start:end])
            for number, (start, end) in enumerate(zip(starts, self.ends), 1)  # noqa: B905  Python 3.9
        ]
        stem = nn.Sequential(self._conv_stem, self._bn0, nn.ReLU6())
        top = nn.Sequential(self._conv_head, self._bn1, nn.ReLU6(), self.pool, nn.Flatten())
        return [("stem", stem), *layers, ("top", top), ("fc", nn.Sequential(self.drop, self._fc))]


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=EPSILON, momentum=MOMENTUM)
