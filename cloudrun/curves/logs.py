"""Which kind of log is it? The content decides, never the name of the file."""

from __future__ import annotations

import json
from typing import Any

from cloudrun.curves.fit import Fit, titled
from cloudrun.curves.keras import is_keras, read_keras
from cloudrun.curves.lines import lines_of
from cloudrun.curves.plain import read_plain
from cloudrun.curves.tables import (
    is_columns,
    is_csv,
    read_columns,
    read_csv,
    read_json_lines,
    read_log_report,
)
from cloudrun.errors import UsageError

FORMATS = ("keras", "jsonl", "logreport", "csv", "columns", "plain")


def read_fits(text: str, title: str) -> tuple[str, list[Fit]]:
    """The format, one of FORMATS, and every training in the log, titled. A notebook's printed outputs count
    as a log. Raises UsageError where no curve is found."""
    text = text.removeprefix("\ufeff")
    kind, fits = _read(text)
    if not fits:
        raise UsageError(f"{title}: no curves found", hint="cloudrun plot --help says which logs are read")
    return kind, titled(fits, title)


def _read(text: str) -> tuple[str, list[Fit]]:
    whole = _json(text)
    if isinstance(whole, list):
        return "logreport", read_log_report(whole)
    if isinstance(whole, dict) and "cells" in whole:
        return _read(_printed(whole))
    lines = lines_of(text)
    if not lines:
        return "", []
    if lines[0].lstrip().startswith("{"):
        return "jsonl", read_json_lines(text)
    if is_csv(lines):
        return "csv", read_csv(text)
    if is_keras(lines):
        return "keras", read_keras(lines)
    if is_columns(lines):
        return "columns", read_columns(lines)
    return "plain", read_plain(lines)


def _json(text: str) -> Any:
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _printed(notebook: dict[str, Any]) -> str:
    """What the cells of a notebook printed, in order."""
    parts = []
    for cell in notebook["cells"] if isinstance(notebook["cells"], list) else []:
        for output in cell.get("outputs", []) if isinstance(cell, dict) else []:
            text = output.get("text", "") if isinstance(output, dict) else ""
            parts.append("".join(text) if isinstance(text, list) else str(text))
    return "\n".join(parts)
