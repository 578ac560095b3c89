"""The record of calls that came in."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime

MOST_CALLS = 100_000  # remembered


@dataclass(frozen=True, slots=True)
class Call:
    """One call to Azure Resource Manager or to the price list.

    `operation` is Azure's name of the right that it takes; `linked` are those that it took beside it,
    on other resources. `code` is the error code that was answered, "" for success.
    """

    operation: str
    method: str
    path: str
    region: str
    at: datetime
    status: int
    code: str = ""
    linked: tuple[str, ...] = ()


class CallLog:
    """The last calls, oldest first. Safe from several threads."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=MOST_CALLS)
        self._lock = threading.Lock()

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def all(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()
