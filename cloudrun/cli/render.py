"""The only printer. stdout is data; stderr is progress, questions and errors.

On a terminal one line of stderr may be transient (a bar): it is wiped before anything else is written.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

from cloudrun.cli.shapes import error_shape
from cloudrun.cli.table import GAP, Column, layout
from cloudrun.cli.text import cut, visible, visible_lines
from cloudrun.errors import CloudrunError, Interrupted

WIPE = "\r\x1b[2K"
COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "dim": "2", "bold": "1"}
WORD_COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "lost": "red",
    "timed-out": "red",
    "cancelled": "yellow",
    "preempted": "yellow",
    "stopped": "yellow",
    "running": "blue",
    "starting": "blue",
    "queued": "blue",
    "releasing": "blue",
    "pending": "blue",
    "wrong": "red",
    "warning": "yellow",
    "mended": "green",
}

_transient = False  # a bar stands on the terminal's last line
_mid_line = False  # the log's last line on the terminal has no newline yet


def data(line: str = "") -> None:
    """One line of data."""
    _clear()
    print(line, file=sys.stdout)  # noqa: T201  # this is the printer


def lines(some: Iterable[str]) -> None:
    for line in some:
        data(line)


def say(line: str = "") -> None:
    """One line of progress."""
    _clear()
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # this is the printer


def log(text: str, *, to_stderr: bool = False) -> None:
    """A piece of a job's log, already harmless; shown at once, lines may still be open."""
    global _mid_line  # there is one terminal
    if not text:
        return
    _wipe()
    stream = sys.stderr if to_stderr else sys.stdout
    stream.write(text)
    stream.flush()
    _mid_line = stream.isatty() and not text.endswith("\n")


def content(chunk: bytes) -> None:
    """Bytes as they are, to stdout."""
    _clear()
    sys.stdout.flush()
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def transient(line: str) -> None:
    """Show a line on a terminal until something else is written; nothing elsewhere."""
    global _transient  # there is one terminal
    if not sys.stderr.isatty() or _mid_line:
        return
    sys.stderr.write(WIPE + cut(visible(line), columns() - 1))
    sys.stderr.flush()
    _transient = True


def as_json(value: Any) -> None:
    data(json.dumps(value, indent=2))


def table(titles: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Cells are escaped here, so that no name can steer the terminal."""
    safe = [[visible(cell) for cell in row] for row in rows]
    header, *body = layout(titles, safe, columns())
    data(colour((" " * GAP).join(header).rstrip(), "dim"))
    for cells in body:
        data((" " * GAP).join(_state(cell) for cell in cells).rstrip())


def error(failure: CloudrunError, *, as_json: bool) -> None:
    """Message and hint, or the error object, on stderr."""
    if as_json:
        say(json.dumps(error_shape(failure)))
        return
    label = "" if isinstance(failure, Interrupted) else colour("error:", "red", sys.stderr) + " "
    say(label + visible_lines(failure.message))
    if failure.hint:
        say(f"{colour('hint:', 'dim', sys.stderr)}  {visible_lines(failure.hint)}")


def interactive() -> bool:
    """Is there somebody to ask?"""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> bool:
    """Yes or no from the terminal; the end of input is no."""
    _clear()
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def columns() -> int:
    """The terminal's width; 120 where stdout is a file or a pipe, which wraps nothing."""
    return shutil.get_terminal_size((120, 24)).columns


def colour(text: str, name: str, stream: IO[str] | None = None) -> str:
    """Coloured on a terminal, unless NO_COLOR is set (no-color.org)."""
    stream = stream or sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{COLOURS[name]}m{text}\x1b[0m"


def _state(cell: str) -> str:
    name = WORD_COLOURS.get(cell.strip())
    return colour(cell, name) if name else cell


def _clear() -> None:
    """Before a whole line: wipe the bar, end an open line of the log."""
    global _mid_line  # there is one terminal
    _wipe()
    if _mid_line:
        _mid_line = False
        sys.stdout.write("\n")
        sys.stdout.flush()


def _wipe() -> None:
    global _transient  # there is one terminal
    if _transient:
        _transient = False
        sys.stderr.write(WIPE)
        sys.stderr.flush()
