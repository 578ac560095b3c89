"""The networks, each a row of stages from the image to the answer, so that any first part can be frozen.

Names of weights are those under which the networks are published with torchvision (AlexNet, VGG16, ResNet) or
by their own package (EfficientNet-Lite0, lite0.py): a published file fits without renaming.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # mean and deviation of torchvision's weights
VGG16_WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Staged(nn.Module, ABC):
    """A network that can be run from one stage to another.

    `new`: how many of the last stages are this job's own and never come from a weights file. `scale`: mean
    and deviation of each colour (0 to 255) that published weights expect.
    """

    new = 1
    scale = IMAGENET

    @abstractmethod
    def stages(self) -> list[tuple[str, nn.Module]]:
        """Name and module, from the image on. What behaves otherwise in training is the network's own."""

    def forward(self, x: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        for _, stage in self.stages()[first:last]:
            x = stage(x)
        return x


class AlexNet(Staged):
    """Five convolutions as published with torchvision, then fully connected layers 4096, 1024, n.

    At 128 pixels the last maps are 7x7, so that the first of these layers has 256*7*7 inputs; other sizes
    are pooled to 7x7 too. All three layers are new: none of them has the published shape.
    """

    new = 3

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.pool, self.drop6, self.drop7 = nn.AdaptiveMaxPool2d(7), nn.Dropout(0.5), nn.Dropout(0.5)
        self.fc6, self.fc7, self.fc8 = (
            nn.Linear(256 * 7 * 7, 4096),
            nn.Linear(4096, 1024),
            nn.Linear(1024, outputs),
        )

    def stages(self) -> list[tuple[str, nn.Module]]:
        at = self.features
        return [
            ("conv1", at[0:3]), ("conv2", at[3:6]), ("conv3", at[6:8]), ("conv4", at[8:10]),
            ("conv5", at[10:12]),
            ("fc6", nn.Sequential(self.pool, nn.Flatten(), self.fc6, nn.ReLU(), self.drop6)),
            ("fc7", nn.Sequential(self.fc7, nn.ReLU(), self.drop7)),
            ("fc8", self.fc8),
        ]  # fmt: skip


class VGG16(Staged):
    """Thirteen 3x3 convolutions in five blocks and three fully connected layers; the last one is new."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.ends = []
        before = 3
        for block in VGG16_WIDTHS:
            for width in block:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2))
            self.ends.append(len(layers))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(4096, outputs),
        )  # fmt: skip

    def stages(self) -> list[tuple[str, nn.Module]]:
        starts = [0, *self.ends[:-1]]
        blocks = [
            (f"block{number}", self.features[start:end])
            for number, (start, end) in enumerate(zip(starts, self.ends), 1)  # noqa: B905  Python 3.9
        ]
        at = self.classifier
        fc1 = nn.Sequential(self.avgpool, nn.Flatten(), at[0:3])
        return [*blocks, ("fc1", fc1), ("fc2", at[3:6]), ("fc3", at[6])]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is projected where the size changes."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or before != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet(Staged):
    """Residual network of basic blocks, `counts` of them in each of four layers; (2, 2, 2, 2): ResNet-18."""

    def __init__(self, outputs: int, counts: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _residual_layer(64, 64, counts[0], 1)
        self.layer2 = _residual_layer(64, 128, counts[1], 2)
        self.layer3 = _residual_layer(128, 256, counts[2], 2)
        self.layer4 = _residual_layer(256, 512, counts[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, outputs)

    def stages(self) -> list[tuple[str, nn.Module]]:
        layers = [(f"layer{number}", getattr(self, f"layer{number}")) for number in (1, 2, 3, 4)]
        stem = nn.Sequential(self.conv1, self.bn1, self.relu, self.maxpool)
        head = nn.Sequential(self.avgpool, nn.Flatten(), self.fc)
        return [("stem", stem), *layers, ("fc", head)]


class Small(Staged):
    """Three convolutions (32, 64, 128) for images of 32 to 64 pixels: what one trains with nothing given."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        widths = (3, 32, 64, 128)
        for number in (1, 2, 3):
            block = nn.Sequential(
                nn.Conv2d(widths[number - 1], widths[number], 3, padding=1, bias=False),
                nn.BatchNorm2d(widths[number]), nn.ReLU(), nn.MaxPool2d(2),
            )  # fmt: skip
            self.add_module(f"conv{number}", block)
        self.pool, self.drop = nn.AdaptiveAvgPool2d(4), nn.Dropout(0.2)
        self.fc = nn.Linear(128 * 16, outputs)

    def stages(self) -> list[tuple[str, nn.Module]]:
        convolutions = [(f"conv{number}", getattr(self, f"conv{number}")) for number in (1, 2, 3)]
        return [*convolutions, ("fc", nn.Sequential(self.pool, nn.Flatten(), self.drop, self.fc))]


def resnet18(outputs: int) -> ResNet:
    return ResNet(outputs, (2, 2, 2, 2))


def resnet34(outputs: int) -> ResNet:
    return ResNet(outputs, (3, 4, 6, 3))


NETS: dict[str, Callable[[int], Staged]] = {
    "alexnet": AlexNet, "vgg16": VGG16, "resnet18": resnet18, "resnet34": resnet34, "small": Small,
}  # fmt: skip


def initialise(net: nn.Module) -> None:
    """He's initialisation (https://arxiv.org/abs/1502.01852): normal, fan-out in convolutions; biases 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)
    nn.init.normal_(last_linear(net).weight, std=0.01)  # no ReLU follows: begin with equal answers


def last_linear(net: nn.Module) -> nn.Linear:
    """The layer that gives the answer."""
    return [module for module in net.modules() if isinstance(module, nn.Linear)][-1]


def _residual_layer(before: int, width: int, count: int, stride: int) -> nn.Sequential:
    first = BasicBlock(before, width, stride)
    return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(count - 1)))
