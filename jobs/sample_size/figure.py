"""The curve: accuracy against the number of images, and the errors with the power law through them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fit
import numpy as np
from results import Curve
from shared import plots

COLOURS = ("#0b63b5", "#b5651d", "#3a7d44", "#7d3a6f")
DOTS = {"marker": "o", "markersize": 5, "capsize": 3}
AHEAD = 4  # the law is drawn to so many times the most images


def draw(file: Path, curves: list[Curve]) -> None:
    """Left the accuracies with 95 % intervals, right the errors on two log scales with law and band."""
    plt = plots.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.9), dpi=120, layout="constrained")
    for curve, colour in zip(curves, COLOURS):  # noqa: B905  Python 3.9
        _accuracies(left, curve, colour)
        _errors(right, curve, colour)
    percent = plt.matplotlib.ticker.PercentFormatter(1.0)
    left.set_title("Test accuracy", loc="left", fontsize=11)
    left.yaxis.set_major_formatter(percent)
    lowest, highest = left.get_ylim()
    left.set_ylim(lowest, min(highest, 1 + 0.02 * (1 - lowest)))  # an interval may reach past 100 %
    right.set_title("Test error, log scale, with its power law", loc="left", fontsize=11)
    right.set_yscale("log")
    right.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    right.yaxis.set_minor_formatter(lambda value, _: f"{100 * value:g} %" if f"{value:e}"[0] in "25" else "")
    images = sorted({size.images for curve in curves for size in curve.sizes})
    _finish(left, images, legend="lower right")
    _finish(right, [*images, AHEAD * images[-1]], legend="upper right")
    plots.name(figure, "Accuracy against the number of training images", _note(curves))
    plots.save(plt, figure, file)


def _accuracies(axis: Any, curve: Curve, colour: str) -> None:
    images = [size.images for size in curve.sizes]
    half = [0 if size.half_width != size.half_width else size.half_width for size in curve.sizes]
    means = [size.mean for size in curve.sizes]
    axis.errorbar(images, means, yerr=half, color=colour, linewidth=1.6, label=_short(curve), **DOTS)


def _errors(axis: Any, curve: Curve, colour: str) -> None:
    points = curve.points()
    images, errors = [point.images for point in points], [point.error for point in points]
    bars = [2 * point.deviation for point in points]
    axis.errorbar(images, errors, yerr=bars, color=colour, linestyle="", label=_short(curve), **DOTS)
    try:
        law = fit.fit(points)
    except ValueError:
        return
    images = np.geomspace(points[0].images, AHEAD * points[-1].images, 60)
    axis.plot(images, law.error(images), color=colour, linewidth=1.4)
    axis.fill_between(images, *law.band(images), color=colour, alpha=0.15, linewidth=0)
    following = fit.next_point(law, points[-1].images)
    if following.wanted <= images[-1]:
        axis.plot([following.wanted], [following.error - following.gain], marker="D", markersize=6,
                  color="white", markeredgecolor=colour, markeredgewidth=1.4)  # fmt: skip


def _finish(axis: Any, images: list[int], *, legend: str) -> None:
    axis.set_xscale("log")
    axis.set_xticks(images, [f"{count:,}" for count in images], fontsize=8.5)
    axis.tick_params(axis="x", which="minor", labelbottom=False)
    axis.set_xlabel("training images, log scale")
    plots.plain(axis)
    axis.legend(loc=legend, frameon=False, fontsize=9)


def _short(curve: Curve) -> str:
    return curve.data.partition(" (")[0]


def _note(curves: list[Curve]) -> str:
    seeds = sorted({len(size.cells) for curve in curves for size in curve.sizes})
    several = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    left = "Bars on the left: 95 % interval of the mean."
    right = "On the right: two standard errors; band: 95 % of the law; diamond: the next step of accuracy."
    return "\n".join([f"Seeds a point: {several}. {left} {right}", *(curve.data for curve in curves)])
