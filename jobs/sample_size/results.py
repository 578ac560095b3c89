"""What runs have left: the lines of their metrics.jsonl, gathered by data set, number of images and seed."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fit import Point
from shared import tables


@dataclass(frozen=True)
class Cell:
    """One finished training: its last line. `data` says in words what it was measured on."""

    data: str
    test_images: int
    images: int
    seed: int
    last: dict[str, Any]


@dataclass(frozen=True)
class Size:
    """All seeds of a number of images."""

    images: int
    cells: list[Cell]

    @property
    def accuracies(self) -> list[float]:
        return [cell.last["val_acc"] for cell in self.cells]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def half_width(self) -> float:
        """Of the 95 % interval of the mean, from the spread between the seeds. nan for one seed."""
        return tables.interval(self.accuracies)[1]


@dataclass(frozen=True)
class Curve:
    """All numbers of images of one data set, fewest first."""

    data: str
    sizes: list[Size]

    def summary(self) -> dict[str, Any]:
        sizes = [
            {"images": size.images, "seeds": len(size.cells), "val_acc": size.mean} for size in self.sizes
        ]
        return {"data": self.data, "sizes": sizes}

    def points(self) -> list[Point]:
        """For the fit. The deviation of a mean: that of the seeds, no less than that of the test images."""
        found = []
        for size in self.sizes:
            spread = statistics.stdev(size.accuracies) if len(size.cells) > 1 else 0.0
            error = 1 - size.mean
            of_test = math.sqrt(max(error * (1 - error), 1e-6) / size.cells[0].test_images)
            found.append(Point(size.images, error, max(spread, of_test) / math.sqrt(len(size.cells))))
        return found


def read(folders: list[Path]) -> list[Curve]:
    """The curves of all runs together. The same cell on the same data counts once.

    Raises tables.ResultsError.
    """
    found = [cell for folder in folders for cell in tables.read_metrics(folder, _finished)]
    cells = {(cell.data, cell.images, cell.seed): cell for cell in found}
    curves = []
    for data in dict.fromkeys(data for data, _, _ in cells):
        of_data = [cell for cell in cells.values() if cell.data == data]
        sizes = sorted({cell.images for cell in of_data})
        curves.append(Curve(data, [Size(n, [cell for cell in of_data if cell.images == n]) for n in sizes]))
    return curves


def _finished(about: dict[str, Any], lines: list[dict[str, Any]]) -> list[Cell]:
    data, test_images = about["data"], about["test_images"]
    return [
        Cell(data[line["set"]], test_images[line["set"]], line["images"], line["seed"], line)
        for line in lines
        if line["epoch"] == line["epochs"]
    ]
