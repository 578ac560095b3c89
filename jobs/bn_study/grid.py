"""The grid: 14 published rows, what a cell of it is, and how cells share work.

A row is data, net, rate and whether batch normalisation stands in the net. A cell is one training of a row:
with a schedule and a seed. Cells that begin alike are a family: one trunk is trained for all of them (the
first epoch on MNIST, the first half on CIFAR-10), and each cell branches off it.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import NamedTuple

MNIST, CIFAR10 = "mnist", "cifar10"
WHOLE, FC = "whole", "fc"
AS_WRITTEN, AS_RUN, CONSTANT, TRUNK = "as_written", "as_run", "constant", "trunk"


class Figures(NamedTuple):
    """The last epoch's, of training and of test images."""

    loss: float
    acc: float
    val_loss: float
    val_acc: float


@dataclass(frozen=True)
class Row:
    """`rate` is the trunk's, `then` the one that follows it as the notebooks wrote it. Epochs likewise.

    fc: after the trunk the convolutions are frozen, their features computed once, and the fully connected
    layers trained on those, going on from the weights they have, with a new optimiser.
    """

    data: str
    net: str
    rate: float
    then: float
    bn: bool
    published: Figures

    @property
    def name(self) -> str:
        return f"{self.data}{'-fc' if self.net == FC else ''}-{self.rate:g}{'-bn' if self.bn else ''}"

    @property
    def trunk_epochs(self) -> int:
        return 1 if self.data == MNIST else 25

    @property
    def epochs(self) -> int:
        """After the trunk."""
        return 8 if self.data == MNIST else 25


def _row(data: str, net: str, rate: float, then: float, bn: bool, *figures: float) -> Row:
    return Row(data, net, rate, then, bn, Figures(*figures))


ROWS = (  # field reports of 2017: Keras 1.2.2, GTX 950
    _row(MNIST, WHOLE, 0.001, 0.0001, False, 0.0133, 0.9957, 0.0205, 0.9936),
    _row(MNIST, WHOLE, 0.001, 0.0001, True, 0.0158, 0.9948, 0.0369, 0.9889),
    _row(MNIST, WHOLE, 0.01, 0.001, False, 0.2219, 0.9352, 0.1436, 0.9582),
    _row(MNIST, WHOLE, 0.01, 0.001, True, 0.0507, 0.9886, 0.0567, 0.9877),
    _row(CIFAR10, WHOLE, 0.0001, 0.0001, False, 0.8875, 0.7005, 0.8007, 0.7398),
    _row(CIFAR10, WHOLE, 0.0001, 0.0001, True, 0.6417, 0.7824, 0.7124, 0.7671),
    _row(CIFAR10, WHOLE, 0.001, 0.001, False, 2.1267, 0.2226, 2.0676, 0.2230),
    _row(CIFAR10, WHOLE, 0.001, 0.001, True, 0.5938, 0.8006, 0.5055, 0.8264),
    _row(MNIST, FC, 0.001, 0.0001, False, 0.0170, 0.9949, 0.0226, 0.9918),
    _row(MNIST, FC, 0.001, 0.0001, True, 0.0144, 0.9955, 0.0237, 0.9923),
    _row(MNIST, FC, 0.01, 0.001, False, 0.0664, 0.9790, 0.0663, 0.9801),
    _row(MNIST, FC, 0.01, 0.001, True, 0.0765, 0.9756, 0.0704, 0.9794),
    _row(CIFAR10, FC, 0.0001, 0.0001, False, 0.6768, 0.7764, 0.7716, 0.7444),
    _row(CIFAR10, FC, 0.0001, 0.0001, True, 0.4751, 0.8418, 0.7227, 0.7636),
)


@dataclass(frozen=True)
class Cell:
    """One training of a row. as_written: the rate changes after the trunk. as_run: it stays."""

    row: Row
    schedule: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.row.name}/{self.schedule}/seed{self.seed}"

    @property
    def rate(self) -> float:
        """After the trunk."""
        return self.row.rate if self.schedule == AS_RUN else self.row.then


@dataclass(frozen=True)
class Stretch:
    """A number of epochs at one rate: the trunk of a family (cell is None), or what a cell adds to it."""

    cells: tuple[Cell, ...]  # of the family
    cell: Cell | None

    @property
    def row(self) -> Row:
        return (self.cell or self.cells[0]).row

    @property
    def seed(self) -> int:
        return self.cells[0].seed

    @property
    def on_features(self) -> bool:
        return self.cell is not None and self.row.net == FC

    @property
    def rate(self) -> float:
        return self.cell.rate if self.cell else self.row.rate


def choose_rows(patterns: list[str]) -> list[Row]:
    """The rows whose names fit any of the patterns ("mnist-*", "*-fc-*"), in the order of the table."""
    chosen = [row for row in ROWS if any(fnmatch.fnmatch(row.name, pattern) for pattern in patterns)]
    unfit = [p for p in patterns if not any(fnmatch.fnmatch(row.name, p) for row in ROWS)]
    if unfit:
        names = ", ".join(row.name for row in ROWS)
        raise ValueError(f"no cell is named {', '.join(unfit)}; there are {names}")
    return chosen


def plan_stretches(rows: list[Row], schedules: list[str], seeds: list[int]) -> list[Stretch]:
    """All that is to be trained: each family's trunk, then its cells. One trunk is kept at a time."""
    families: dict[tuple[int, str, float, bool], list[Cell]] = {}
    for seed in seeds:
        for row in rows:
            for schedule in schedules if row.then != row.rate else [CONSTANT]:
                family = families.setdefault((seed, row.data, row.rate, row.bn), [])
                family.append(Cell(row, schedule, seed))
    return [
        Stretch(tuple(family), cell)
        for family in families.values()
        for cell in (None, *sorted(family, key=lambda cell: cell.row.net == FC))
    ]
