"""Machines, disks, sizes, quotas and prices: the double's Compute half, as double.py asks it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

from cloudrun.sim.azure.disks import Disks
from cloudrun.sim.azure.events import Events
from cloudrun.sim.azure.life import Life, Vm, destroy
from cloudrun.sim.azure.metadata import Metadata
from cloudrun.sim.azure.operations import Operations
from cloudrun.sim.azure.platform_images import PlatformImages
from cloudrun.sim.azure.power import Power
from cloudrun.sim.azure.retail import Retail
from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.skus import Skus
from cloudrun.sim.azure.spot import Spot
from cloudrun.sim.azure.store import World
from cloudrun.sim.azure.supply import Supply
from cloudrun.sim.azure.virtual_machines import VirtualMachines

CLOSING_THREADS = 8


class Compute:
    """Its kinds and calls, and what steers them. Mistakes in steering are ValueErrors."""

    def __init__(self, world: World, operations: Operations) -> None:
        self._world = world
        self._supply = Supply(world)
        self._machines = VirtualMachines(world, operations, self._supply)
        disks = Disks(world, operations, self._machines.attached, self._machines.grown)
        events = Events(world)
        metadata = Metadata(world, events)
        life = Life(world, self._supply, metadata.service, self._powered_off)
        self._machines.disks, self._machines.life = disks, life
        self._life = life
        self._spot = Spot(world, self._machines, self._supply, life, events)
        power = Power(world, self._machines, self._supply, life, self._spot)
        self._routes = [
            *power.routes(),
            *self._machines.routes(),
            *disks.routes(),
            *Skus(self._supply).routes(),
            *PlatformImages().routes(),
            *Retail(self._supply).routes(),
        ]
        metadata.lend([*self._routes, *operations.routes()])

    def routes(self) -> list[Route]:
        return self._routes

    def close(self) -> None:
        """End every machine. Called without the world's lock, once its timers have ended."""
        with ThreadPoolExecutor(CLOSING_THREADS) as threads:
            list(threads.map(destroy, self._machines.vms))

    def preempt(self, instance_id: str, *, notice_s: float, action: str | None) -> None:
        with self._world.lock:
            self._spot.preempt(self._find(instance_id), notice_s, action or "")

    def event(self, instance_id: str, kind: str, *, notice_s: float) -> None:
        with self._world.lock:
            self._spot.event(self._find(instance_id), kind, notice_s)

    def set_capacity(self, type: str, region: str, market: str, count: int | None) -> None:
        self._supply.set_capacity(type, region, market, count)

    def set_quota(self, region: str, family: str, limit: int) -> None:
        self._supply.set_quota(region, family, limit)

    def restrict(self, type: str, region: str, reason: str) -> None:
        self._supply.restrict(type, region, reason)

    def set_spot_price(self, type: str, region: str, usd: Decimal) -> None:
        with self._world.lock:
            self._supply.set_spot_price(type, region, usd)
            self._spot.price_rose(type, region)

    def halt(self, instance_id: str) -> None:
        """Without a machine behind it; one that has a machine hears of its shutdown by itself."""
        with self._world.lock:
            vm = self._find(instance_id)
            if vm.power != "running":
                raise ValueError(f"{instance_id} is {vm.power}: only running machines shut down")
            self._life.halted(vm)
        if vm.machine is not None:
            vm.machine.power_off()

    def instances(self) -> list[dict[str, Any]]:
        """Every machine that ever was, oldest first."""
        with self._world.lock:
            return [_row(vm) for vm in self._machines.vms]

    def _powered_off(self, machine_id: str) -> None:
        """From a thread of the machine's: the system inside ended itself."""
        with self._world.lock:
            for vm in self._machines.vms:
                if vm.resource.guid == machine_id:
                    self._life.halted(vm)

    def _find(self, instance_id: str) -> Vm:
        vm = self._machines.find(self._world.get(instance_id))
        if vm is None:
            raise ValueError(f"no instance {instance_id!r}")
        return vm


def _row(vm: Vm) -> dict[str, Any]:
    return {
        "id": vm.resource.id,
        "region": vm.resource.location,
        "zone": vm.zone,
        "type": vm.size.name,
        "market": vm.market.value,
        "state": vm.power or "failed",
        "request": "",
        "notice": vm.events[0].kind if vm.events else "",
        "tags": dict(vm.resource.tags),
    }
