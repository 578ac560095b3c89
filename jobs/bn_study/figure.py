"""One picture with every curve: a row of panels for each data set and net, a pair of panels for each rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from grid import FC
from results import CellResult
from shared import plots

COLOURS = {False: "#b5651d", True: "#0b63b5"}  # without and with batch normalisation
DASHES = {"as_written": "-", "constant": "-", "as_run": (0, (4, 1.6))}
TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}


def draw(file: Path, cells: list[CellResult]) -> None:
    """Test images strong, training thin; seeds as their mean and range; diamonds are the published ends."""
    blocks = list(dict.fromkeys((cell.row.data, cell.row.net, cell.data) for cell in cells))
    plt = plots.pyplot()
    columns = 2 * max(len(_rates(cells, block)) for block in blocks)
    size = (3.6 * columns + 0.4, 2.9 * len(blocks) + 1.3)
    figure, axes = plt.subplots(
        len(blocks), columns, figsize=size, dpi=110, layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for block, line in zip(blocks, axes):  # noqa: B905  Python 3.9
        for place, rate in enumerate(_rates(cells, block)):
            here = [c for c in cells if (c.row.data, c.row.net, c.data) == block and c.row.rate == rate]
            _panel(plt, line[2 * place], here, "acc")
            _panel(plt, line[2 * place + 1], here, "loss")
    figure.legend(handles=_legend(plt, cells), loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    data = "\n".join(dict.fromkeys(f"{TITLES[cell.row.data]} rows: {cell.data}" for cell in cells))
    plots.name(figure, "Batch normalisation: every curve of the grid", data)
    plots.save(plt, figure, file)


def _panel(plt: Any, axis: Any, cells: list[CellResult], measure: str) -> None:
    row = cells[0].row
    axis.axis("on")
    for bn in (False, True):
        for schedule in dict.fromkeys(cell.schedule for cell in cells):
            seeds = [cell for cell in cells if cell.row.bn is bn and cell.schedule == schedule]
            if seeds:
                _curves(axis, seeds, measure)
    what = "accuracy" if measure == "acc" else "loss, log scale"
    net = "FC on features" if row.net == FC else "whole net"
    data = f"{'Stand-in for ' * (' NOT ' in cells[0].data)}{TITLES[row.data]}"
    axis.set_title(f"{data}, {net}\nrate {row.rate:g}: {what}", loc="left", fontsize=9)
    axis.set_xlabel("epoch", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.xaxis.get_major_locator().set_params(integer=True)
    plots.plain(axis)
    if measure == "acc":
        axis.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
        axis.set_ylim(*_accuracy_limits(cells))
    else:
        plots.log_scale(axis, minor="235")
        axis.tick_params(axis="y", which="minor", labelsize=8)


def _curves(axis: Any, seeds: list[CellResult], measure: str) -> None:
    row, colour = seeds[0].row, COLOURS[seeds[0].row.bn]
    style = {"color": colour, "linestyle": DASHES[seeds[0].schedule]}
    epochs = [line["epoch"] for line in seeds[0].lines]
    if len(epochs) == 1:
        style["marker"] = "o"
        axis.set_xlim(0, 2)
    training, validation = (_values(seeds, name) for name in (measure, f"val_{measure}"))
    axis.plot(epochs, training.mean(0), linewidth=0.9, alpha=0.55, markersize=2, **style)
    axis.plot(epochs, validation.mean(0), linewidth=2, markersize=4, **style)
    if len(seeds) > 1:
        axis.fill_between(epochs, validation.min(0), validation.max(0), color=colour, alpha=0.15, linewidth=0)
    published = getattr(row.published, f"val_{measure}")
    axis.plot([epochs[-1]], [published], marker="D", markersize=5.5, clip_on=False, color="white",
              markeredgecolor=colour, markeredgewidth=1.4, zorder=5)  # fmt: skip


def _values(seeds: list[CellResult], name: str) -> np.ndarray:
    """Seeds x epochs; a blown-up training has gaps."""
    return np.array([[np.nan if line[name] is None else line[name] for line in cell.lines] for cell in seeds])


def _accuracy_limits(cells: list[CellResult]) -> tuple[float, float]:
    """All test and published figures; a first training epoch far below them may leave the picture."""
    ends = [value for cell in cells for value in (cell.row.published.val_acc, cell.final.acc)]
    lowest = min([*ends, *(float(_values([cell], "val_acc").min()) for cell in cells)])
    return max(0.0, lowest - 0.12 * (1 - lowest) - 0.002), min(1.0, 1 + 0.03 * (1 - lowest))


def _rates(cells: list[CellResult], block: tuple[str, str, str]) -> list[float]:
    return sorted({cell.row.rate for cell in cells if (cell.row.data, cell.row.net, cell.data) == block})


def _legend(plt: Any, cells: list[CellResult]) -> list[Any]:
    def line(label: str, **style: Any) -> Any:
        return plt.matplotlib.lines.Line2D(
            [], [], **{"color": "#444", "linewidth": 2, "label": label, **style}
        )

    schedules = {cell.schedule for cell in cells}
    entries = [
        line("with BN, test images", color=COLOURS[True]),
        line("without BN, test images", color=COLOURS[False]),
        line("training images", linewidth=0.9),
    ]
    if "as_written" in schedules:
        entries.append(line("rate lowered, as written"))
    if "as_run" in schedules:
        entries.append(line("rate kept, as run", linestyle=DASHES["as_run"]))
    return [*entries, line("published, on the real data", color="white", marker="D", markeredgecolor="#444")]
