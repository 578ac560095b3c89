"""Curves drawn with letters, where there is no screen: lines of (text, colour name), from 40 columns on.

Validation is a solid stroke and training a broken one. Of several trainings each ends in its letter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cloudrun.curves.canvas import Canvas, log_ticks, ticks
from cloudrun.curves.fit import Fit
from cloudrun.curves.panels import Curve, Panel

Piece = tuple[str, str]
Line = list[Piece]

ROWS = 12  # of a panel's canvas
LEAST_COLUMNS = 40
TWO_FROM = 110  # so wide, two panels stand side by side
GAP = 4
COLOURS = ("blue", "yellow", "green", "red")  # by training; letters tell them apart without colours
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def draw_lines(
    panels: Sequence[Panel], fits: Sequence[Fit], columns: int, *, unicode: bool = True
) -> list[Line]:
    """Every panel, and the legend of several trainings. No line is wider than `columns` (40 at least)."""
    columns = max(columns, LEAST_COLUMNS)
    beside = 2 if columns >= TWO_FROM and len(panels) > 1 else 1
    wide = (columns - GAP * (beside - 1)) // beside
    blocks = [_panel(panel, fits, wide, unicode=unicode) for panel in panels]
    found: list[Line] = []
    for start in range(0, len(blocks), beside):
        found += [*([[]] if found else []), *_side_by_side(blocks[start : start + beside], wide)]
    return found + _legend(fits, columns)


def text_of(line: Line) -> str:
    return "".join(text for text, _ in line)


def _panel(panel: Panel, fits: Sequence[Fit], columns: int, *, unicode: bool) -> list[Line]:
    heading = panel.title.replace("_", " ") + (" (log scale)" if panel.log_scale else "")
    points = [point for curve in panel.curves for point in curve.finite]
    if not points:
        return [[(heading, "bold")], *_keys(panel, fits, columns, unicode=unicode)]
    scale = _Scale(panel, points)
    marks = scale.y_ticks()
    margin = max(len(label) for _, label in marks) + 1
    canvas = Canvas(columns - margin - 1, ROWS, braille=unicode)
    for curve in panel.curves:
        _curve(canvas, scale, curve, many=len(fits) > 1)
    return [
        [(heading[:columns], "bold")],
        *_with_y_axis(canvas, marks, margin, unicode=unicode),
        *_x_axis(canvas, scale, margin, fits[panel.curves[0].fit].x, unicode=unicode),
        *_keys(panel, fits, columns, unicode=unicode),
    ]


class _Scale:
    """Where a value lies between 0 and 1, in both directions."""

    def __init__(self, panel: Panel, points: Sequence[tuple[float, float]]) -> None:
        self.panel = panel
        xs, ys = [x for x, _ in points], [y for _, y in points]
        self.left, self.right = min(xs), max(xs)
        self.low, self.high = min(ys), max(ys)
        if self.low == self.high:
            self.low, self.high = self.low - (abs(self.low) or 1) / 10, self.high + (abs(self.high) or 1) / 10

    def x(self, value: float) -> float:
        return (value - self.left) / (self.right - self.left) if self.right > self.left else 0.5

    def y(self, value: float) -> float:
        if self.panel.log_scale:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def y_ticks(self) -> list[tuple[float, str]]:
        most = ROWS // 2
        found = (log_ticks if self.panel.log_scale else ticks)(self.low, self.high, most)
        return [(self.y(value), self._label(value)) for value in found]

    def _label(self, value: float) -> str:
        return f"{100 * value:.3g}%" if self.panel.percent else f"{value:.4g}"

    def x_ticks(self, most: int) -> list[tuple[float, str]]:
        """The ends, then the round numbers between them."""
        found = [value for value in ticks(self.left, self.right, most) if value == round(value)]
        values = dict.fromkeys([self.left, self.right, *found])
        return [(self.x(value), f"{value:g}") for value in values]


def _curve(canvas: Canvas, scale: _Scale, curve: Curve, *, many: bool) -> None:
    colour = _colour(curve, many=many)
    letter = LETTERS[curve.fit % len(LETTERS)] if many else ("o" if curve.validation else ".")
    stretch: list[tuple[float, float]] = []
    for x, y in [*curve.points, (math.nan, math.nan)]:
        if math.isfinite(y):
            stretch.append((scale.x(x), scale.y(y)))
            continue
        canvas.draw(stretch, colour=colour, broken=not curve.validation, letter=letter)
        stretch = []
    if many and curve.finite:
        x, y = curve.finite[-1]
        canvas.mark((scale.x(x), scale.y(y)), letter, colour)


def _colour(curve: Curve, *, many: bool) -> str:
    if many:
        return COLOURS[curve.fit % len(COLOURS)]
    return "blue" if curve.validation else "dim"


def _with_y_axis(canvas: Canvas, marks: list[tuple[float, str]], margin: int, *, unicode: bool) -> list[Line]:
    labels = {canvas.row_of(height): label for height, label in marks}
    line, tick = ("│", "┤") if unicode else ("|", "+")
    return [
        [(f"{labels.get(row, ''):>{margin - 1}} {tick if row in labels else line}", "dim"), *pieces]
        for row, pieces in enumerate(canvas.lines())
    ]


def _x_axis(canvas: Canvas, scale: _Scale, margin: int, name: str, *, unicode: bool) -> list[Line]:
    """The line with its marks, and below it the name and the numbers that find room."""
    corner, line, tick = ("└", "─", "┬") if unicode else ("+", "-", "+")
    rule, numbers = [line] * canvas.columns, [" "] * canvas.columns
    for order, (place, number) in enumerate(scale.x_ticks(max(2, canvas.columns // 12))):
        column = canvas.column_of(place)
        label = number if order else f"{name} {number}"
        start = 0 if not order else min(column - len(label) // 2, canvas.columns - len(label))
        if any(letter != " " for letter in numbers[max(0, start - 2) : start + len(label) + 2]):
            continue
        rule[column] = tick
        numbers[start : start + len(label)] = label
    return [
        [(" " * margin + corner + "".join(rule), "dim")],
        [(" " * (margin + 1) + "".join(numbers).rstrip(), "dim")],
    ]


def _keys(panel: Panel, fits: Sequence[Fit], columns: int, *, unicode: bool) -> list[Line]:
    """What each stroke is, and its last value; of several trainings, a line each."""
    many = len(fits) > 1
    by_fit: dict[int, list[Piece]] = {}
    for curve in panel.curves:
        pieces = by_fit.setdefault(curve.fit, [])
        stroke = _stroke(curve, many=many, unicode=unicode)
        text = f"{stroke} {curve.set_name} {panel.label(curve.last)}"
        if curve.broken_at is not None:
            text += f" (nan from {curve.broken_at:g})"
        pieces.append((("   " if pieces else "  ") + text, _colour(curve, many=many)))
    if not many:
        return [_cut(pieces, columns) for pieces in by_fit.values()]
    return [
        _cut([(f"  {LETTERS[index % len(LETTERS)]}", COLOURS[index % len(COLOURS)]), *pieces], columns)
        for index, pieces in by_fit.items()
    ]


def _stroke(curve: Curve, *, many: bool, unicode: bool) -> str:
    if unicode:
        return "━━" if curve.validation else "╍╍"
    return "" if many else "o" if curve.validation else "."


def _legend(fits: Sequence[Fit], columns: int) -> list[Line]:
    """Letters and titles of several trainings."""
    if len(fits) == 1:
        return []
    return [
        [],
        *(
            _cut(
                [(f"  {LETTERS[index % len(LETTERS)]}  {fit.title}", COLOURS[index % len(COLOURS)])], columns
            )
            for index, fit in enumerate(fits)
        ),
    ]


def _side_by_side(blocks: list[list[Line]], wide: int) -> list[Line]:
    found = []
    for row in range(max(len(block) for block in blocks)):
        line: Line = []
        for number, block in enumerate(blocks):
            piece = block[row] if row < len(block) else []
            space = wide - len(text_of(piece)) if number < len(blocks) - 1 else 0
            line += [*piece, (" " * (space + GAP), "")] if space else piece
        found.append(line)
    return found


def _cut(line: Line, columns: int) -> Line:
    kept: Line = []
    for text, colour in line:
        kept.append((text[:columns], colour))
        columns -= len(text)
        if columns <= 0:
            break
    return kept
