"""Things that happen a moment later, and long ones that nobody waits for."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

WORKERS = 8  # machines that boot or end at the same moment
STEPS = 2  # short changes of a state, which must not wait behind machines

log = logging.getLogger(__name__)


class Timers:
    """Runs functions later, or at once in the background. A failure is logged, never raised."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="cloudrun-sim-work")
        self._steps = ThreadPoolExecutor(STEPS, thread_name_prefix="cloudrun-sim-step")
        self._thread = threading.Thread(target=self._wait, name="cloudrun-sim-timers", daemon=True)
        self._thread.start()

    def after(self, delay_s: float, function: Callable[[], None]) -> None:
        """Run a short function in delay_s seconds. Returns at once; does nothing once closed."""
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._due, (time.monotonic() + delay_s, next(self._order), function))
            self._changed.notify()

    def work(self, function: Callable[[], None]) -> None:
        """Run a function that takes its time, as soon as a worker is free; does nothing once closed."""
        with self._changed:
            if not self._closed:
                self._workers.submit(_guarded, function)

    def close(self) -> None:
        """Forget what is due and wait for what runs. Idempotent."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()
        self._thread.join()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._steps.shutdown(wait=True, cancel_futures=True)

    def _wait(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                wait_s = self._due[0][0] - time.monotonic() if self._due else None
                if wait_s is None or wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
                function = heapq.heappop(self._due)[2]
                self._steps.submit(_guarded, function)


def _guarded(function: Callable[[], None]) -> None:
    try:
        function()
    except Exception:
        log.exception("a step of the rehearsal cloud failed")
