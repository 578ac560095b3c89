"""Waiting for what a double does a moment later."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(ask: Callable[[], T], enough: Callable[[T], bool], *, within_s: float = 60.0) -> T:
    """The first answer that is enough. Fails with the last one when time is up."""
    give_up_at = time.monotonic() + within_s
    while not enough(found := ask()):
        assert time.monotonic() < give_up_at, found
        time.sleep(0.02)
    return found
