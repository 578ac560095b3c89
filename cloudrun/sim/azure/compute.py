"""Machines, disks, sizes, quotas and prices: the double's Compute half, as double.py asks it.

virtual_machines.py   machines as resources    wanted.py  what a PUT asks for, what is refused at once
life.py               their power, and the machine behind each
power.py              the actions              instance_view.py  states in Azure's words
disks.py              managed disks            platform_images.py   the marketplace
images.py             images of one's own
sizes.py, supply.py, skus.py   what the subscription may have: sizes, room, restrictions, quotas
retail.py, odata.py   what it costs
spot.py, events.py    evictions, and what Azure announces    metadata.py  what a machine reads of itself

Where it differs from Azure, on purpose or because nobody needed it yet:

Machines
- What is under way with a machine's power is cut off by the next action (OperationPreempted); a change of
  its tags or body goes on beside it.
- The public address of a machine is that of its first interface that has one, from its next boot on.
- A redeployed machine is switched off and on again. Reimage, run commands and extensions are not there.
- A machine whose allocation failed has no power state at all until a PUT makes it or a DELETE ends it.
- In a subscription's list with statusOnly=true machines have their state alone: no tags, no profiles.
Disks
- Data disks, snapshots and lent disks are kept in the books; no machine sees them. Sizes of images are ours.
- An image is made of a machine alone, not of a disk, a snapshot or a blob, and has no data disks.
- A boot disk is resized while its machine is deallocated, a data disk below 4 TiB at any time.
Spot
- A machine is evicted by hand or by a price that was set; prices stand still otherwise.
- Eviction takes the room away: somebody else has it, as far as set_capacity counts.
What is to be had
- The sizes of the catalogue in the regions that it has prices for, the K80 family of long ago among them;
  other retired sizes are SkuNotAvailable.
- 384 vCPUs a region and family, none of H100, H200 and MI300 on a first day.
- Zones are 1, 2, 3 wherever a region has any, and have the same room. Restrictions are of a whole region.
- Where there is no room, a PUT is accepted and its operation fails, for spot as well.
Metadata
- Scheduled events are there at once, and for their own machine alone. Who asks more than five times a second
  is answered too. Attested data and identities that the user assigned are not there.
- Azure Resource Manager answers at 169.254.169.254 too (machines, disks, operations), for rehearsals; those
  calls are not among AzureDouble.calls().
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

from cloudrun.sim.azure.disks import Disks
from cloudrun.sim.azure.events import Events
from cloudrun.sim.azure.images import Images
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
            *Images(world, operations, self._machines.find).routes(),
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
