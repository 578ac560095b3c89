"""Logs that are tables already: our metrics.jsonl, chainer's LogReport, CSV, printed columns."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from cloudrun.curves.fit import Fit
from cloudrun.curves.rows import COUNTS, Row, fit_of

_COLUMNS = re.compile(r"^\s*(?:epoch|iteration|step)(?:\s+[A-Za-z_][\w/.-]*){1,}\s*$")


def read_json_lines(text: str) -> list[Fit]:
    """One object a line, as our metrics.jsonl; {"about": ...} and a last line that was cut are passed over.

    What stands in a nested object is no curve: in ours, "timing".
    """
    found = fit_of([_numbers(entry) for line in text.splitlines() if isinstance(entry := _loads(line), dict)])
    return [found] if found else []


def read_log_report(entries: Sequence[Any]) -> list[Fit]:
    """chainer's LogReport: a list of objects with epoch, iteration, main/loss, validation/main/loss."""
    found = fit_of([_numbers(entry) for entry in entries if isinstance(entry, dict)])
    return [found] if found else []


def read_csv(text: str) -> list[Fit]:
    """A header with "epoch" or "step", and a row at each point, cells that do not apply empty.

    Lightning writes training and validation in rows of their own, and both X_step and X_epoch: of these the
    epoch's is taken.
    """
    table = csv.DictReader(line for line in text.splitlines() if line.strip())
    rows = [_cells(row) for row in table]
    names = {name for row in rows for name in row}
    twice = {name.removesuffix("_epoch") for name in names if name.endswith("_epoch")}
    twice = {name for name in twice if f"{name}_step" in names}
    found = fit_of([_without_steps(row, twice) for row in rows])
    return [found] if found else []


def read_columns(lines: Sequence[str]) -> list[Fit]:
    """A printed table, as chainer's PrintReport and fastai's: a line of names, then lines of numbers."""
    names: list[str] = []
    rows: list[Row] = []
    for line in lines:
        if _COLUMNS.match(line):
            names = line.split()
            continue
        cells = [_number(cell) for cell in line.split()]
        if names and 1 < len(cells) <= len(names) and cells[0] is not None:
            rows.append({name: cell for name, cell in zip(names, cells, strict=False) if cell is not None})
    found = fit_of(rows)
    return [found] if found else []


def is_csv(lines: Sequence[str]) -> bool:
    """Is the first line a header with a column to count by?"""
    header = [cell.strip().strip('"') for cell in lines[0].split(",")]
    return len(header) > 1 and any(name in header for name in COUNTS)


def is_columns(lines: Sequence[str]) -> bool:
    """Is there a line of names, the first of them a count, with a line of numbers below it?"""
    return any(
        _COLUMNS.match(line) and _number(after.split()[0]) is not None for line, after in pairwise(lines)
    )


def _cells(row: Mapping[str | None, Any]) -> dict[str, float]:
    return {
        name.strip(): value for name, cell in row.items() if name and (value := _number(cell)) is not None
    }


def _without_steps(row: Row, twice: set[str]) -> Row:
    """Where there is both loss_step and loss_epoch: the epoch's, under the plain name."""
    kept = {name: value for name, value in row.items() if name.removesuffix("_step") not in twice}
    return {_plain(name, twice): value for name, value in kept.items()}


def _plain(name: str, twice: set[str]) -> str:
    short = name.removesuffix("_epoch")
    return short if short in twice else name


def _numbers(entry: Mapping[str, Any]) -> Row:
    """The numbers of an object: no nested ones, no truth values."""
    return {
        str(name): float(value)
        for name, value in entry.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _number(cell: object) -> float | None:
    try:
        return float(cell) if isinstance(cell, str) and cell.strip() else None
    except ValueError:
        return None


def _loads(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
