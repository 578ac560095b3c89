"""Lines drawn with characters: eight braille dots to a cell, or one letter where there is no Unicode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

Dot = tuple[float, float]

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # bits of a braille cell by column and row
_BRAILLE = 0x2800
_ON, _PERIOD = 3, 6  # dots of a broken stroke that are drawn, of so many


class Canvas:
    """A grid of cells. (0, 0) is the left lower corner and (1, 1) the right upper one."""

    def __init__(self, columns: int, rows: int, *, braille: bool) -> None:
        self.columns, self.rows, self.braille = columns, rows, braille
        self._wide, self._high = (2 * columns, 4 * rows) if braille else (columns, rows)
        self._bits = [[0] * columns for _ in range(rows)]
        self._letters = [[""] * columns for _ in range(rows)]
        self._colours = [[""] * columns for _ in range(rows)]

    def draw(self, points: Iterable[Dot], *, colour: str, broken: bool = False, letter: str = "*") -> None:
        """A stroke through the points. letter: what stands for a dot where there is no braille."""
        path = [self._place(point) for point in points]
        dots = [path[0], *(dot for pair in pairwise(path) for dot in _between(*pair))] if path else []
        for number, (x, y) in enumerate(dots):
            if broken and self.braille and number % _PERIOD >= _ON:
                continue
            self._set(x, y, colour, letter)

    def mark(self, point: Dot, letter: str, colour: str) -> None:
        """A letter over whatever is drawn there."""
        x, y = self._place(point)
        row, column = self._cell(x, y)
        self._letters[row][column], self._colours[row][column] = letter, colour

    def lines(self) -> Iterator[list[tuple[str, str]]]:
        """From the top: pieces of equal colour, as (text, colour)."""
        for row in range(self.rows):
            pieces: list[tuple[str, str]] = []
            for column in range(self.columns):
                bits = self._bits[row][column]
                text = self._letters[row][column] or (chr(_BRAILLE + bits) if bits else " ")
                colour = self._colours[row][column]
                if pieces and pieces[-1][1] == colour:
                    pieces[-1] = (pieces[-1][0] + text, colour)
                else:
                    pieces.append((text, colour))
            yield pieces

    def row_of(self, height: float) -> int:
        """The row, from the top, in which that height lies."""
        return self._cell(0, self._place((0, height))[1])[0]

    def column_of(self, x: float) -> int:
        return self._cell(self._place((x, 0))[0], 0)[1]

    def _place(self, point: Dot) -> tuple[int, int]:
        return round(point[0] * (self._wide - 1)), round(point[1] * (self._high - 1))

    def _cell(self, x: int, y: int) -> tuple[int, int]:
        return (self._high - 1 - y) // (4 if self.braille else 1), x // (2 if self.braille else 1)

    def _set(self, x: int, y: int, colour: str, letter: str) -> None:
        row, column = self._cell(x, y)
        self._colours[row][column] = colour
        if self.braille:
            self._bits[row][column] |= _DOTS[x % 2][(self._high - 1 - y) % 4]
        else:
            self._letters[row][column] = letter


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers between low and high: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)] or [low]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """1, 2 and 5 times powers of ten between low and high; powers alone where that is too much."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors, stride in (((1, 2, 5), 1), ((1,), 1), ((1,), 2), ((1,), 5)):
        found = [factor * 10.0**power for power in powers[::stride] for factor in factors]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) <= most:
            break
    return found[:most] or [low]


def _between(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots from start to end, without start."""
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
    return [
        (
            round(start[0] + (end[0] - start[0]) * number / steps),
            round(start[1] + (end[1] - start[1]) * number / steps),
        )
        for number in range(1, steps + 1)
    ]
