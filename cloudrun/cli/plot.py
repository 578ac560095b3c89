"""plot: training curves of runs and of logs, as a picture, a page, a window, or drawn in the terminal."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import Verb
from cloudrun.cli.options import complete_run, json_option
from cloudrun.cli.sources import Source, open_all
from cloudrun.cli.text import home_relative, plural, visible
from cloudrun.curves import Fit, join_fits, read_fits
from cloudrun.errors import UsageError

SUFFIXES = (".png", ".svg", ".html")
MOST_TRAININGS = 26  # letters tell them apart


@click.command(
    cls=Verb,
    examples=(
        "cloudrun plot last",
        "cloudrun plot keras.log -o curves.png",
        "cloudrun plot 8f3k 2zxm old.csv -o compare.html",
        "cloudrun logs last | cloudrun plot - --metric loss",
    ),
)
@click.argument("sources", nargs=-1, metavar="[RUN|FILE|-]...", shell_complete=complete_run)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write a .png, .svg or .html file.")
@click.option("--metric", "metrics", multiple=True, help="Draw this metric only. Repeatable.")
@click.option("--join", is_flag=True, help="Lay the trainings of a log end to end, as one.")
@click.option("--title", default="", help="What stands above the curves.")
@click.option("--show", is_flag=True, help="Open a window.")
@click.option("--text", "in_terminal", is_flag=True, help="Draw in the terminal.")
@click.option("--clipboard", is_flag=True, help="Put the picture on the clipboard.")
@click.option("--paste", is_flag=True, help="Read a log from the clipboard.")
@json_option
def plot(
    sources: tuple[str, ...], output: Path | None, metrics: tuple[str, ...], join: bool, title: str,
    show: bool, in_terminal: bool, clipboard: bool, paste: bool, as_json: bool,
) -> None:  # fmt: skip
    """Draw training curves of runs and logs.

    Of runs (their metrics.jsonl, or else what they printed), and of files or stdin: logs of Keras 1, 2 and 3,
    chainer's LogReport, CSV of Lightning, Keras or fastai, JSON lines, notebooks, and lines of `name: value`.
    Several are laid over one another.

    Without -o: a window where there is a screen, else letters in the terminal.
    """
    _check_output(output)
    kinds, fits = _read_all(open_all(sources, paste=paste), join=join)
    if as_json:
        render.as_json([_shape(fit, kind) for fit, kind in zip(fits, kinds, strict=True)])
    _say_unfinished(fits)
    heading = visible(title) or _heading(fits)
    if output:
        _write(output, fits, metrics, heading)
    if clipboard:
        _copy(fits, metrics, heading)
    if show or not (as_json or output or clipboard):
        _look(fits, metrics, heading, window=show, letters=in_terminal)


def _read_all(sources: Sequence[Source], *, join: bool) -> tuple[list[str], list[Fit]]:
    kinds: list[str] = []
    fits: list[Fit] = []
    for title, text in sources:
        kind, found = read_fits(text, title)
        if join and len(found) > 1:
            found = [join_fits(found, title)]
        fits += found
        kinds += [kind] * len(found)
    if len(fits) > MOST_TRAININGS:
        raise UsageError(
            f"{len(fits)} trainings are more than anybody can tell apart",
            hint=f"name fewer logs, at most {MOST_TRAININGS} trainings, or lay them end to end with --join",
        )
    return kinds, fits


def _check_output(output: Path | None) -> None:
    if output and output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{output}: what kind of picture?", hint=f"end the name in {', '.join(SUFFIXES)}")
    if output and not output.absolute().parent.is_dir():
        raise UsageError(f"{output}: there is no such folder", hint="make it first")


def _say_unfinished(fits: Sequence[Fit]) -> None:
    for fit in fits:
        if fit.unfinished:
            render.say(f"{fit.title}: epoch {fit.unfinished} did not finish and is left out")


def _heading(fits: Sequence[Fit]) -> str:
    return fits[0].title if len(fits) == 1 else plural(len(fits), "training")


def _write(output: Path, fits: Sequence[Fit], metrics: Sequence[str], heading: str) -> None:
    from cloudrun.curves.page import make_page
    from cloudrun.curves.panels import arrange
    from cloudrun.curves.picture import save_picture

    panels, left = arrange(fits, metrics=metrics)
    kind = output.suffix.lower()[1:]
    if kind == "html":
        content = make_page(panels, fits, title=heading).encode()
    else:
        content = save_picture(panels, fits, title=heading, kind=kind)
    try:
        output.write_bytes(content)
    except OSError as error:
        raise UsageError(f"{output}: {error.strerror}", hint="choose another file") from error
    _say_left(left, metrics)
    render.say(f"{plural(len(fits), 'training')} drawn: {home_relative(str(output))}")


def _copy(fits: Sequence[Fit], metrics: Sequence[str], heading: str) -> None:
    from cloudrun.cli.clipboard import copy_png
    from cloudrun.curves.panels import arrange
    from cloudrun.curves.picture import save_picture

    panels, left = arrange(fits, metrics=metrics)
    copy_png(save_picture(panels, fits, title=heading, kind="png"))
    _say_left(left, metrics)
    render.say("the picture is on the clipboard")


def _look(fits: Sequence[Fit], metrics: Sequence[str], heading: str, *, window: bool, letters: bool) -> None:
    """A window if there is a screen to open it on and somebody sits there, else letters."""
    from cloudrun.curves.panels import arrange
    from cloudrun.curves.picture import show_window

    panels, left = arrange(fits, metrics=metrics)
    _say_left(left, metrics)
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if window or (screen and sys.stdout.isatty() and not letters):
        try:
            show_window(panels, fits, title=heading)
            return
        except UsageError as error:
            if window:
                raise
            render.say(f"{error.message}; drawn here instead")
    from cloudrun.curves.terminal import draw_lines

    unicode = "utf" in (sys.stdout.encoding or "").lower()
    if len(fits) == 1:
        render.data(render.colour(heading, "bold"))
    for line in draw_lines(panels, fits, render.columns(), unicode=unicode):
        pieces = [render.colour(text, name) if name else text for text, name in line]
        render.data("".join(pieces).rstrip())


def _say_left(left: Sequence[str], metrics: Sequence[str]) -> None:
    if left and not metrics:
        render.say(f"not drawn: {', '.join(left)} (--metric NAME draws one)")


def _shape(fit: Fit, kind: str) -> dict[str, object]:
    """JSON has no NaN and no infinity: they are null, and a metric that is not known is not there."""
    points = [
        {fit.x: _whole(point.x), **{name: _finite(value) for name, value in point.values.items()}}
        for point in fit.points
    ]
    return {"title": fit.title, "format": kind, "x": fit.x, "unfinished": fit.unfinished, "points": points}


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
