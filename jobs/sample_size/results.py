"""What runs have left: the lines of their metrics.jsonl, gathered by data set, number of images and seed."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fit import Point

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom (any table of it; 1.96 beyond).
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


class ResultsError(Exception):
    """A folder holds no metrics of this job."""


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
        count = len(self.cells)
        if count < 2:
            return math.nan
        quantile = T95[count - 2] if count - 2 < len(T95) else 1.96
        return quantile * statistics.stdev(self.accuracies) / math.sqrt(count)


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
    """The curves of all runs together. The same cell on the same data counts once."""
    cells = {(cell.data, cell.images, cell.seed): cell for folder in folders for cell in _read_folder(folder)}
    curves = []
    for data in dict.fromkeys(data for data, _, _ in cells):
        of_data = [cell for cell in cells.values() if cell.data == data]
        sizes = sorted({cell.images for cell in of_data})
        curves.append(Curve(data, [Size(n, [cell for cell in of_data if cell.images == n]) for n in sizes]))
    return curves


def _read_folder(folder: Path) -> list[Cell]:
    file = folder / "metrics.jsonl"
    try:
        first, *lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        about = first["about"]
        done = [line for line in lines if line["epoch"] == line["epochs"]]
        return [
            Cell(
                about["data"][line["set"]],
                about["test_images"][line["set"]],
                line["images"],
                line["seed"],
                line,
            )
            for line in done
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{file} holds no metrics of this job: {error!r}") from error
