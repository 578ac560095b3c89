"""Curves as letters, pictures and pages: what is drawn, where, and that it fits."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_logs import keras_bars, trainings

from cloudrun.curves import Fit, Point, read_fits
from cloudrun.curves.canvas import Canvas, log_ticks, ticks
from cloudrun.curves.page import make_page
from cloudrun.curves.panels import MOST_PANELS, arrange
from cloudrun.curves.picture import save_picture
from cloudrun.curves.terminal import ROWS, draw_lines, text_of
from cloudrun.errors import UsageError

FEW = settings(max_examples=40, deadline=None)


def fit(title: str = "a.log", count: int = 12, **series: float) -> Fit:
    """Curves that begin at 1 and go straight to the value given for each name."""
    return Fit(
        title,
        tuple(
            Point(x, {name: 1 + (end - 1) * (x - 1) / (count - 1) for name, end in series.items()})
            for x in range(1, count + 1)
        ),
    )


def test_loss_comes_first_then_accuracy_and_rates_only_when_asked() -> None:
    one = fit(lr=0.1, val_top5=0.5, acc=0.9, val_acc=0.8, val_loss=0.2, loss=0.1)
    panels, left = arrange([one])
    assert [panel.title for panel in panels] == ["loss", "accuracy", "top5"]
    assert [curve.name for curve in panels[0].curves] == ["loss", "val_loss"]
    assert left == ["lr"]
    (panel,), _ = arrange([one], metrics=["learning_rate"])
    assert panel.title == "lr"


def test_acc_and_accuracy_of_two_frameworks_share_a_panel() -> None:
    panels, _ = arrange([fit(acc=0.5), fit(accuracy=0.6), fit(sparse_categorical_accuracy=0.7)])
    assert [len(panel.curves) for panel in panels] == [3]


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no metric 'los'") as refused:
        arrange([fit(loss=0.1)], metrics=["los"])
    assert "loss" in refused.value.hint


def test_only_so_many_panels_are_drawn_and_the_rest_is_named() -> None:
    panels, left = arrange([fit(**{f"m{number}": 0.5 for number in range(9)})])
    assert (len(panels), len(left)) == (MOST_PANELS, 9 - MOST_PANELS)


@pytest.mark.parametrize(("low", "log"), [(0.5, False), (0.001, True), (-0.5, False)])
def test_a_loss_that_falls_far_gets_a_log_scale(low: float, log: bool) -> None:
    (panel,), _ = arrange([fit(loss=low)])
    assert panel.log_scale is log


@FEW
@given(st.lists(trainings(), min_size=1, max_size=4), st.integers(40, 160), st.booleans())
def test_letters_fit_the_width(several: list[list[dict[str, float]]], columns: int, unicode: bool) -> None:
    fits = [read_fits(keras_bars(epochs, version=3), f"{n}.log")[1][0] for n, epochs in enumerate(several)]
    panels, _ = arrange(fits)
    lines = [text_of(line) for line in draw_lines(panels, fits, columns, unicode=unicode)]
    assert max(map(len, lines)) <= columns
    assert unicode or all(line.isascii() for line in lines)


def test_a_rising_curve_rises_in_letters() -> None:
    """The topmost row of every column climbs from left to right."""
    one = fit(acc=2.0, count=30)
    (panel,), _ = arrange([one])
    lines = [text_of(line) for line in draw_lines([panel], [one], 80, unicode=False)]
    canvas = [line.partition("|")[2] or line.partition("+")[2] for line in lines[1 : ROWS + 1]]
    columns = range(max(map(len, canvas)))
    tops = [next(row for row in range(ROWS) if canvas[row][column : column + 1] == ".") for column in columns]
    assert tops == sorted(tops, reverse=True)
    assert (tops[0], tops[-1]) == (ROWS - 1, 0)


def test_axes_are_labelled() -> None:
    one = fit(loss=0.5, val_loss=0.6, count=50)
    panels, _ = arrange([one])
    lines = [text_of(line) for line in draw_lines(panels, [one], 80)]
    assert lines[0] == "loss"
    assert re.match(r" +epoch 1 .* 20 .* 50$", lines[ROWS + 2])
    assert [line.split()[0] for line in lines[1 : ROWS + 1] if line.split()[0] != "│"][:2] == ["1", "0.9"]
    assert lines[-1].split("   ") == ["  ╍╍ training 0.5"[2:].join(["  ", ""]), "━━ validation 0.6"]


def test_several_trainings_end_in_their_letters() -> None:
    fits = [fit("one", loss=0.2), fit("two", loss=0.9)]
    panels, _ = arrange(fits)
    text = "\n".join(text_of(line) for line in draw_lines(panels, fits, 80))
    assert [letter for letter in "ab" if re.search(rf"{letter} *\n", text)] == ["a", "b"]
    assert "a  one" in text
    assert "b  two" in text


def test_nan_is_a_gap_and_is_said() -> None:
    broken = Fit("x", tuple(Point(x, {"loss": math.nan if x > 3 else 1 / x}) for x in range(1, 7)))
    panels, _ = arrange([broken])
    text = "\n".join(text_of(line) for line in draw_lines(panels, [broken], 80))
    assert "training nan (nan from 4)" in text
    svg = save_picture(panels, [broken], title="x", kind="svg")
    assert svg.startswith(b"<?xml")


def test_nothing_but_nan() -> None:
    broken = Fit("x", (Point(1, {"loss": math.nan}), Point(2, {"loss": math.inf})))
    panels, _ = arrange([broken])
    assert text_of(draw_lines(panels, [broken], 80)[0]) == "loss"
    assert save_picture(panels, [broken], title="x", kind="png").startswith(b"\x89PNG")


def test_two_dots_of_a_cell() -> None:
    canvas = Canvas(2, 1, braille=True)
    canvas.draw([(0, 0), (1, 1)], colour="blue")
    ((text, colour),) = next(canvas.lines())
    assert (text, colour) == ("⡠⠊", "blue")


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_ticks_are_round_few_and_inside(low: float, width: float, most: int) -> None:
    found = ticks(low, low + width, most)
    assert 1 <= len(found) <= most
    assert all(low - width * 1e-6 <= value <= low + width * (1 + 1e-6) for value in found)


@given(st.floats(1e-8, 1e3), st.floats(30, 1e9), st.integers(3, 8))
def test_log_ticks_too(low: float, factor: float, most: int) -> None:
    found = log_ticks(low, low * factor, most)
    assert 1 <= len(found) <= most
    assert all(low * 0.99 <= value <= low * factor * 1.01 for value in found)


def test_the_same_curves_give_the_same_bytes() -> None:
    fits = [fit("one", loss=0.2, acc=0.9), fit("two", loss=0.9, acc=0.4)]
    panels, _ = arrange(fits)
    for kind in ("png", "svg"):
        assert save_picture(panels, fits, title="t", kind=kind) == save_picture(
            panels, fits, title="t", kind=kind
        )


def test_a_page_needs_no_other_file_and_escapes_names() -> None:
    fits = [fit("<b>one</b> & $x$", loss=0.2, val_loss=0.5), fit("two", loss=0.9)]
    panels, _ = arrange(fits)
    page = make_page(panels, fits, title="<script>")
    assert "<script>" not in page
    assert "<b>" not in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    root = ET.fromstring(page.partition("<body>")[2].partition("</body>")[0].join(["<body>", "</body>"]))
    cells = ["".join(cell.itertext()) for cell in root.iter("td")]
    assert cells[:5] == ["<b>one</b> & $x$", "loss", "0.2", "0.2", "epoch 12"]


def test_a_dollar_is_a_dollar() -> None:
    """matplotlib would read a formula, and fail on this one."""
    fits = [fit("cost $\\frac{$", loss=0.2), fit("two", loss=0.9)]
    panels, _ = arrange(fits)
    assert save_picture(panels, fits, title="$\\nope{$", kind="png").startswith(b"\x89PNG")


def test_without_matplotlib_the_message_names_the_extra() -> None:
    """In a process in which matplotlib cannot be imported."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from cloudrun.curves.picture import save_picture\n"
        "from cloudrun.errors import UsageError\n"
        "try: save_picture([], [], title='', kind='png')\n"
        "except UsageError as error: print(error.message, '|', error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "pictures need matplotlib | pip install 'cloudrun[tools]'\n"
