"""Any other log: lines of `name: value` or `name=value`, several a line or one, with or without an epoch.

epoch 3: loss 0.51, acc 80.2%       step 250: train loss 2.41, val loss 2.45
loss: 0.51                          Epoch [3/10], Loss: 0.51
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from cloudrun.curves.fit import Fit, Point, metric_name
from cloudrun.curves.lines import NUMBER
from cloudrun.curves.rows import COUNTS, Row, fit_of

_SPLIT = r"(?:(?:train(?:ing)?|trn|val(?:id(?:ation)?)?|test|dev)[ _/-]+)?"
# Words that are metrics wherever they stand before a number; any other word needs a ":" or "=".
_METRIC = (
    rf"{_SPLIT}(?:\w*loss|\w*acc(?:uracy)?|\w*err(?:or)?|f1|auc|m?iou|r?mse|mae|ppl|perplexity|bleu|wer|lr)"
)
_PAIR = re.compile(
    rf"(?<![\w.])(?:({_METRIC})\s*[:=]?\s*|({_SPLIT}[A-Za-z_][\w/.@-]*)\s*[:=]\s*)({NUMBER})\s*(%?)",
    re.IGNORECASE,
)
_TRAIN = re.compile(r"tr(?:ai)?n", re.IGNORECASE)
_COUNT = re.compile(r"(?<![\w.])(epoch|iteration|iter|step)\s*[:=#]?\s*[\[(]?\s*(\d+)\b", re.IGNORECASE)
_COUNTED = {"epoch": "epoch", "iteration": "step", "iter": "step", "step": "step"}
_NO_METRIC = {"eta", "time", "elapsed", "seed", "batch", "batch_size", "epochs", "steps", "v_num", *COUNTS}


def read_plain(lines: list[str]) -> list[Fit]:
    """A new point begins with a new count, or with a name that the point has already. A count that falls
    begins a new training. A name with one value beside curves of three points and more is no curve."""
    fits: list[list[dict[str, float]]] = [[]]
    row: dict[str, float] = {}
    for line in lines:
        counts = {_COUNTED[name.lower()]: float(value) for name, value in _COUNT.findall(line)}
        values = _values(line)
        if not counts and not values:
            continue
        fell = any(value < row.get(name, 0.0) for name, value in counts.items() if name != "step")
        if not row or values.keys() & row.keys() or any(row.get(name) != counts[name] for name in counts):
            row = {name: value for name, value in row.items() if name in COUNTS and not fell} | counts
            if fell:
                fits.append([])
            fits[-1].append(row)
        row.update(values)
    return [_curves(fit) for rows in fits if (fit := fit_of(_counted(rows)))]


def _values(line: str) -> dict[str, float]:
    """In "val Loss: 0.2 Acc: 0.9" the accuracy is the validation's, too."""
    found: dict[str, float] = {}
    split = ""
    for word, other, number, percent in _PAIR.findall(line):
        name = metric_name(word.lower() if word else other)
        if name.lower() in _NO_METRIC:
            continue
        split = "val_" if name.startswith("val_") else "" if _TRAIN.match(word) else split
        name = name if name.startswith(split) or not word else split + name
        found[name] = float(number) / (100 if percent else 1)
    return found


def _counted(rows: list[dict[str, float]]) -> list[Row]:
    """Where anything is counted, what stands above the first count belongs to no point."""
    counted = [row for row in rows if any(name in row for name in COUNTS)]
    return list(counted or rows)


def _curves(fit: Fit) -> Fit:
    times = Counter(name for point in fit.points for name in point.values)
    if max(times.values()) < 3:
        return fit
    kept = [
        Point(point.x, {name: value for name, value in point.values.items() if times[name] > 1})
        for point in fit.points
    ]
    return replace(fit, points=tuple(point for point in kept if point.values))
