"""Curves as PNG, SVG or a window, by matplotlib, which is imported on use."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cloudrun.curves.fit import Fit
from cloudrun.curves.panels import Curve, Panel
from cloudrun.errors import UsageError

# Okabe and Ito, "Color Universal Design" (2008): told apart with every common colour vision; without its
# yellow, which is too light for a line on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
QUIET, GRID = "#5f6b76", "#d8dde2"
PANEL_INCHES = (5.2, 3.9)
DPI = 144
MARKED_UP_TO = 15  # so many points are marked one by one
LEGEND_ROWS = 12


def save_picture(panels: Sequence[Panel], fits: Sequence[Fit], *, title: str, kind: str) -> bytes:
    """The whole picture; kind is "png" or "svg" (letters as outlines, so that it looks the same everywhere).

    The same curves give the same bytes. Raises UsageError where matplotlib is not installed.
    """
    with _matplotlib("Agg") as plt:
        figure = _draw(plt, panels, fits, title)
        stream = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(stream, format=kind, metadata=metadata)
        plt.close(figure)
        return stream.getvalue()


def show_window(panels: Sequence[Panel], fits: Sequence[Fit], *, title: str) -> None:
    """A window; blocks until it is closed. Raises UsageError where no window can be opened."""
    with _matplotlib("") as plt:
        try:
            figure = _draw(plt, panels, fits, title)
        except Exception as error:  # each toolkit has errors of its own; the first figure loads the toolkit
            raise _no_window(str(error)) from error
        if plt.get_backend().lower() in ("agg", "pdf", "svg", "ps", "cairo", "template"):
            raise _no_window("matplotlib found no toolkit to open one")
        figure.canvas.manager.set_window_title(title)
        plt.show()


def _no_window(reason: str) -> UsageError:
    return UsageError(f"no window can be opened: {reason}", hint="write a file with -o curves.png")


@contextmanager
def _matplotlib(backend: str) -> Iterator[Any]:
    try:
        import matplotlib as mpl
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise UsageError("pictures need matplotlib", hint="pip install 'cloudrun[tools]'") from error
    if backend:
        mpl.use(backend)
    settings: dict[Any, Any] = {
        "text.parse_math": False,  # a dollar in a file's name is a dollar
        "font.size": 10,
        "axes.edgecolor": QUIET,
        "axes.labelcolor": QUIET,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "svg.fonttype": "path",
        "svg.hashsalt": "cloudrun",
    }
    with plt.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script that the font lacks: boxes, no words
        yield plt


def _draw(plt: Any, panels: Sequence[Panel], fits: Sequence[Fit], title: str) -> Any:
    columns = min(len(panels), 2 if len(panels) in (2, 4) else 3)
    rows = math.ceil(len(panels) / columns)
    width = max(PANEL_INCHES[0] * columns, 6.5)
    below = 0.0 if len(fits) == 1 else 0.24 * min(len(fits) + 1, LEGEND_ROWS)
    size = (width, PANEL_INCHES[1] * rows + 0.5 + below)
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=DPI, layout="constrained", squeeze=False)
    for axis in list(axes.flat)[len(panels) :]:
        axis.remove()
    for axis, panel in zip(axes.flat, panels, strict=False):
        _panel(plt, axis, panel, fits)
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.07)
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold")
    if len(fits) > 1:
        _legend(plt, figure, panels, fits)
    return figure


def _panel(plt: Any, axis: Any, panel: Panel, fits: Sequence[Fit]) -> None:
    alone = len(fits) == 1
    longest = max(len(curve.points) for curve in panel.curves)
    for curve in panel.curves:
        marked = longest <= MARKED_UP_TO or len(curve.finite) == 1
        _curve(axis, curve, panel, alone=alone, marked=marked)
    axis.set_title(panel.title.replace("_", " "), loc="left", fontsize=11)
    axis.set_xlabel(" / ".join(dict.fromkeys(fits[curve.fit].x for curve in panel.curves)))
    axis.xaxis.get_major_locator().set_params(integer=True)
    ticker = plt.matplotlib.ticker
    if panel.log_scale:
        axis.set_yscale("log")
        axis.set_title(panel.title.replace("_", " ") + " (log scale)", loc="left", fontsize=11)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    elif panel.percent:
        axis.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    axis.grid(color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if alone:
        axis.legend(frameon=False, fontsize=9)
    _say_broken(axis, panel)


def _curve(axis: Any, curve: Curve, panel: Panel, *, alone: bool, marked: bool) -> None:
    xs, ys = zip(*curve.points, strict=True)
    ys = tuple(y if math.isfinite(y) else math.nan for y in ys)  # a gap
    colour = PALETTE[curve.fit % len(PALETTE)]
    if alone:
        colour = PALETTE[0] if curve.validation else QUIET
    axis.plot(
        xs, ys,
        color=colour,
        linewidth=2.0 if curve.validation else 1.5,
        linestyle="-" if curve.validation or (alone and len(panel.curves) > 1) else (0, (4, 2)),
        marker="o" if marked else None,
        markersize=3.5,
        label=f"{curve.set_name}, last {panel.label(curve.last)}",
    )  # fmt: skip


def _say_broken(axis: Any, panel: Panel) -> None:
    """NaN draws nothing; it is said instead."""
    said = [f"{curve.set_name}: not a number from {curve.broken_at:g} on" for curve in panel.curves
            if curve.broken_at is not None]  # fmt: skip
    if said:
        text = "\n".join(said[:4] + (["..."] if len(said) > 4 else []))
        axis.text(0.02, 0.02, text, transform=axis.transAxes, fontsize=8, color="#d55e00", va="bottom")


def _legend(plt: Any, figure: Any, panels: Sequence[Panel], fits: Sequence[Fit]) -> None:
    """One for all panels: a colour for each training, a stroke for each set."""
    line = plt.matplotlib.lines.Line2D
    handles = [
        line([], [], color=PALETTE[i % len(PALETTE)], linewidth=2, label=fit.title)
        for i, fit in enumerate(fits)
    ]
    kinds = {curve.validation for panel in panels for curve in panel.curves}
    strokes = ((True, "-", "validation"), (False, (0, (4, 2)), "training"))
    handles += [line([], [], color=QUIET, linestyle=stroke, label=label) for kind, stroke, label in strokes
                if kind in kinds]  # fmt: skip
    columns = max(1, math.ceil(len(handles) / LEGEND_ROWS))
    if sum(len(fit.title) + 8 for fit in fits) * 0.075 < figure.get_size_inches()[0] - 2:
        columns = len(handles)  # all in one line
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False, fontsize=9)
