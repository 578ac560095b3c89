"""metrics.jsonl and TensorBoard events, rewritten whole from the history when a run is resumed.

The first line of metrics.jsonl is {"about": ...}: what the numbers were measured on. Then one line an epoch.
Everything in such a line repeats exactly on the same machine, but for "timing". JSON has no word for what is
not a number, or infinite: null stands there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:  # the package tensorboard is a convenience, not a need
    SummaryWriter = None


class Metrics:
    """Writes a line an epoch into `folder`. `history` holds the lines of the epochs done before."""

    def __init__(self, folder: Path, about: dict[str, Any], history: list[dict[str, Any]]) -> None:
        self.history = list(history)
        self._file = folder / "metrics.jsonl"
        self._board = self._open_board(folder / "tensorboard", about)
        partial = self._file.with_suffix(".partial")
        partial.write_text("".join(_line(entry) for entry in ({"about": about}, *history)), encoding="utf-8")
        partial.replace(self._file)

    def add(self, entry: dict[str, Any]) -> None:
        """One epoch: {"epoch": n, name: number, ..., "timing": {...}}. On the disk when it returns.

        A run of several trainings says which one with "cell": its numbers have that before their name.
        """
        self.history.append(entry)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())
        self._add_to_board(entry)

    def close(self) -> None:
        if self._board:
            self._board.close()

    def _open_board(self, folder: Path, about: dict[str, Any]) -> Any:
        shutil.rmtree(folder, ignore_errors=True)
        if SummaryWriter is None:
            print("tensorboard is not installed: no event files, metrics.jsonl holds the same", flush=True)
            return None
        self._board = SummaryWriter(str(folder))
        self._board.add_text("about", json.dumps(about, indent=1), 0)
        for entry in self.history:
            self._add_to_board(entry)
        return self._board

    def _add_to_board(self, entry: dict[str, Any]) -> None:
        if not self._board:
            return
        numbers = {**entry, **{f"timing/{name}": value for name, value in entry.get("timing", {}).items()}}
        cell = f"{entry['cell']}/" if "cell" in entry else ""
        for name, value in numbers.items():
            if isinstance(value, (int, float)) and name != "epoch":
                self._board.add_scalar(cell + name, value, entry["epoch"])
        self._board.flush()


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a small JSON file as a whole."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(file)


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(_finite(entry), separators=(", ", ": "), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The same with None in place of each number that JSON cannot say."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
