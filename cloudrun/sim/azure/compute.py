"""Machines and disks: the double's Compute half, as double.py asks it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from cloudrun.sim.azure.operations import Operations
from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.store import World


class Compute:
    """Its kinds and calls, and what steers them."""

    def __init__(self, world: World, operations: Operations) -> None:
        self._world = world
        self._operations = operations

    def routes(self) -> list[Route]:
        return []

    def close(self) -> None:
        """End every machine. Called without the world's lock, once its timers have ended."""

    def preempt(self, instance_id: str, *, notice_s: float, action: str | None) -> None:
        raise NotImplementedError

    def event(self, instance_id: str, kind: str, *, notice_s: float) -> None:
        raise NotImplementedError

    def set_capacity(self, type: str, region: str, market: str, count: int | None) -> None:
        raise NotImplementedError

    def set_quota(self, region: str, family: str, limit: int) -> None:
        raise NotImplementedError

    def restrict(self, type: str, region: str, reason: str) -> None:
        raise NotImplementedError

    def set_spot_price(self, type: str, region: str, usd: Decimal) -> None:
        raise NotImplementedError

    def halt(self, instance_id: str) -> None:
        raise NotImplementedError

    def instances(self) -> list[dict[str, Any]]:
        return []
