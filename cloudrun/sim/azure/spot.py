"""Evictions of spot machines, with 30 seconds of notice, and the other things that happen to machines.

An evicted machine is deallocated (its disk stays, nobody starts it again) or deleted, as its policy says
(Azure, "Use Azure Spot Virtual Machines", read 2026-11).
"""

from __future__ import annotations

from cloudrun.models import Market
from cloudrun.sim.azure.events import FREEZE, PREEMPT, REBOOT, REDEPLOY, TERMINATE, Events
from cloudrun.sim.azure.life import Life, Vm
from cloudrun.sim.azure.store import World
from cloudrun.sim.azure.supply import Supply
from cloudrun.sim.azure.virtual_machines import VirtualMachines
from cloudrun.sim.azure.wanted import max_price

NOTICE_S = 30.0
ACTIONS = ("Deallocate", "Delete")


class Spot:
    """All methods run under the world's lock and return at once. Mistakes are ValueErrors."""

    def __init__(
        self, world: World, machines: VirtualMachines, supply: Supply, life: Life, events: Events
    ) -> None:
        self._world = world
        self._machines = machines
        self._supply = supply
        self._life = life
        self._events = events
        self.notice_s = NOTICE_S

    def preempt(self, vm: Vm, notice_s: float, action: str) -> None:
        """Evict it in notice_s seconds, sooner once it says that it is ready; 0: without a word."""
        if vm.market != Market.SPOT or vm.power != "running":
            raise ValueError(
                f"{vm.resource.name} is {vm.market.value} and {vm.power}: only running spot is evicted"
            )
        action = action or str(vm.resource.properties.get("evictionPolicy", "Deallocate"))
        if action not in ACTIONS:
            raise ValueError(f"action {action!r}; known: {', '.join(ACTIONS)}")
        if notice_s <= 0:
            self._evict(vm, action)
            return
        self._events.announce(vm, PREEMPT, notice_s, lambda: self._evict(vm, action))

    def event(self, vm: Vm, kind: str, notice_s: float) -> None:
        """Announce what Azure does to any machine."""
        happen = {
            FREEZE: lambda: None,
            REBOOT: lambda: self._life.reboot(vm, None),
            REDEPLOY: lambda: self._life.reboot(vm, None),
            TERMINATE: lambda: self._delete(vm),
        }
        if kind == PREEMPT:
            self.preempt(vm, notice_s, "")
            return
        if kind not in happen:
            raise ValueError(f"no event {kind!r}; known: {', '.join((*happen, PREEMPT))}")
        if vm.power != "running":
            raise ValueError(f"{vm.resource.name} is {vm.power}: events are for running machines")
        self._events.announce(vm, kind, notice_s, happen[kind])

    def price_rose(self, type: str, region: str) -> None:
        """Machines whose maximum is below the price are evicted."""
        for vm in list(self._machines.vms):
            if vm.power != "running" or vm.market != Market.SPOT:
                continue
            if (vm.size.name.lower(), vm.resource.location) != (type.lower(), region):
                continue
            most, price = max_price(vm.resource.properties), self._supply.spot_price(vm.size, region)
            if most is not None and most != -1 and price is not None and most < price:
                self.preempt(vm, self.notice_s, "")

    def _evict(self, vm: Vm, action: str) -> None:
        if vm.power != "running":
            return
        vm.has_room = False  # somebody else has it now
        if action == "Delete":
            self._delete(vm)
            return
        self._life.stop(vm, None, deallocate=True, grace_s=0)

    def _delete(self, vm: Vm) -> None:
        vm.resource.state = "Deleting"

        def gone() -> None:
            with self._world.lock:
                vm.resource.kind.drop(vm.resource)

        self._world.timers.after(self._world.delays.deleting_s, gone)
