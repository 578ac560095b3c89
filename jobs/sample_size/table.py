"""The table and the fitted law: `python table.py OUTPUTS ...` makes both of any runs, and the curve."""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from pathlib import Path

import fit
import results
from results import Curve, Size


def write(folder: Path, curves: list[Curve]) -> None:
    """table.md and table.csv, each replaced as a whole."""
    for name, text in (("table.md", markdown(curves)), ("table.csv", as_csv(curves))):
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)


def markdown(curves: list[Curve]) -> str:
    """A column for each data set, and below what the power law says of each."""
    images = sorted({size.images for curve in curves for size in curve.sizes})
    lines = [_line("training images", *(f"test accuracy ({n})" for n, _ in enumerate(curves, 1)), "seeds")]
    lines.append("|" + "---|" * (len(curves) + 2))
    for count in images:
        found = [next((size for size in curve.sizes if size.images == count), None) for curve in curves]
        seeds = ", ".join(dict.fromkeys(str(len(size.cells)) for size in found if size))
        lines.append(_line(f"{count:,}", *map(_accuracy, found), seeds))
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("loss", "acc", "val_loss", "val_acc")
    writer.writerow(["images", "seed", "epochs", *names, "measured_on"])
    for curve in curves:
        for cell in (cell for size in curve.sizes for cell in size.cells):
            figures = [f"{cell.last[name]:.5f}" for name in names]
            writer.writerow([cell.images, cell.seed, cell.last["epochs"], *figures, cell.data])
    return text.getvalue()


def _accuracy(size: Size | None) -> str:
    if size is None:
        return ""
    half = f" ± {size.half_width:.2%}" if size.half_width == size.half_width else ""
    return f"{size.mean:.2%}{half}"


def _line(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("outputs", nargs="+", type=Path, help="outputs folders of runs, also unfinished ones")
    parser.add_argument("--csv", action="store_true", help="a line for each training instead")
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw the curve as well")
    args = parser.parse_args()
    try:
        curves = results.read(args.outputs)
    except results.ResultsError as error:
        print(error, file=sys.stderr)
        return 1
    print(as_csv(curves) if args.csv else markdown(curves), end="")
    if args.figure:
        import figure  # on use: matplotlib takes half a second

        figure.draw(args.figure, curves)
    return 0


if __name__ == "__main__":
    sys.exit(main())
