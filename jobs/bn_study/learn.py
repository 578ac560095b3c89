"""One stretch of training: layers, their optimiser, and what they are fed.

A whole net is fed images. A head alone is fed features that were computed once, about 4 times faster.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
from nets import BATCH, Net, make_optimiser, set_rate
from samples import Images, Part
from torch import Tensor, nn
from torch.nn import functional as F

EVALUATION_BATCH = 250


class Feed(Protocol):
    """Batches for the layers that are trained, of the training set by places and of the test set in order."""

    train_labels: Tensor
    test_labels: Tensor

    def train(self, picks: Tensor) -> Tensor: ...

    def test(self, places: slice) -> Tensor: ...


class ImageFeed:
    def __init__(self, images: Images) -> None:
        self.images = images
        self.train_labels, self.test_labels = images.train.labels, images.test.labels

    def train(self, picks: Tensor) -> Tensor:
        if self.images.augmented:
            return self.images.augmented_batch(picks)
        return self.images.batch(self.images.train, picks)

    def test(self, places: slice) -> Tensor:
        return self.images.batch(self.images.test, places)


class FeatureFeed:
    """What the frozen convolutions make of every image, unshifted: N x 3136 floats, 0.75 GB for 60,000."""

    def __init__(self, net: Net, images: Images, look_up: Callable[[], None]) -> None:
        """Computes them. `look_up` is called often: it may end the process."""
        self.train_labels, self.test_labels = images.train.labels, images.test.labels
        self._train, self._test = (
            self._compute(net, images, part, look_up) for part in (images.train, images.test)
        )

    def train(self, picks: Tensor) -> Tensor:
        return self._train[picks]

    def test(self, places: slice) -> Tensor:
        return self._test[places]

    @staticmethod
    @torch.no_grad()
    def _compute(net: Net, images: Images, part: Part, look_up: Callable[[], None]) -> Tensor:
        net.eval()
        batches = []
        for start in range(0, len(part), EVALUATION_BATCH):
            batches.append(net.features(images.batch(part, slice(start, start + EVALUATION_BATCH))))
            look_up()
        return torch.cat(batches)


class Learner:
    """Trains `layers` of a net on a feed. `steps` counts the optimiser's, as `iterations` in Keras."""

    def __init__(self, data: str, layers: nn.Module, feed: Feed) -> None:
        self.layers, self.feed = layers, feed
        self.optimiser, self.steps = make_optimiser(data, layers), 0
        self.batch = BATCH[data]

    def __len__(self) -> int:
        """Batches of an epoch; the last one may be small, as in Keras."""
        return -(-len(self.feed.train_labels) // self.batch)

    def train_batch(self, picks: Tensor, rate: float) -> Tensor:
        """One step. Returns the sums of losses and of hits."""
        set_rate(self.optimiser, rate, self.steps)
        labels = self.feed.train_labels[picks]
        logits = self.layers(self.feed.train(picks))
        loss = F.cross_entropy(logits, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.steps += 1
        return torch.stack([loss.detach().double() * len(picks), (logits.argmax(1) == labels).sum().double()])

    @torch.no_grad()
    def evaluate(self, look_up: Callable[[], None]) -> tuple[float, float]:
        """Mean loss and accuracy over the test images."""
        self.layers.eval()
        labels = self.feed.test_labels
        total = torch.zeros(2, dtype=torch.float64, device=labels.device)
        for start in range(0, len(labels), EVALUATION_BATCH):
            places = slice(start, start + EVALUATION_BATCH)
            logits = self.layers(self.feed.test(places))
            loss = F.cross_entropy(logits, labels[places], reduction="sum")
            total += torch.stack([loss.double(), (logits.argmax(1) == labels[places]).sum().double()])
            look_up()
        loss_mean, accuracy = (total / len(labels)).tolist()
        return loss_mean, accuracy

    def state(self) -> dict[str, Any]:
        """A copy that further training leaves alone."""
        state = {
            "layers": self.layers.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
        }
        return copy.deepcopy(state)

    def restore(self, state: dict[str, Any]) -> None:
        state = copy.deepcopy(state)
        self.layers.load_state_dict(state["layers"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps = state["steps"]
