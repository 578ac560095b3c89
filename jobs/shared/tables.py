"""Tables of results: Markdown and CSV, means with intervals, and the command that makes them of any runs."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
CONFIDENCE = 0.95  # of every interval


class ResultsError(Exception):
    """A folder holds no metrics of this job."""


def read_metrics(folder: Path, parse: Callable[[dict[str, Any], list[dict[str, Any]]], T]) -> T:
    """What `parse` makes of "about" and the lines of a metrics.jsonl. Raises ResultsError where it cannot."""
    file = folder / "metrics.jsonl"
    try:
        first, *lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return parse(first["about"], lines)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{file} holds no metrics of this job: {error!r}") from error


def write(folder: Path, texts: dict[str, str]) -> None:
    """Files by name, each replaced as a whole."""
    for name, text in texts.items():
        partial = folder / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(folder / name)


def head(*names: str) -> list[str]:
    """The first two lines of a table in Markdown."""
    return [line(*names), "|" + "---|" * len(names)]


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def as_csv(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """What a spreadsheet wants."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue()


def interval(values: Sequence[float], *, least: int = 2) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval (Student's t): nan for fewer than `least` values."""
    if not values:
        return math.nan, math.nan
    mean = statistics.fmean(values)
    if len(values) < least:
        return mean, math.nan
    return mean, student_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def shown(mean: float, half: float, form: str, *, sign: str = "") -> str:
    """ "0.9936 ± 0.0008" for the form ".4f"; the mean alone where there is no interval. sign: "+" or ""."""
    return f"{mean:{sign}{form}}" + ("" if math.isnan(half) else f" ± {half:{form}}")


def student_t(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t with so many degrees of freedom: 12.706 for 1."""
    low, high = 1.9, 13.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, freedom) < CONFIDENCE else (low, middle)
    return high


def _share_within(t: float, freedom: int) -> float:
    """Of Student's t, between -t and t. Abramowitz and Stegun, formulas 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for number in range(1 + odd, freedom, 2):  # the next term has number / (number + 1) cos^2 of this one
        total += term
        term *= number / (number + 1) * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def command(
    text: str, *, read: Callable[[list[Path]], T], markdown: Callable[[T], str], as_csv: Callable[[T], str],
    draw: Callable[[Path, T], None],
) -> int:  # fmt: skip
    """The program `python table.py OUTPUTS ...`: prints the table of these runs together. Its exit code."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("outputs", nargs="+", type=Path, help="outputs folders of runs, also unfinished ones")
    parser.add_argument("--csv", action="store_true", help="a line for each training instead")
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw the curves as well")
    args = parser.parse_args()
    try:
        results = read(args.outputs)
    except ResultsError as error:
        print(error, file=sys.stderr)
        return 1
    print(as_csv(results) if args.csv else markdown(results), end="")
    if args.figure:
        draw(args.figure, results)
    return 0
