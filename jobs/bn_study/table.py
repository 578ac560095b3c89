"""The table: figures beside the published ones. `python table.py OUTPUTS ...` makes it of any runs.

Several seeds are averaged, with a 95 % interval (Student's t, from the spread between the seeds). Below it
stands what batch normalisation changed in the test accuracy, paired by seed: both nets of a pair begin with
the same weights and see the same images in the same order.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

if not (Path(__file__).parent / "shared").is_dir():  # not in a bundle: the modules are in jobs/shared
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import results
from grid import AS_RUN, Figures
from results import CellResult
from shared import tables

Group = tuple[CellResult, ...]  # the same row, data and schedule; one a seed


def write(folder: Path, cells: list[CellResult]) -> None:
    """table.md and table.csv."""
    tables.write(folder, {"table.md": markdown(cells), "table.csv": as_csv(cells)})


def markdown(cells: list[CellResult]) -> str:
    """Both tables, for a README."""
    settings = ("data", "net", "rates", "BN", "schedule", "seeds")
    lines = tables.head(*settings, *Figures._fields, "published loss, acc", "val_loss, val_acc")
    grouped = groups(cells)
    numbers = {data: place for place, data in enumerate(dict.fromkeys(group[0].data for group in grouped), 1)}
    for group in grouped:
        row, published = group[0].row, group[0].row.published
        figures = [_mean(group, name) for name in Figures._fields]
        lines.append(tables.line(
            f"{row.data} ({numbers[group[0].data]})", row.net, _rates(group[0]), "yes" if row.bn else "no",
            group[0].schedule, str(len(group)), *figures, f"{published.loss:.4f}, {published.acc:.4f}",
            f"{published.val_loss:.4f}, {published.val_acc:.4f}",
        ))  # fmt: skip
    lines += ["", *(f"({number}) {data}" for data, number in numbers.items()), "", *_differences(grouped)]
    return "\n".join(lines) + "\n"


def as_csv(cells: list[CellResult]) -> str:
    """A line for each cell: what a spreadsheet wants."""
    figures = Figures._fields
    names = ["data", "net", "bn", "rate", "then", "schedule", "seed", "epochs", *figures]
    rows = []
    for cell in cells:
        row = cell.row
        told = [row.data, row.net, int(row.bn), row.rate, _then(cell), cell.schedule, cell.seed, cell.epochs]
        rows.append([*told, *(f"{value:.5f}" for value in cell.final), *row.published, cell.data])
    return tables.as_csv([*names, *(f"published_{name}" for name in figures), "measured_on"], rows)


def groups(cells: list[CellResult]) -> list[Group]:
    """Cells that differ in the seed alone."""
    return [tuple(group) for _, group in groupby(cells, key=_key)]


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
    head = tables.head("BN against none, test accuracy", "rates", "schedule", "pairs", "points", "published")
    return [*head, *filter(None, lines)] if any(lines) else []


def _difference(bn: Group, plain: Group) -> str:
    by_seed = {cell.seed: cell.final.val_acc for cell in plain}
    pairs = [100 * (cell.final.val_acc - by_seed[cell.seed]) for cell in bn if cell.seed in by_seed]
    if not pairs:
        return ""
    row = bn[0].row
    mean, half = tables.interval(pairs)
    published = 100 * (row.published.val_acc - plain[0].row.published.val_acc)
    points = tables.shown(mean, half, ".2f", sign="+")
    return tables.line(
        f"{row.data}, {row.net}", _rates(bn[0]), bn[0].schedule, str(len(pairs)), points, f"{published:+.2f}"
    )


def _mean(group: Group, name: str) -> str:
    return tables.shown(*tables.interval([getattr(cell.final, name) for cell in group]), ".4f")


def _rates(cell: CellResult) -> str:
    then = _then(cell)
    return f"{cell.row.rate:g}" if then == cell.row.rate else f"{cell.row.rate:g}, {then:g}"


def _then(cell: CellResult) -> float:
    return cell.row.rate if cell.schedule == AS_RUN else cell.row.then


def _draw(file: Path, cells: list[CellResult]) -> None:
    import figure  # on use: matplotlib takes half a second

    figure.draw(file, cells)


def main() -> int:
    text = __doc__.splitlines()[0]
    return tables.command(text, read=results.read, markdown=markdown, as_csv=as_csv, draw=_draw)


if __name__ == "__main__":
    sys.exit(main())
