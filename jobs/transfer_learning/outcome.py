"""What a run leaves beside its metrics: the table over all cells with intervals, and the pictures."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pictures
from folder import ImageSet
from learn import Scores
from options import Arm
from shared import tables

LEAST_SEEDS = 3  # fewer give no interval: two agree by chance too often


def table(images: ImageSet, results: list[dict[str, Any]]) -> str:
    """Markdown: a row for each number of training images, a column for each arm, mean ± half interval.

    With several arms a last column compares the first with each other one, seed by seed.
    """
    arms, sizes = _arms(results), sorted({result["images"] for result in results})
    word = "accuracy" if images.classes else "R²"
    heads = ["training images", "seeds", *arms, *(f"{arms[0]} less {arm}" for arm in arms[1:])]
    interval_in_words = f"{tables.CONFIDENCE:.0%} interval over the seeds"
    lines = [f"Test {word}, mean ± half of the {interval_in_words}:", "", *tables.head(*heads)]
    for size in sizes:
        scores = {arm: scores_of(results, arm, size) for arm in arms}
        seeds = max(len(values) for values in scores.values())
        pairs = [_difference(results, arms[0], arm, size) for arm in arms[1:]]
        shown = [tables.shown(*interval(scores[arm].values()), ".3f") for arm in arms]
        lines.append(tables.line(f"{size:,}", str(seeds), *shown, *pairs))
    return "\n".join(lines)


def scores_of(results: list[dict[str, Any]], arm: str, size: int) -> dict[int, float]:
    """Test scores by seed."""
    return {r["seed"]: r["test_score"] for r in results if r["arm"] == arm and r["images"] == size}


def interval(values: Collection[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % interval; nan where there are too few seeds."""
    return tables.interval(list(values), least=LEAST_SEEDS)


def write_all(
    out: Path, images: ImageSet, history: list[dict[str, Any]], results: list[dict[str, Any]],
    about: dict[str, Any], *, curves: dict[str, tuple[float, list[list[float]]]],
) -> None:  # fmt: skip
    """results.csv, results.md, curves.png; lr_finder.png and sizes.png where they have something to show."""
    names = [name for name in results[0] if name != "timing"]
    tables.write(out, {
        "results.csv": tables.as_csv(names, [[result[name] for name in names] for result in results]),
        "results.md": f"{about['data']}\n\n{table(images, results)}\n",
    })  # fmt: skip
    note = about["data"]
    pictures.draw_curves(out / "curves.png", history, images, note=note)
    if curves:
        pictures.draw_finder(out / "lr_finder.png", curves, note=note)
    sizes = sorted({result["images"] for result in results})
    if len(sizes) > 1:
        spans = {arm: [interval(scores_of(results, arm, size).values()) for size in sizes]
                 for arm in _arms(results)}  # fmt: skip
        pictures.draw_sizes(out / "sizes.png", sizes, spans, images, note=note)


def draw_answers(out: Path, images: ImageSet, arm: Arm, test: Scores, note: str) -> None:
    """The arm's pictures over the test set, named after the arm."""
    name = str(arm).replace(":", "-").replace("@", "-")
    if images.classes:
        pictures.draw_confusion(out / f"confusion-{name}.png", images, arm, test, note=note)
        pictures.draw_classes(out / f"answers-{name}.png", images, arm, test, note=note)
    else:
        pictures.draw_scores(out / f"scores-{name}.png", images, arm, test, note=note)


def _difference(results: list[dict[str, Any]], first: str, other: str, size: int) -> str:
    """Of the two arms at the same seeds, with the interval; which one is ahead where it leaves out 0."""
    ours, theirs = scores_of(results, first, size), scores_of(results, other, size)
    mean, half = interval([ours[seed] - theirs[seed] for seed in ours.keys() & theirs.keys()])
    shown = tables.shown(mean, half, ".3f", sign="+")
    if math.isnan(half):
        return shown
    verdict = "not decided" if abs(mean) <= half else f"**{(first if mean > 0 else other).split(':')[0]}**"
    return f"{shown} {verdict}"


def _arms(results: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(result["arm"] for result in results))
