"""One training: a network with its frozen and its learning part, its images, its loss and its optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from folder import ImageSet
from nets import Staged, initialise, last_linear
from options import BUILDERS, Arm
from torch import Tensor
from torch.nn import functional as F
from weights import Report, WeightsError, copy_into

SPREAD = 64.0  # about the standard deviation of pixels, 0 to 255, around a mean image
EVALUATION_BATCH = 128
FLIP, CONTRAST, BRIGHTNESS, SHIFT = 0.5, (0.7, 1.4), 24.0, 0.08  # the last a share of the side
FEATURES_WARNING = (
    "features are computed once: fast, but the pretrained layers see every image in one way only (no flips, "
    "no contrast), and what they cannot tell apart stays lost. Compare with frozen and finetune"
)


@dataclass(frozen=True)
class Scores:
    """Of one part of the images. score: accuracy, or R^2. answers: probabilities N x classes, or N scores."""

    loss: float
    score: float
    error: float  # mean absolute error of a score, share of wrong answers of classes
    answers: Tensor


def build(arm: Arm, outputs: int, found: dict[str, Tensor] | None) -> tuple[Staged, Report | None]:
    """The arm's network with He's initialisation, and pretrained weights where the arm takes them."""
    net = BUILDERS[arm.net](outputs)
    initialise(net)
    if not arm.pretrained:
        return net, None
    if found is None:
        raise WeightsError(f"{arm} needs pretrained weights, and --weights is none")
    return net, copy_into(net, found)


class Learner:
    """Trains and asks one network. `first` is the first stage that learns: what is before it is frozen."""

    def __init__(
        self, arm: Arm, net: Staged, images: ImageSet, picks: np.ndarray, *, augment: frozenset[str],
        target_scale: float, device: torch.device, precision: torch.dtype,
        between: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.arm, self.images, self.picks, self.device, self.precision = arm, images, picks, device, precision
        self.between = between  # called after every batch that is no training step; may leave
        self.net = net.to(device, memory_format=torch.channels_last)
        self.pixels = images.read(arm.side)
        self.augment = augment if arm.how != "features" else frozenset()
        self.scale = target_scale
        self.targets = torch.from_numpy(images.targets)
        self.mean, self.spread = self._input_scale()
        self.stages = net.stages()
        self.head = len(self.stages) - net.new
        self.features: Tensor | None = None
        self.freeze(self.head if arm.how in ("frozen", "features") else 0)
        if not images.classes:  # start from the mean: the first steps need not learn it
            with torch.no_grad():
                last_linear(net).bias.fill_(float(self.targets[picks].mean()) * target_scale)

    def freeze(self, first: int) -> None:
        """Stages before `first` get no gradient, and their statistics stay."""
        self.first = first
        for number, (_, stage) in enumerate(self.stages):
            stage.requires_grad_(number >= first)
        self.train(self.net.training)

    def train(self, training: bool) -> None:
        self.net.train(training)
        for _, stage in self.stages[: self.first]:
            stage.eval()

    def optimiser(self, weight_decay: float, rate_decay: float) -> torch.optim.Optimizer:
        """AdamW with a group a stage; `scale` is its share of the rate, smaller for earlier stages."""
        decay = rate_decay if self.arm.how == "finetune" else 1.0
        groups = [
            {
                "params": list(stage.parameters()),
                "scale": decay ** (number + 1 - len(self.stages)),
                "name": name,
            }
            for number, (name, stage) in enumerate(self.stages)
            if number >= (self.head if self.arm.how in ("frozen", "features") else 0)
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=1.0, weight_decay=weight_decay)

    def step(self, optimiser: torch.optim.Optimizer, picks: np.ndarray, rate: float) -> tuple[Tensor, Tensor]:
        """One training step. Loss, and the sum of right answers or of absolute errors."""
        for group in optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        targets = self.targets[picks].to(self.device)
        answers = self.answer(picks, augment=True)
        loss = self.loss(answers, targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss.detach(), self._count(answers.detach(), targets)

    def answer(self, picks: np.ndarray, *, augment: bool = False) -> Tensor:
        """What the network says of these images, in float32. No gradient reaches the frozen stages."""
        if self.features is not None:
            x, first = self.features[torch.from_numpy(picks)], self.head
        else:
            x, first = self._input(picks, augment), 0
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            if first < self.first:
                with torch.no_grad():
                    x = self.net(x, first, self.first)
                first = self.first
            return self.net(x, first).float()

    @torch.no_grad()
    def compute_features(self, known: Tensor | None = None) -> Tensor:
        """Run the frozen stages once over all images of the set; their answers by the number of the image."""
        if known is None:
            self.train(False)
            numbers = np.sort(np.concatenate(list(self.images.parts.values())))
            for start in range(0, len(numbers), EVALUATION_BATCH):
                some = numbers[start : start + EVALUATION_BATCH]
                part = self.net(self._input(some, augment=False), 0, self.head)
                if known is None:
                    known = torch.zeros((len(self.images.targets), *part.shape[1:]), device=self.device)
                known[torch.from_numpy(some)] = part.float()
                self.between()
        self.features = known
        return known

    @torch.no_grad()
    def evaluate(self, part: np.ndarray) -> Scores:
        """Loss and score over a whole part, without augmentation."""
        self.train(False)
        pieces = [part[start : start + EVALUATION_BATCH] for start in range(0, len(part), EVALUATION_BATCH)]
        answers = torch.cat([self._evaluated(piece) for piece in pieces])
        targets = self.targets[part].to(self.device)
        loss = float(self.loss(answers, targets))
        if self.images.classes:
            right = float((answers.argmax(1) == targets).float().mean())
            return Scores(loss, right, 1 - right, answers.softmax(1).cpu())
        predicted = answers[:, 0] / self.scale
        error = predicted - targets
        explained = 1 - float(
            error.square().sum() / (targets - targets.mean()).square().sum().clamp_min(1e-12)
        )
        return Scores(loss, explained, float(error.abs().mean()), predicted.cpu())

    def _evaluated(self, picks: np.ndarray) -> Tensor:
        self.between()
        return self.answer(picks)

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of classes, squared error of a score times the target scale."""
        if self.images.classes:
            return F.cross_entropy(answers, targets)
        return F.mse_loss(answers[:, 0], targets * self.scale)

    def _count(self, answers: Tensor, targets: Tensor) -> Tensor:
        if self.images.classes:
            return (answers.argmax(1) == targets).sum()
        return (answers[:, 0] / self.scale - targets).abs().sum()

    def _input_scale(self) -> tuple[Tensor, Tensor]:
        """Pretrained: what the weights expect. Else the mean image of the training images is subtracted."""
        if self.arm.pretrained:
            mean, spread = (torch.tensor(values).view(1, 3, 1, 1) for values in self.net.scale)
            return mean.to(self.device), spread.to(self.device)
        total = np.zeros((3, self.arm.side, self.arm.side))
        for start in range(0, len(self.picks), 1000):
            total += np.asarray(self.pixels[self.picks[start : start + 1000]]).sum(0, dtype=np.float64)
        mean = torch.from_numpy((total / len(self.picks)).astype(np.float32))
        return mean[None].to(self.device), torch.tensor(SPREAD, device=self.device)

    def _input(self, picks: np.ndarray, augment: bool) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(self.pixels[picks])).to(self.device).float()
        if augment:
            x = augmented(x, self.augment)
        return ((x - self.mean) / self.spread).contiguous(memory_format=torch.channels_last)


def augmented(x: Tensor, kinds: frozenset[str]) -> Tensor:
    """Images (0 to 255) flipped left to right, in another contrast and brightness, shifted, at random."""
    count = len(x)
    if "flips" in kinds:
        flips = torch.rand(count, device=x.device) < FLIP
        x = torch.where(flips[:, None, None, None], x.flip(3), x)
    if "contrast" in kinds:
        low, high = (math.log(value) for value in CONTRAST)
        factor = torch.exp(torch.rand(count, 1, 1, 1, device=x.device) * (high - low) + low)
        change = (torch.rand(count, 1, 1, 1, device=x.device) * 2 - 1) * BRIGHTNESS
        mean = x.mean((1, 2, 3), keepdim=True)
        x = ((x - mean) * factor + mean + change).clamp(0, 255)
    if "shifts" in kinds:
        theta = torch.eye(2, 3, device=x.device).repeat(count, 1, 1)
        theta[:, :, 2] = (torch.rand(count, 2, device=x.device) * 2 - 1) * 2 * SHIFT
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return x
