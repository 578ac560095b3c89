"""Runs one step of a clean-up and ends itself with SIGKILL right before a given change to the disk.

python killed_at.py HOME clean|undo|empty NUMBER
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudrun.cleaning import Choice
from cloudrun.client import Client
from cloudrun.config import Settings

CHANGES = ("rename", "unlink", "rmdir", "makedirs")


def main() -> None:
    home, step, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    client = Client(Settings(home=home))
    left = [number]
    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name), left))
    if step == "clean":
        client.clean(client.plan_cleanup(Choice()))
    elif step == "undo":
        client.undo_clean()
    else:
        client.empty_trash()


def counted(change: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def before(*args: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*args, **named)

    return before


if __name__ == "__main__":
    main()
