"""How long a double takes, changed while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any


def delay(double: Any, **seconds: float) -> None:
    """From now on it takes so long for that; what it has begun ends as it would have."""
    world = double._running()
    world.delays = replace(world.delays, **seconds)


@contextmanager
def delayed(double: Any, **seconds: float) -> Iterator[None]:
    """It takes so long for what is begun inside."""
    world = double._running()
    before = world.delays
    delay(double, **seconds)
    try:
        yield
    finally:
        world.delays = before
