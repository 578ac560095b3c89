"""Bars as SVG that takes its colours from the page around it: light, dark and on paper. Pure functions.

Heights and widths are in the units of the picture's own box; the page scales it. Amounts are Decimal; a label
is whatever the caller makes of an amount.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from html import escape

Label = Callable[[Decimal], str]

WIDTH, HEIGHT = 720, 260
LEFT, TOP, BOTTOM = 64, 12, 30  # room for the scale, and for the names below
BAR, GAP, NAME = 22, 12, 190  # of lying bars
AMOUNT = 90  # room for the amount behind a lying bar
TICKS = 4
ROUND = ("1", "1.2", "1.6", "2", "2.4", "3.2", "4", "6", "8", "10")
COLOURS = 7  # c0 to c6 of the page's style
LEAST_LABEL = 62  # between two names below the columns
HALF_LETTER = 3.6  # of the widest common fonts


def columns(names: Sequence[str], series: Mapping[str, Sequence[Decimal]], label: Label) -> str:
    """Standing bars, one a name, its series on top of one another; each tells its figures when pointed at."""
    totals = [sum((values[i] for values in series.values()), Decimal(0)) for i in range(len(names))]
    top = _round_up(max(totals, default=Decimal(0)))
    high = HEIGHT - TOP - BOTTOM
    step = (WIDTH - LEFT) / max(1, len(names))
    wide = min(56.0, step * 0.78)
    parts = _scale(top, high, label)
    every = max(1, math.ceil(LEAST_LABEL / step))
    for i, name in enumerate(names):
        x = LEFT + step * i + (step - wide) / 2
        below = Decimal(0)
        for number, (key, values) in enumerate(series.items()):
            value = values[i]
            if value > 0:
                y = TOP + high * float(1 - (below + value) / top)
                parts.append(
                    _bar(x, y, wide, high * float(value / top), number, f"{name}, {key}: {label(value)}")
                )
                below += value
        if (len(names) - 1 - i) % every == 0:
            middle = min(x + wide / 2, WIDTH - HALF_LETTER * len(name))  # the last one stays within
            parts.append(_text(middle, HEIGHT - 10, name, "middle"))
    return _svg(WIDTH, HEIGHT, parts)


def bars(rows: Sequence[tuple[str, Decimal]], label: Label) -> str:
    """Lying bars, one a row, with its name before and its amount behind."""
    most = max((value for _, value in rows), default=Decimal(0)) or Decimal(1)
    room = WIDTH - NAME - AMOUNT
    parts = []
    for i, (name, value) in enumerate(rows):
        y = GAP / 2 + i * (BAR + GAP)
        wide = room * float(max(Decimal(0), value) / most)
        parts += [
            _text(NAME - 10, y + BAR * 0.7, _short(name), "end"),
            _bar(NAME, y, wide, BAR, 0, f"{name}: {label(value)}"),
            _text(NAME + wide + 8, y + BAR * 0.7, label(value), "start", "amount"),
        ]
    return _svg(WIDTH, len(rows) * (BAR + GAP), parts)


def pairs(rows: Sequence[tuple[str, Decimal, Decimal]], label: Label) -> str:
    """Two thin bars a row, the second in outline: (name, amount, what it is compared with)."""
    most = max((max(one, other) for _, one, other in rows), default=Decimal(0)) or Decimal(1)
    room, thin = WIDTH - NAME - AMOUNT, BAR * 0.62
    parts = []
    for i, (name, one, other) in enumerate(rows):
        y = GAP / 2 + i * (2 * thin + GAP)
        parts.append(_text(NAME - 10, y + thin * 1.2, _short(name), "end"))
        for number, value in enumerate((one, other)):
            wide, at = room * float(value / most), y + number * thin
            parts += [
                _bar(NAME, at, wide, thin - 2, 2 if number == 0 else COLOURS, f"{name}: {label(value)}"),
                _text(NAME + wide + 8, at + thin * 0.75, label(value), "start", "amount"),
            ]
    return _svg(WIDTH, len(rows) * (2 * thin + GAP), parts)


def legend(keys: Sequence[str]) -> str:
    """What the colours of `columns` mean."""
    items = [f'<span><i class="k c{i % COLOURS}"></i>{escape(key)}</span>' for i, key in enumerate(keys)]
    return f'<p class="legend">{"".join(items)}</p>'


def _scale(top: Decimal, high: float, label: Label) -> list[str]:
    parts = []
    for i in range(TICKS + 1):
        y = TOP + high * (1 - i / TICKS)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 8, y + 4, label(top * i / TICKS) if i else "0", "end"))
    return parts


def _round_up(value: Decimal) -> Decimal:
    """The least round number that is not below and whose quarters read well."""
    if value <= 0:
        return Decimal(1)
    power = Decimal(10) ** value.adjusted()
    return next(power * Decimal(factor) for factor in ROUND if power * Decimal(factor) >= value)


def _bar(x: float, y: float, wide: float, high: float, colour: int, title: str) -> str:
    name = "compared" if colour == COLOURS else f"c{colour % COLOURS}"
    size = f'width="{max(wide, 0.5):.1f}" height="{max(high, 0.5):.1f}"'
    return (
        f'<rect class="{name}" x="{x:.1f}" y="{y:.1f}" {size} rx="1.5"><title>{escape(title)}</title></rect>'
    )


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(name: str) -> str:
    """Beginning and end, which tells names apart that end in a time; pointed at, the bar says it whole."""
    most, end = 23, 8
    return name if len(name) <= most else f"{name[: most - end - 1]}…{name[-end:]}"


def _svg(wide: int, high: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {wide} {max(high, 1):.0f}" role="img">\n' + "\n".join(parts) + "\n</svg>"
