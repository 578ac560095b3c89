"""What every log comes down to: one training (a Fit) is a list of Points, an epoch or a step each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

# Words for training and validation in the logs of Keras, PyTorch Lightning, fastai, chainer and nanoGPT.
_TRAIN = re.compile(r"^(?:train(?:ing)?|trn|main)[ _/.-]+", re.IGNORECASE)
_VALIDATION = re.compile(r"^(?:val(?:id(?:ation)?)?|dev)[ _/.-]+(?:main[ _/.-]+)?", re.IGNORECASE)
_WORDS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Point:
    """What is known at one x: an epoch counted from 1, or a step. A value may be NaN or infinite."""

    x: float
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Fit:
    """One training. `x` says what is counted: "epoch", "iteration" or "step". Points are in order of x.

    `unfinished` is the epoch that the log breaks off in, left out of the points; 0 for none.
    """

    title: str
    points: tuple[Point, ...]
    x: str = "epoch"
    unfinished: int = 0

    @property
    def names(self) -> list[str]:
        """Every metric, in the order of appearance."""
        return list(dict.fromkeys(name for point in self.points for name in point.values))

    def series(self, name: str) -> list[tuple[float, float]]:
        """(x, value) wherever the metric is known."""
        return [(point.x, point.values[name]) for point in self.points if name in point.values]


def metric_name(raw: str) -> str:
    """One spelling for all logs: training metrics bare, validation metrics with `val_` in front.

    "main/loss", "train_loss" and "train loss" are loss; "validation/main/loss", "valid_loss" are val_loss.
    """
    name = "".join(letter if letter.isprintable() else " " for letter in raw).strip()
    kind = ""
    if _VALIDATION.match(name):
        kind, name = "val_", _VALIDATION.sub("", name)
    elif _TRAIN.match(name):
        name = _TRAIN.sub("", name)
    return kind + _WORDS.sub("_", name)


def join_fits(fits: Sequence[Fit], title: str) -> Fit:
    """Trainings that continue one another, end to end: each begins where the one before it ended."""
    points: list[Point] = []
    for fit in fits:
        start = points[-1].x if points else 0.0
        points += [replace(point, x=start + point.x) for point in fit.points]
    return replace(fits[0], title=title, points=tuple(points), unfinished=fits[-1].unfinished)


def titled(fits: Iterable[Fit], title: str) -> list[Fit]:
    """Named after their source, and numbered where there are several."""
    found = list(fits)
    if len(found) == 1:
        return [replace(found[0], title=title)]
    return [replace(fit, title=f"{title} #{number}") for number, fit in enumerate(found, 1)]
