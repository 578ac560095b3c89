"""The table: figures beside the published ones. `python table.py OUTPUTS ...` makes it of any runs.

Several seeds are averaged, with a 95 % interval (Student's t, from the spread between the seeds). Below it
stands what batch normalisation changed in the test accuracy, paired by seed: both nets of a pair begin with
the same weights and see the same images in the same order.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import statistics
import sys
from itertools import groupby
from pathlib import Path

import results
from grid import Figures
from results import CellResult

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom (any table of it; 1.96 beyond).
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
Group = tuple[CellResult, ...]  # the same row, data and schedule; one a seed


def write(folder: Path, cells: list[CellResult]) -> None:
    """table.md and table.csv, each replaced as a whole."""
    for name, text in (("table.md", markdown(cells)), ("table.csv", as_csv(cells))):
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)


def markdown(cells: list[CellResult]) -> str:
    """Both tables, for a README."""
    lines = _head("data", "net", "rates", "BN", "schedule", "seeds", *Figures._fields, "published loss, acc",
                  "val_loss, val_acc")  # fmt: skip
    grouped = groups(cells)
    numbers = {data: place for place, data in enumerate(dict.fromkeys(group[0].data for group in grouped), 1)}
    for group in grouped:
        row, published = group[0].row, group[0].row.published
        figures = [_mean_text([getattr(cell.final, name) for cell in group]) for name in Figures._fields]
        lines.append(_line(
            f"{row.data} ({numbers[group[0].data]})", row.net, _rates(group[0]), "yes" if row.bn else "no",
            group[0].schedule, str(len(group)), *figures, f"{published.loss:.4f}, {published.acc:.4f}",
            f"{published.val_loss:.4f}, {published.val_acc:.4f}",
        ))  # fmt: skip
    lines += ["", *(f"({number}) {data}" for data, number in numbers.items()), "", *_differences(grouped)]
    return "\n".join(lines) + "\n"


def as_csv(cells: list[CellResult]) -> str:
    """A line for each cell: what a spreadsheet wants."""
    text = io.StringIO()
    names = [*Figures._fields, *(f"published_{name}" for name in Figures._fields)]
    writer = csv.writer(text, lineterminator="\n")
    settings = ["data", "net", "bn", "rate", "then", "schedule", "seed", "epochs"]
    writer.writerow([*settings, *names, "measured_on"])
    for cell in cells:
        row, figures = cell.row, [f"{value:.5f}" for value in cell.final]
        told = [row.data, row.net, int(row.bn), row.rate, _then(cell), cell.schedule, cell.seed, cell.epochs]
        writer.writerow([*told, *figures, *row.published, cell.data])
    return text.getvalue()


def groups(cells: list[CellResult]) -> list[Group]:
    """Cells that differ in the seed alone."""
    return [tuple(group) for _, group in groupby(cells, key=_key)]


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval (nan for a single value)."""
    if len(values) < 2:
        return values[0], math.nan
    quantile = T95[len(values) - 2] if len(values) - 2 < len(T95) else 1.96
    return statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values))


def _key(cell: CellResult) -> tuple[object, ...]:
    return cell.row, cell.data, cell.epochs, cell.schedule


def _differences(grouped: list[Group]) -> list[str]:
    lines = []
    plain = {_key(group[0]): group for group in grouped if not group[0].row.bn}
    for group in grouped:
        row = group[0].row
        for other in plain.values():
            same = (other[0].row.data, other[0].row.net, other[0].row.rate) == (row.data, row.net, row.rate)
            if row.bn and same and _key(other[0])[1:] == _key(group[0])[1:]:
                lines.append(_difference(group, other))
    head = _head("BN against none, test accuracy", "rates", "schedule", "pairs", "points", "published")
    return [*head, *filter(None, lines)] if any(lines) else []


def _difference(bn: Group, plain: Group) -> str:
    by_seed = {cell.seed: cell.final.val_acc for cell in plain}
    pairs = [100 * (cell.final.val_acc - by_seed[cell.seed]) for cell in bn if cell.seed in by_seed]
    if not pairs:
        return ""
    row = bn[0].row
    mean, half = interval(pairs)
    published = 100 * (row.published.val_acc - plain[0].row.published.val_acc)
    points = f"{mean:+.2f}" + (f" ± {half:.2f}" if half == half else "")
    return _line(
        f"{row.data}, {row.net}", _rates(bn[0]), bn[0].schedule, str(len(pairs)), points, f"{published:+.2f}"
    )


def _mean_text(values: list[float]) -> str:
    mean, half = interval(values)
    return f"{mean:.4f}" + (f" ± {half:.4f}" if half == half else "")


def _rates(cell: CellResult) -> str:
    then = _then(cell)
    return f"{cell.row.rate:g}" if then == cell.row.rate else f"{cell.row.rate:g}, {then:g}"


def _then(cell: CellResult) -> float:
    return cell.row.rate if cell.schedule == "as_run" else cell.row.then


def _line(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


def _head(*names: str) -> list[str]:
    return [_line(*names), "|" + "---|" * len(names)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("outputs", nargs="+", type=Path, help="outputs folders of runs, also unfinished ones")
    parser.add_argument("--csv", action="store_true", help="a line for each cell instead")
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw the curves as well")
    args = parser.parse_args()
    try:
        cells = results.read(args.outputs)
    except results.ResultsError as error:
        print(error, file=sys.stderr)
        return 1
    print(as_csv(cells) if args.csv else markdown(cells), end="")
    if args.figure:
        import figure  # on use: matplotlib takes half a second

        figure.draw(args.figure, cells)
    return 0


if __name__ == "__main__":
    sys.exit(main())
