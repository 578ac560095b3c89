"""Logs of Keras: 1.x, 2.x and 3, with bars or one line an epoch, saved from a terminal or pasted.

    Epoch 1/50
    50000/50000 [=====================] - 4s - loss: 1.15 - acc: 0.59 - val_loss: 0.91 - val_acc: 0.68
    1563/1563 ━━━━━━━━━━━━━━━━━━━━ 4s 3ms/step - accuracy: 0.36 - loss: 1.74 - val_loss: 1.41
    1563/1563 - 4s - 3ms/step - loss: 1.15
     - 4s - loss: 1.15

The last state of a bar counts. An epoch whose bar never filled, at the end of a log, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from cloudrun.curves.fit import Fit, Point
from cloudrun.curves.lines import NUMBER

_HEADER = re.compile(r"(?:^|\s)Epoch\s+(\d+)/(\d+)\s*$")
_BAR = re.compile(r"^\s*(\d+)/(\d+|Unknown)\s+(?:\[[=>. -]*\]|[\u2500-\u259f\s]*|-)\s*(?=\d|-|ETA|$)")
_TIME = re.compile(r"^\s*(?:-\s+)?(\d+)s\b")
_PAIR = re.compile(rf"(?:^|[\s-])([A-Za-z_][\w./]*): ({NUMBER})(?=\s|$)", re.IGNORECASE)
_CONTINUED = re.compile(
    rf"^\s*(?:-\s*)?[A-Za-z_][\w./]*: {NUMBER}(?:\s+-\s+[A-Za-z_][\w./]*: {NUMBER})*\s*-?\s*$"
)


@dataclass
class _Epoch:
    """The epoch that is being read."""

    number: int
    total: int
    values: dict[str, float] = field(default_factory=dict)
    complete: bool = False
    in_bar: bool = False  # the line before was one of its lines: a wrapped rest may follow


def is_keras(lines: list[str]) -> bool:
    """Does it look like one of ours: a header, and somewhere a line with a bar or a time?"""
    headers = any(_HEADER.search(line) for line in lines)
    return headers and any((_BAR.match(line) or _TIME.match(line)) and _PAIR.search(line) for line in lines)


def read_keras(lines: list[str]) -> list[Fit]:
    """One Fit for each call of fit(): the epochs count up, and a lower or equal number begins the next."""
    trainings: list[list[_Epoch]] = []
    for epoch in _epochs(lines):
        if not trainings or epoch.number <= trainings[-1][-1].number:
            trainings.append([])
        trainings[-1].append(epoch)
    fits = [_fit(epochs) for epochs in trainings]
    return [fit for fit in fits if fit.points]


def _fit(epochs: list[_Epoch]) -> Fit:
    points = [Point(epoch.number, epoch.values) for epoch in epochs if epoch.complete and epoch.values]
    last = epochs[-1]
    return Fit("", tuple(points), unfinished=0 if last.complete else last.number)


def _epochs(lines: list[str]) -> Iterator[_Epoch]:
    epoch: _Epoch | None = None
    for line in lines:
        header = _HEADER.search(line)
        if header:
            if epoch:
                yield epoch
            epoch = _Epoch(int(header[1]), int(header[2]))
        elif epoch:
            _take(epoch, line)
    if epoch:
        yield epoch


def _take(epoch: _Epoch, line: str) -> None:
    """A bar, the rest of one that was wrapped, or something that is not ours."""
    bar = _BAR.match(line)
    if bar:
        epoch.in_bar = True
        full = bar[2] == "Unknown" or int(bar[1]) >= int(bar[2])  # Keras 1 goes past what no batch divides
        epoch.complete = epoch.complete or (full and bool(_PAIR.search(line)))
    elif _TIME.match(line):
        epoch.in_bar = epoch.complete = True
    elif not (epoch.in_bar and _CONTINUED.match(line)):
        epoch.in_bar = False
        return
    epoch.values.update({name: float(value) for name, value in _PAIR.findall(line)})
