"""What runs have left: the lines of their metrics.jsonl, gathered by cell. Runs of several folders add up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grid import AS_RUN, ROWS, TRUNK, Figures, Row
from shared import tables

BY_NAME = {row.name: row for row in ROWS}


@dataclass(frozen=True)
class CellResult:
    """One cell's curve. `data` says in words what it was measured on."""

    row: Row
    schedule: str
    seed: int
    data: str
    epochs: int  # it has when it is done
    lines: list[dict[str, Any]]  # one an epoch

    @property
    def done(self) -> bool:
        return len(self.lines) == self.epochs

    @property
    def final(self) -> Figures:
        """Of the last epoch, as published. Not a number where training blew up."""
        last = self.lines[-1]
        return Figures(*(float("nan") if last[name] is None else last[name] for name in Figures._fields))

    def summary(self) -> dict[str, Any]:
        last = self.lines[-1]
        return {
            "row": self.row.name, "schedule": self.schedule, "seed": self.seed, "data": self.data,
            "epochs": len(self.lines), **{name: last[name] for name in Figures._fields},
            "published": self.row.published._asdict(),
        }  # fmt: skip


def read(folders: list[Path]) -> list[CellResult]:
    """All cells that are done, in the order of the table. The same cell on the same data counts once.

    Raises tables.ResultsError.
    """
    found: dict[tuple[object, ...], CellResult] = {}
    for folder in folders:
        for cell in tables.read_metrics(folder, _cells):
            if cell.done:
                found[cell.row, cell.data, cell.epochs, cell.schedule, cell.seed] = cell
    return sorted(found.values(), key=_place)


def seconds_trained(lines: list[dict[str, Any]]) -> float:
    """All epochs, each once: a trunk's stand in the curve of every cell that shares it, one after another."""
    seconds, before = 0.0, None
    for line in lines:
        what = {name: value for name, value in line.items() if name not in ("cell", "epochs")}
        seconds += 0 if what == before else line["timing"]["seconds"]
        before = what
    return seconds


def _place(cell: CellResult) -> tuple[object, ...]:
    return ROWS.index(cell.row), cell.data, cell.schedule == AS_RUN, cell.seed


def _cells(about: dict[str, Any], lines: list[dict[str, Any]]) -> list[CellResult]:
    curves: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        curves.setdefault(line["cell"], []).append(line)
    return [_cell(name, curve, about["data"]) for name, curve in curves.items() if f"/{TRUNK}/" not in name]


def _cell(name: str, lines: list[dict[str, Any]], data: dict[str, str]) -> CellResult:
    row_name, schedule, seed = name.split("/")
    row, number = BY_NAME[row_name], int(seed.removeprefix("seed"))
    return CellResult(row, schedule, number, data[row.data], lines[0]["epochs"], lines)
