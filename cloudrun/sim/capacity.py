"""How many more machines of a type a place has room for."""

from __future__ import annotations

import threading

from cloudrun.models import Market


class Capacity:
    """Without a limit: as many as anybody wants. A place is what the cloud has them by: a zone, a region."""

    def __init__(self) -> None:
        self._free: dict[tuple[str, str, str], int] = {}
        self._lock = threading.Lock()

    def set_free(self, type: str, place: str, market: str, count: int | None) -> None:
        """So many are free there from now on. "" stands for all places, or for both markets."""
        if count is not None and count < 0:
            raise ValueError("count is at least 0")
        with self._lock:
            self._free.pop((type, place, market), None)
            if count is not None:
                self._free[type, place, market] = count

    def free(self, type: str, place: str, market: Market) -> int | None:
        with self._lock:
            found = [self._free[key] for key in _keys(type, place, market) if key in self._free]
        return min(found, default=None)

    def take(self, type: str, place: str, market: Market, count: int) -> None:
        """So many are in use now; a negative count gives them back."""
        with self._lock:
            for key in _keys(type, place, market):
                if key in self._free:
                    self._free[key] -= count


def _keys(type: str, place: str, market: Market) -> list[tuple[str, str, str]]:
    return [(type, where, kind) for where in (place, "") for kind in (market.value, "")]
