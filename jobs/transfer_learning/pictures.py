"""The figures of a run. Each names the data that it was measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from folder import ImageSet
from learn import Scores
from options import Arm
from shared import plots
from shared.plots import QUIET, WRONG

COLOURS = ("#0b63b5", "#b5651d", "#3c8d5a", "#8a4fa8", "#5f6b76", "#c0392b")  # told apart by the colour-blind
SHEET = 10  # images in a row of a sheet
SHOWN_SIDE = 96  # pixels of an image on a sheet, at most


def draw_finder(file: Path, curves: dict[str, tuple[float, list[list[float]]]], *, note: str) -> None:
    """The loss over the rate, and the rate that is taken, for each arm."""
    plt = plots.pyplot()
    figure, axis = plt.subplots(figsize=(8, 4.4), dpi=120, layout="constrained")
    highest = 0.0
    for (arm, (taken, curve)), colour in zip(curves.items(), COLOURS):  # noqa: B905  Python 3.9
        rates, losses = np.array(curve).T
        axis.plot(rates, losses, color=colour, linewidth=2, label=f"{arm}: {taken:.2g}")
        axis.plot([taken], [np.interp(taken, rates, losses)], "o", color=colour, markersize=9, clip_on=False,
                  markeredgecolor="white", markeredgewidth=1.5, zorder=3)  # fmt: skip
        highest = max(highest, 1.6 * losses[0])
    axis.set_xscale("log")
    axis.set_ylim(0, highest)
    _plain(axis, "learning rate", "Loss, running mean")
    axis.legend(frameon=False, fontsize=9, title="the rate taken (dot)", title_fontsize=9, alignment="left")
    plots.name(figure, "Learning-rate finder", note)
    plots.save(plt, figure, file)


def draw_curves(file: Path, history: list[dict[str, Any]], images: ImageSet, *, note: str) -> None:
    """Loss of training (thin) and validation, and the validation score, of each arm: first cell of each."""
    plt = plots.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), dpi=120, layout="constrained")
    cells: dict[str, list[dict[str, Any]]] = {}
    for entry in history:
        cells.setdefault(entry["cell"], []).append(entry)
    first: dict[str, str] = {}
    for cell in cells:
        first.setdefault(cell.split(" ")[0], cell)
    for (arm, cell), colour in zip(first.items(), COLOURS):  # noqa: B905  Python 3.9
        epochs = [entry["epoch"] for entry in cells[cell]]
        marker = "o" if len(epochs) < 15 else None
        style = {"color": colour, "marker": marker, "markersize": 3.5}
        left.plot(epochs, [entry["loss"] for entry in cells[cell]], linewidth=1, alpha=0.55, **style)
        left.plot(epochs, [entry["val_loss"] for entry in cells[cell]], linewidth=2.2, **style)
        scores = [entry["val_score"] for entry in cells[cell]]
        right.plot(epochs, scores, linewidth=2.2, label=f"{arm}, last {scores[-1]:.3f}", **style)
    plots.log_scale(left)
    _plain(left, "epoch", "Loss (log scale), thin: training, strong: validation")
    _plain(right, "epoch", "Validation accuracy" if images.classes else "Validation R²")
    if images.classes:
        right.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
    else:
        right.set_ylim(max(-1.0, right.get_ylim()[0]), 1.0)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    right.legend(frameon=False, fontsize=9, loc="best")
    of_which = next(iter(first.values())).split(" ", 1)[1].replace(" seed", ", seed")
    plots.name(figure, f"Training with {of_which}", note)
    plots.save(plt, figure, file)


def draw_sizes(
    file: Path, sizes: list[int], spans: dict[str, list[tuple[float, float]]], images: ImageSet, *, note: str
) -> None:
    """The test score over the number of training images, with the intervals over the seeds."""
    plt = plots.pyplot()
    figure, axis = plt.subplots(figsize=(8, 4.6), dpi=120, layout="constrained")
    for number, ((arm, values), colour) in enumerate(zip(spans.items(), COLOURS)):  # noqa: B905  Python 3.9
        aside = 1.02 ** (number - len(spans) / 2)  # so that no bar hides another
        places = np.array(sizes) * aside
        means, halves = np.array(values).T
        axis.errorbar(places, means, np.nan_to_num(halves), color=colour, linewidth=2, capsize=4, marker="o",
                      markersize=5, label=arm)  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.minorticks_off()
    _plain(axis, "training images (log scale)", "Test accuracy" if images.classes else "Test R²")
    if images.classes:
        axis.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0, decimals=0))
        low, high = axis.get_ylim()
        axis.set_ylim(max(low, 0.0), min(high, 1.0))
    axis.legend(frameon=False, fontsize=9)
    plots.name(figure, "When does a pretrained network pay?", f"{note}\nbars: 95 % intervals over the seeds")
    plots.save(plt, figure, file)


def draw_confusion(file: Path, images: ImageSet, arm: Arm, test: Scores, *, note: str) -> None:
    """Rows: the true class; columns: the answer; shares of the row."""
    plt = plots.pyplot()
    count = len(images.classes)
    true, said = images.targets[images.parts["test"]], test.answers.argmax(1).numpy()
    matrix = np.zeros((count, count))
    np.add.at(matrix, (true, said), 1)
    totals = matrix.sum(1, keepdims=True)
    shares = matrix / np.maximum(totals, 1)
    side = max(4.5, 0.62 * count + 2.6)
    figure, axis = plt.subplots(figsize=(side + 1.2, side), dpi=120, layout="constrained")
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(count):
        for column in range(count):
            if matrix[row, column]:
                bright = shares[row, column] > 0.55
                axis.text(column, row, f"{shares[row, column]:.0%}", ha="center", va="center", fontsize=8,
                          color="white" if bright else "black",
                          fontweight="bold" if row == column else "normal")  # fmt: skip
    names = [f"{name} ({int(total)})" for name, total in zip(images.classes, totals[:, 0])]  # noqa: B905  Python 3.9
    axis.set_xticks(range(count), images.classes, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    axis.set_yticks(range(count), names, fontsize=8)
    axis.set_xlabel("answer", fontsize=9)
    axis.set_ylabel("true class (images of it in the test set)", fontsize=9)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    plots.name(figure, f"{arm}: {test.score:.1%} of the test images are right", _wrapped(note))
    plots.save(plt, figure, file)


def draw_classes(file: Path, images: ImageSet, arm: Arm, test: Scores, *, note: str) -> None:
    """Three rows of test images: the surest right answers, the surest wrong ones, the least sure."""
    part = images.parts["test"]
    true, sure, said = images.targets[part], *(value.numpy() for value in test.answers.max(1))
    right = said == true
    rows = {
        "most sure and right": _first(np.argsort(-sure), right),
        "most sure and wrong": _first(np.argsort(-sure), ~right),
        "least sure": np.argsort(sure)[:SHEET],
    }
    captions = [
        [(f"{images.classes[said[n]]}\n{sure[n]:.0%}", "" if right[n] else f"is {images.classes[true[n]]}")
         for n in numbers]
        for numbers in rows.values()
    ]  # fmt: skip
    _sheet(file, images, arm, list(rows), [part[numbers] for numbers in rows.values()], captions,
           title=f"{arm}: {test.score:.1%} of {len(part):,} test images are right", note=note)  # fmt: skip


def draw_scores(file: Path, images: ImageSet, arm: Arm, test: Scores, *, note: str) -> None:
    """Predicted against true, and beside it the images with the largest errors."""
    plt = plots.pyplot()
    part = images.parts["test"]
    true, said = images.targets[part], test.answers.numpy()
    figure = plt.figure(figsize=(11, 5.0), dpi=120, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    axis = left.subplots()
    low, high = min(true.min(), said.min()), max(true.max(), said.max())
    axis.plot([low, high], [low, high], color=QUIET, linewidth=1)
    axis.scatter(true, said, s=14, color=COLOURS[0], alpha=0.45, linewidths=0)
    axis.set_aspect("equal", adjustable="box")
    _plain(axis, "true", "predicted")
    order = np.argsort(-np.abs(said - true))
    pixels = images.read(min(arm.side, SHOWN_SIDE))
    axes = right.subplots(4, 4)
    for panel, number in zip(axes.flat, [*order[:8], *order[::-1][:8]]):  # noqa: B905  Python 3.9
        panel.imshow(pixels[part[[number]]][0].transpose(1, 2, 0), interpolation="nearest")
        wrong = number in order[:8]
        panel.set_title(f"{said[number]:.2f}, true {true[number]:.2f}", fontsize=8, pad=3,
                        color=WRONG if wrong else QUIET)  # fmt: skip
        panel.axis("off")
    right.suptitle("above: the largest errors, below: the smallest", fontsize=9, color=QUIET)
    title = f"{arm}: R² {test.score:.3f}, mean error {test.error:.3f} on {len(part):,} test images"
    plots.name(figure, title, note)
    plots.save(plt, figure, file)


def _sheet(
    file: Path, images: ImageSet, arm: Arm, names: list[str], rows: list[np.ndarray],
    captions: list[list[tuple[str, str]]], *, title: str, note: str,
) -> None:  # fmt: skip
    plt = plots.pyplot()
    pixels = images.read(min(arm.side, SHOWN_SIDE))
    figure, axes = plt.subplots(len(rows), SHEET, figsize=(13, 1.95 * len(rows) + 0.6), dpi=120,
                                layout="constrained")  # fmt: skip
    for axis in axes.flat:
        axis.axis("off")
    for line, name, numbers, words in zip(axes, names, rows, captions):  # noqa: B905  Python 3.9
        line[0].set_title(name, loc="left", fontsize=11)
        for axis, number, (answer, truth) in zip(line, numbers, words):  # noqa: B905  Python 3.9
            axis.imshow(pixels[[number]][0].transpose(1, 2, 0), interpolation="nearest")
            below = {"transform": axis.transAxes, "ha": "center", "va": "top", "fontsize": 8}
            axis.text(0.5, -0.04, _short(answer), **below)
            if truth:
                axis.text(0.5, -0.32, _short(truth), color=WRONG, fontweight="bold", **below)
    plots.name(figure, title, f"\n{note}")  # an empty line below the captions
    plots.save(plt, figure, file)


def _first(order: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return order[wanted[order]][:SHEET]


def _short(text: str) -> str:
    """Lines of at most 22 letters: what stands beneath an image without touching its neighbour."""
    return "\n".join(line if len(line) <= 22 else f"{line[:21]}…" for line in text.splitlines())


def _plain(axis: Any, x: str, title: str) -> None:
    axis.set_xlabel(x)
    axis.set_title(title, loc="left", fontsize=11)
    plots.plain(axis)


def _wrapped(note: str) -> str:
    """In two lines, for narrow figures."""
    head, bracket, tail = note.partition(" (")
    return f"{head}\n{bracket.strip()}{tail}" if bracket else note
