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
MANY = 3  # with more trainings the curves of their training sets step back
BROKEN = (0, (4, 2))
LEGEND_ROW_INCHES = 0.22


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
    beside = _legend_columns(fits, width)
    below = LEGEND_ROW_INCHES * math.ceil((len(fits) + 2) / beside) if len(fits) > 1 else 0.0
    size = (width, PANEL_INCHES[1] * rows + 0.5 + below)
    figure, axes = plt.subplots(rows, columns, figsize=size, dpi=DPI, layout="constrained", squeeze=False)
    for axis in list(axes.flat)[len(panels) :]:
        axis.remove()
    for axis, panel in zip(axes.flat, panels, strict=False):
        _panel(axis, panel, fits)
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.07)
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold")
    if len(fits) > 1:
        _legend(plt, figure, panels, fits, beside)
    return figure


def _panel(axis: Any, panel: Panel, fits: Sequence[Fit]) -> None:
    longest = max(len(curve.points) for curve in panel.curves)
    for curve in panel.curves:
        marked = longest <= MARKED_UP_TO or len(curve.finite) == 1
        _curve(axis, curve, panel, trainings=len(fits), marked=marked)
    scale = " (log scale)" if panel.log_scale else ""
    axis.set_title(panel.title.replace("_", " ") + scale, loc="left", fontsize=11)
    axis.set_xlabel(" / ".join(dict.fromkeys(fits[curve.fit].x for curve in panel.curves)))
    axis.xaxis.get_major_locator().set_params(integer=True)
    if panel.log_scale:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    elif panel.percent:
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axis.grid(color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    if len(fits) == 1:
        values = [value for _, value in panel.curves[-1].finite]
        rising = bool(values) and values[-1] > values[0]
        axis.legend(frameon=False, fontsize=9, loc="lower right" if rising else "upper right")
    _say_broken(axis, panel, fits)


def _curve(axis: Any, curve: Curve, panel: Panel, *, trainings: int, marked: bool) -> None:
    """Validation is solid; training is broken, or gray where there is one training. Past the end of the
    palette the colours begin again, with squares on the curves."""
    xs, ys = zip(*curve.points, strict=True)
    ys = tuple(y if math.isfinite(y) else math.nan for y in ys)  # a gap
    alone = trainings == 1
    solid = curve.validation or (alone and len(panel.curves) > 1)
    again = curve.fit >= len(PALETTE)
    axis.plot(
        xs, ys,
        color=(PALETTE[0] if curve.validation else QUIET) if alone else _colour(curve.fit),
        linewidth=2.0 if curve.validation else 1.5 if trainings <= MANY else 1.0,
        alpha=1.0 if curve.validation or trainings <= MANY else 0.6,
        linestyle="-" if solid else BROKEN,
        marker="s" if again else "o" if marked else None,
        markevery=max(1, len(xs) // 12) if again else None,
        markersize=4 if again else 3.5,
        label=f"{curve.set_name}, last {panel.label(curve.last)}",
    )  # fmt: skip


def _colour(fit: int) -> str:
    return PALETTE[fit % len(PALETTE)]


def _say_broken(axis: Any, panel: Panel, fits: Sequence[Fit]) -> None:
    """NaN draws nothing; it is said instead."""
    said = [f"{curve.set_name}: not a number from {fits[curve.fit].x} {curve.broken_at:g} on"
            for curve in panel.curves if curve.broken_at is not None]  # fmt: skip
    if said:
        text = "\n".join(said[:4] + (["..."] if len(said) > 4 else []))
        axis.text(0.02, 0.02, text, transform=axis.transAxes, fontsize=8, color=PALETTE[1], va="bottom")


def _legend(plt: Any, figure: Any, panels: Sequence[Panel], fits: Sequence[Fit], columns: int) -> None:
    """One for all panels: a colour for each training, a stroke for each set."""
    line = plt.matplotlib.lines.Line2D
    handles = [
        line([], [], color=_colour(i), linewidth=2, label=fit.title,
             marker="s" if i >= len(PALETTE) else None, markersize=4)
        for i, fit in enumerate(fits)
    ]  # fmt: skip
    kinds = {curve.validation for panel in panels for curve in panel.curves}
    strokes = ((True, "-", "validation"), (False, BROKEN, "training"))
    handles += [line([], [], color=QUIET, linestyle=stroke, label=label) for kind, stroke, label in strokes
                if kind in kinds]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False, fontsize=9)


def _legend_columns(fits: Sequence[Fit], width_inches: float) -> int:
    """As many as fit beside one another, by the longest title; at most all in one row."""
    each = 0.75 + 0.075 * max(12, *(len(fit.title) for fit in fits))  # a key, and letters of 9 points
    return max(1, min(len(fits) + 2, int((width_inches - 0.3) / each)))
