"""Aligned tables that fit the screen: columns shrink, then go, the least important first. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudrun.cli.text import cut, pad, width

GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Low `rank` stays longest; `least` is the narrowest that a shrinking column gets
    (0: never cut); an `optional` column whose cells are all empty is left out."""

    title: str
    rank: int
    right: bool = False
    least: int = 0
    optional: bool = False


def layout(columns: Sequence[Column], rows: Sequence[Sequence[str]], columns_wide: int) -> list[list[str]]:
    """Header and rows as padded cells (the cells of dropped columns are gone), to be joined by GAP spaces."""
    kept = [i for i, column in enumerate(columns) if not (column.optional and _empty(rows, i))]
    widths = {i: max([width(columns[i].title), *(width(row[i]) for row in rows)]) for i in kept}
    while _total(widths) > columns_wide:
        if _shrink(columns, widths, columns_wide):
            continue
        worst = max(kept, key=lambda i: columns[i].rank)
        if len(kept) == 1 or columns[worst].rank == 0:
            break
        kept.remove(worst)
        del widths[worst]
        widths = {i: max([width(columns[i].title), *(width(row[i]) for row in rows)]) for i in kept}
    header = [column.title for column in columns]
    return [[_cell(columns[i], row[i], widths[i]) for i in kept] for row in [header, *rows]]


def lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], columns_wide: int) -> list[str]:
    """The table as lines without trailing spaces."""
    return [(" " * GAP).join(cells).rstrip() for cells in layout(columns, rows, columns_wide)]


def _shrink(columns: Sequence[Column], widths: dict[int, int], columns_wide: int) -> bool:
    """Take the missing columns from shrinkable ones, the least important first; False when that cannot do."""
    spare = {i: widths[i] - columns[i].least for i in widths if 0 < columns[i].least < widths[i]}
    missing = _total(widths) - columns_wide
    if sum(spare.values()) < missing:
        return False
    for i in sorted(spare, key=lambda i: -columns[i].rank):
        taken = min(spare[i], missing)
        widths[i] -= taken
        missing -= taken
    return True


def _empty(rows: Sequence[Sequence[str]], i: int) -> bool:
    return all(not row[i] for row in rows)


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _cell(column: Column, text: str, columns: int) -> str:
    return pad(cut(text, columns), columns, right=column.right)
