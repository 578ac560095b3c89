"""What is drawn where: metrics become panels, each with the training and validation curves of every fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cloudrun.curves.fit import Fit
from cloudrun.errors import UsageError
from cloudrun.words import nearest

MOST_PANELS = 6
LOG_FROM = 30.0  # a loss that falls by this factor or more is drawn on a logarithmic scale
_SAME = {"acc": "accuracy", "sparse_categorical_accuracy": "accuracy", "categorical_accuracy": "accuracy",
         "binary_accuracy": "accuracy", "learning_rate": "lr"}  # fmt: skip
_ASKED_ONLY = {"lr", "seconds", "time", "images_per_s", "v_num"}  # about the run, not the model


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a panel: `fit` is the index of its training, `validation` whether it is of that set."""

    fit: int
    validation: bool
    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def finite(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y in self.points if math.isfinite(y)]

    @property
    def broken_at(self) -> float | None:
        """The first x without a finite value."""
        return next((x for x, y in self.points if not math.isfinite(y)), None)

    @property
    def set_name(self) -> str:
        return "validation" if self.validation else "test" if self.name.startswith("test_") else "training"

    @property
    def last(self) -> float:
        return self.points[-1][1]


@dataclass(frozen=True, slots=True)
class Panel:
    """One metric: its curves and how its axis reads."""

    title: str
    curves: tuple[Curve, ...]

    @property
    def values(self) -> list[float]:
        return [y for curve in self.curves for _, y in curve.finite]

    @property
    def log_scale(self) -> bool:
        """A loss that falls over orders of magnitude."""
        values = self.values
        return (
            "loss" in self.title
            and bool(values)
            and min(values) > 0
            and max(values) / min(values) >= LOG_FROM
        )

    @property
    def percent(self) -> bool:
        values = self.values
        return self.title == "accuracy" and bool(values) and min(values) >= 0 and max(values) <= 1

    def label(self, value: float) -> str:
        """A value of this panel as its axis and legend have it."""
        if not math.isfinite(value):
            return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
        return f"{value:.2%}" if self.percent else f"{value:.4g}"


def arrange(fits: Sequence[Fit], *, metrics: Sequence[str] = ()) -> tuple[list[Panel], list[str]]:
    """The panels, loss first and accuracy second, and the names of metrics that are not drawn.

    metrics: only these; a name stands for its training and validation curves. Raises UsageError for one that
    no fit has.
    """
    curves: dict[str, list[Curve]] = {}
    for index, fit in enumerate(fits):
        for name in fit.names:
            validation = name.startswith("val_")
            curve = Curve(index, validation, name, tuple(fit.series(name)))
            curves.setdefault(_family(name), []).append(curve)
    wanted = [_wanted(name, curves) for name in metrics] or [
        name for name in curves if name not in _ASKED_ONLY
    ]
    wanted = list(dict.fromkeys(wanted or curves))
    if not metrics:
        wanted.sort(key=_rank)
    shown = wanted[:MOST_PANELS] if not metrics else wanted
    panels = [Panel(name, tuple(sorted(curves[name], key=_training_first))) for name in shown]
    return panels, [name for name in curves if name not in shown]


def _training_first(curve: Curve) -> tuple[int, bool]:
    return curve.fit, curve.validation


def _family(name: str) -> str:
    bare = name.removeprefix("val_").removeprefix("test_")
    return _SAME.get(bare, bare)


def _wanted(name: str, curves: dict[str, list[Curve]]) -> str:
    family = _family(name)
    if family not in curves:
        raise UsageError(f"no metric {name!r} in these logs", hint=nearest(name, curves))
    return family


def _rank(family: str) -> int:
    """Loss, accuracy, other losses, the rest; in each the order of appearance (sorting is stable)."""
    if family in ("loss", "accuracy"):
        return ("loss", "accuracy").index(family)
    return 2 if "loss" in family else 3
