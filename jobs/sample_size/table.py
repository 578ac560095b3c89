"""The table and the fitted law: `python table.py OUTPUTS ...` makes both of any runs, and the curve."""

from __future__ import annotations

import math
import sys
from pathlib import Path

if not (Path(__file__).parent / "shared").is_dir():  # not in a bundle: the modules are in jobs/shared
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import fit
import results
from results import Curve, Size
from shared import tables


def write(folder: Path, curves: list[Curve]) -> None:
    """table.md and table.csv."""
    tables.write(folder, {"table.md": markdown(curves), "table.csv": as_csv(curves)})


def markdown(curves: list[Curve]) -> str:
    """A column for each data set, and below what the power law says of each."""
    images = sorted({size.images for curve in curves for size in curve.sizes})
    accuracies = (f"test accuracy ({number})" for number, _ in enumerate(curves, 1))
    lines = tables.head("training images", *accuracies, "seeds")
    for count in images:
        found = [next((size for size in curve.sizes if size.images == count), None) for curve in curves]
        seeds = ", ".join(dict.fromkeys(str(len(size.cells)) for size in found if size))
        lines.append(tables.line(f"{count:,}", *map(_accuracy, found), seeds))
    notes = [f"({number}) {curve.data}. {law_in_words(curve)}" for number, curve in enumerate(curves, 1)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def law_in_words(curve: Curve) -> str:
    """The law, each parameter with its standard error, and what the next point of accuracy costs."""
    try:
        law = fit.fit(curve.points())
    except ValueError as error:
        return f"No law: {error}."
    (a, b, c), deviations = law.values, [math.sqrt(law.covariance[n, n]) for n in range(3)]
    floor = f" + {c:.4f}(±{deviations[2]:.4f})" if law.has_floor else ", no floor to be seen"
    words = f"error = {a:.4f}(±{deviations[0]:.4f}) (n / 1000)^-{b:.3f}(±{deviations[1]:.3f}){floor}."
    return f"{words} {fit.next_point(law, curve.sizes[-1].images)}"


def as_csv(curves: list[Curve]) -> str:
    """A line for each training."""
    names = ("loss", "acc", "val_loss", "val_acc")
    rows = []
    for cell in (cell for curve in curves for size in curve.sizes for cell in size.cells):
        figures = (f"{cell.last[name]:.5f}" for name in names)
        rows.append([cell.images, cell.seed, cell.last["epochs"], *figures, cell.data])
    return tables.as_csv(["images", "seed", "epochs", *names, "measured_on"], rows)


def _accuracy(size: Size | None) -> str:
    return tables.shown(size.mean, size.half_width, ".2%") if size else ""


def _draw(file: Path, curves: list[Curve]) -> None:
    import figure  # on use: matplotlib takes half a second

    figure.draw(file, curves)


def main() -> int:
    text = __doc__.splitlines()[0]
    return tables.command(text, read=results.read, markdown=markdown, as_csv=as_csv, draw=_draw)


if __name__ == "__main__":
    sys.exit(main())
