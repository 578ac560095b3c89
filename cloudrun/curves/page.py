"""Curves as one HTML file that needs no other: the picture, last and best values, and all numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from cloudrun.curves.fit import Fit
from cloudrun.curves.panels import Panel
from cloudrun.curves.picture import PALETTE, save_picture

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2329; background: #fff; max-width: 76rem;
       margin: 2rem auto; padding: 0 1.25rem; }
svg { width: 100%; height: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid #d8dde2; }
th { color: #5f6b76; font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
.key { display: inline-block; width: 1.4em; height: .3em; margin-right: .6em; vertical-align: middle; }
summary { cursor: pointer; color: #0072b2; }
@media print { details { display: none; } body { margin: 0; } }
"""


def make_page(panels: Sequence[Panel], fits: Sequence[Fit], *, title: str) -> str:
    """The page. The same curves give the same page. Raises UsageError where matplotlib is not installed."""
    svg = save_picture(panels, fits, title=title, kind="svg").decode()
    body = "\n".join([
        svg[svg.index("<svg") :],
        _summary(panels, fits),
        *(_numbers(fit) for fit in fits),
    ])  # fmt: skip
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _summary(panels: Sequence[Panel], fits: Sequence[Fit]) -> str:
    """A row for each curve: its last value, its best, and where that was."""
    rows = []
    for panel in panels:
        for curve in panel.curves:
            fit = fits[curve.fit]
            best = _best(panel, curve.finite)
            key = f'<span class="key" style="background: {PALETTE[curve.fit % len(PALETTE)]}"></span>'
            name = (key if len(fits) > 1 else "") + escape(fit.title)
            at = f"{best[0]:g}" if best else ""
            shown = panel.label(best[1]) if best else ""
            rows.append([name, escape(curve.name), panel.label(curve.last), shown, f"{escape(fit.x)} {at}"])
    return _table(["training", "metric", "last", "best", "at"], rows)


def _best(panel: Panel, points: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """The highest accuracy or score, the lowest loss or error."""
    if not points:
        return None
    falling = any(word in panel.title for word in ("loss", "err", "mse", "mae", "ppl", "perplexity", "wer"))
    return min(points, key=lambda point: point[1] if falling else -point[1])


def _numbers(fit: Fit) -> str:
    rows = [
        [f"{point.x:g}", *(_number(point.values.get(name)) for name in fit.names)] for point in fit.points
    ]
    table = _table([escape(name) for name in (fit.x, *fit.names)], rows)
    return f"<details><summary>All numbers of {escape(fit.title)}</summary>{table}</details>"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if math.isfinite(value) else str(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in header)
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
