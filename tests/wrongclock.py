"""A clock that is off, for machines under test: libfaketime (Debian's package `libfaketime`), preloaded."""

from __future__ import annotations

from pathlib import Path

import pytest


def environment(off: str) -> dict[str, str]:
    """Variables that make a program's wall clock wrong by `off`, as "+1h"; its monotonic clock stays right.

    The `faketime` command is left out: it makes a semaphore named by its process id, and fails
    when an earlier process of that id left its own behind.
    """
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("needs libfaketime")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": off,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
