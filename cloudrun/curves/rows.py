"""Rows of numbers become one Fit: which count is the x axis, and which values belong to one point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudrun.curves.fit import Fit, Point, metric_name

COUNTS = {  # what can stand on the x axis, best first, and what it is called there
    "epoch": "epoch",
    "iteration": "iteration",
    "iter": "iteration",
    "step": "step",
    "global_step": "step",
}
_NO_METRIC = {*COUNTS, "elapsed_time", "time", "created_at", ""}

Row = Mapping[str, float]


def fit_of(rows: Sequence[Row]) -> Fit | None:
    """One training; rows of the same count are one point, in which later values win. None without a metric.

    Epochs that are counted from 0 are counted from 1 here.
    """
    rows = [row for row in rows if any(name not in _NO_METRIC for name in row)]
    x = _axis(rows)
    merged: dict[float, dict[str, float]] = {}
    for number, row in enumerate(rows, 1):
        values = {metric_name(name): value for name, value in row.items() if name not in _NO_METRIC}
        merged.setdefault(row[x] if x else float(number), {}).update(values)
    if not merged:
        return None
    shift = 1.0 if x == "epoch" and min(merged) == 0 else 0.0
    points = tuple(Point(at + shift, merged[at]) for at in sorted(merged))
    return Fit("", points, x=COUNTS.get(x, "step"))


def _axis(rows: Sequence[Row]) -> str:
    """The first count under which no value would be overwritten by another row; "" where rows have none."""
    present = [name for name in COUNTS if all(name in row for row in rows)]
    for name in present:
        places = [(row[name], metric) for row in rows for metric in row if metric not in _NO_METRIC]
        if len(set(places)) == len(places):
            return name
    return present[0] if present else ""
