"""Pictures of a run: its curves, and a sheet of images with what the model said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TRAIN, VALIDATION, WRONG, QUIET = "#7a8794", "#0b63b5", "#c0392b", "#5f6b76"


def draw_curves(file: Path, history: list[dict[str, Any]], *, title: str, note: str) -> None:
    """Loss and accuracy of both sets over the epochs. `note` says in words which data it was."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), dpi=120, layout="constrained")
    _curve(left, history, "loss", "Loss (log scale)", "{:.3f}")
    log_scale(left)
    _curve(right, history, "acc", "Accuracy", "{:.2%}")
    right.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
    name(figure, title, note)
    save(plt, figure, file)


def draw_sheet(
    file: Path, images: np.ndarray, labels: list[int], answers: list[int], *, title: str, note: str
) -> None:
    """A sheet of N x 3 x H x W uint8 images, each with the model's answer; wrong ones in red as "5 not 3"."""
    plt = pyplot()
    columns, rows = 16, -(-len(images) // 16)
    figure, axes = plt.subplots(rows, columns, figsize=(10, 0.82 * rows + 0.9), dpi=120, layout="constrained",
                                squeeze=False)  # fmt: skip
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, label, answer in zip(axes.flat, images, labels, answers):  # noqa: B905  Python 3.9
        axis.imshow(image.transpose(1, 2, 0), interpolation="nearest")
        right = label == answer
        axis.set_title(f"{answer}" if right else f"{answer} not {label}", fontsize=8, pad=2,
                       color=QUIET if right else WRONG, fontweight="normal" if right else "bold")  # fmt: skip
    name(figure, title, note)
    save(plt, figure, file)


def _curve(axis: Any, history: list[dict[str, Any]], measure: str, title: str, form: str) -> None:
    epochs = [entry["epoch"] for entry in history]
    marker = "o" if len(epochs) < 30 else None
    lines = ((measure, TRAIN, "training"), (f"val_{measure}", VALIDATION, "validation"))
    for key, colour, label in lines:
        values = [entry[key] for entry in history]
        last = f"{label}, last {form.format(values[-1])}"
        axis.plot(epochs, values, color=colour, linewidth=2, label=last, marker=marker, markersize=4)
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel("epoch")
    axis.xaxis.get_major_locator().set_params(integer=True)
    plain(axis, which="both")
    axis.legend(frameon=False, fontsize=9)


def pyplot() -> Any:
    """matplotlib.pyplot without a screen."""
    import matplotlib  # on use: half a second, and only at the end of a run

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def name(figure: Any, title: str, note: str) -> None:
    """What the figure shows, above it, and on which data, below."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.supxlabel(note, x=0.01, ha="left", fontsize=9, color=QUIET)


def plain(axis: Any, *, which: str = "major") -> None:
    """A pale grid (at "major" ticks or at "both" kinds), and lines at the left and below only."""
    axis.grid(alpha=0.25, which=which)
    axis.spines[["top", "right"]].set_visible(False)


def log_scale(axis: Any, *, minor: str = "25") -> None:
    """A log scale upward with plain numbers: at the powers of ten, and where `minor` has the first digit."""
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in minor else "")


def save(plt: Any, figure: Any, file: Path) -> None:
    """Write the figure as PNG, replaced as a whole, and let it go."""
    partial = file.with_name(file.name + ".partial")
    figure.savefig(partial, format="png")
    plt.close(figure)
    partial.replace(file)
