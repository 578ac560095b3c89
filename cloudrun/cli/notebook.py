"""notebook: trim what trainings printed into notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cloudrun import notebook as notebooks
from cloudrun.cli import render
from cloudrun.cli.lazy import Entry, LazyGroup, Verb
from cloudrun.cli.options import confirm, dry_run_option, json_option, yes_option
from cloudrun.cli.text import plural, size
from cloudrun.errors import UsageError

notebook = LazyGroup(
    "notebook",
    help="Make notebooks short enough to print.",
    sections={
        "Commands": (
            Entry("trim", "cloudrun.cli.notebook:trim", "Cut training outputs to first and last epoch."),
        )
    },
    examples=("cloudrun notebook trim course.ipynb -o short.ipynb",),
)


@click.command(
    cls=Verb,
    examples=(
        "cloudrun notebook trim course.ipynb -o short.ipynb",
        "cloudrun notebook trim course.ipynb --no-images --html course.html",
        "cloudrun notebook trim course.ipynb --dry-run",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it here, not in place.")
@click.option("--html", type=click.Path(path_type=Path), help="Write it as a web page that prints well.")
@click.option("--no-images", is_flag=True, help="Leave out pictures in outputs.")
@click.option("--no-tracebacks", is_flag=True, help="Leave out tracebacks; what was raised stays.")
@click.option("--no-counts", is_flag=True, help="Leave out the numbers of In [3] and Out[3].")
@dry_run_option
@yes_option
@json_option
def trim(
    file: Path, output: Path | None, html: Path | None, no_images: bool, no_tracebacks: bool, no_counts: bool,
    dry_run: bool, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Cut training outputs to first and last epoch.

    Keeps the first and the last epoch of everything that a training printed, and the last state of its
    progress bars. Code, text and other outputs stay as they are. Without -o and --html the file itself is
    changed, after a question.
    """
    found, major = notebooks.load_notebook(file)
    valid = not notebooks.why_invalid(found)
    report = notebooks.trim(found, images=not no_images, tracebacks=not no_tracebacks, counts=not no_counts)
    report.converted_from = major if major < notebooks.FORMAT else 0
    if valid and notebooks.why_invalid(found):
        raise UsageError(f"{file}: cut short it would be no valid notebook", hint="nothing was written")
    _say(report)
    if not dry_run:
        _write(found, file, output, html, yes=yes, changed=bool(report))
    if as_json:
        render.as_json(_shape(report))


def _say(report: notebooks.Report) -> None:
    """What was cut, cell by cell, then in all."""
    for number, cut in report.cells.items():
        render.say(f"cell {number:>3}  {', '.join(_parts(cut.epochs, cut.bars))}")
    total = [
        *_parts(report.total.epochs, report.total.bars),
        *([plural(report.images, "image")] if report.images else []),
        *([plural(report.tracebacks, "traceback")] if report.tracebacks else []),
        *([plural(report.counts, "count")] if report.counts else []),
    ]
    if report.converted_from:
        render.say(f"converted from nbformat {report.converted_from} to {notebooks.FORMAT}")
    render.say(f"cut: {', '.join(total)}" if total else "nothing to cut")


def _parts(epochs: int, bars: int) -> list[str]:
    return [
        *([plural(epochs, "epoch")] if epochs else []),
        *([plural(bars, "overwritten bar")] if bars else []),
    ]


def _write(
    found: Any, file: Path, output: Path | None, html: Path | None, *, yes: bool, changed: bool
) -> None:
    if html:
        page = notebooks.make_html(found, file.stem)
        notebooks.write_whole(html, page)
        render.say(f"{size(len(page.encode()))}, to print: {html}")
    if output:
        target = output / file.name if output.is_dir() else output
        before = file.stat().st_size
        notebooks.save_notebook(found, target)
        render.say(f"{size(before)} became {size(target.stat().st_size)}: {target}")
    elif not html and changed:
        confirm(f"Change {file}?", yes=yes)
        before = file.stat().st_size
        notebooks.save_notebook(found, file)
        render.say(f"{size(before)} became {size(file.stat().st_size)}: {file}")


def _shape(report: notebooks.Report) -> dict[str, object]:
    return {
        "epochs": report.total.epochs,
        "bars": report.total.bars,
        "images": report.images,
        "tracebacks": report.tracebacks,
        "counts": report.counts,
        "cells": [
            {"cell": number, "epochs": cut.epochs, "bars": cut.bars} for number, cut in report.cells.items()
        ],
    }
