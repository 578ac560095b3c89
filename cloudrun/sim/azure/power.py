"""The actions on a virtual machine: start, deallocate, powerOff, restart, redeploy, simulateEviction, and
those that Azure refuses on machines of this kind."""

from __future__ import annotations

from collections.abc import Callable

from cloudrun.models import Market
from cloudrun.sim.azure.life import Life, Vm
from cloudrun.sim.azure.operations import Operation
from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.spot import Spot
from cloudrun.sim.azure.store import World
from cloudrun.sim.azure.supply import MACHINES, Supply
from cloudrun.sim.azure.virtual_machines import ONE, VirtualMachines
from cloudrun.sim.azure.wanted import max_price
from cloudrun.sim.azure.wire import ApiError, Reply, Request

# What Azure answered to them in its own recordings.
_REFUSED = {
    "performMaintenance": "Operation 'performMaintenance' is not allowed on VM '{name}' since the "
    "Subscription of "
    "this VM is not eligible.",
    "convertToManagedDisks": "VM '{name}' is already using managed disks.",
    "reimage": "The Reimage and OSUpgrade Virtual Machine actions require that the virtual machine has "
    "Automatic "
    "OS Upgrades enabled.",
}


class Power:
    """Handlers of these calls."""

    def __init__(
        self, world: World, machines: VirtualMachines, supply: Supply, life: Life, spot: Spot
    ) -> None:
        self._world = world
        self._machines = machines
        self._supply = supply
        self._life = life
        self._spot = spot

    def routes(self) -> list[Route]:
        actions = {
            "start": self._start,
            "deallocate": self._deallocate,
            "powerOff": self._power_off,
            "restart": self._restart,
            "redeploy": self._redeploy,
            "reapply": self._reapply,
            "simulateEviction": self._simulate_eviction,
            "generalize": self._generalize,
            **dict.fromkeys(_REFUSED, self._refuse),
        }
        return [
            Route("POST", f"{ONE}/{name}", f"{MACHINES}/{name}/action", handler)
            for name, handler in actions.items()
        ]

    def _start(self, request: Request) -> Reply:
        vm = self._named(request)
        self._need_whole(vm, "Start VM")
        self._world.refuse_or_pass(request, type=vm.size.name, market=vm.market.value)
        if not vm.has_room:
            self._supply.check_size(vm.size, vm.resource.location, vm.zone)
        if vm.market == Market.SPOT and not vm.has_room:
            price = max_price(vm.resource.properties)
            self._supply.check_price(vm.size, vm.resource.location, price, "Start VM")
        return self._accept(request, vm, lambda operation: self._life.start(vm, operation))

    def _deallocate(self, request: Request) -> Reply:
        vm = self._named(request)
        grace_s = self._world.delays.grace_s
        return self._accept(
            request, vm, lambda operation: self._life.stop(vm, operation, deallocate=True, grace_s=grace_s)
        )

    def _power_off(self, request: Request) -> Reply:
        """It keeps its room and is billed on."""
        vm = self._named(request)
        self._need_allocated(vm, "powerOff")
        hard = request.query.get("skipshutdown", "").lower() == "true"
        grace_s = 0.0 if hard else self._world.delays.grace_s
        return self._accept(
            request, vm, lambda operation: self._life.stop(vm, operation, deallocate=False, grace_s=grace_s)
        )

    def _restart(self, request: Request) -> Reply:
        vm = self._named(request)
        self._need_whole(vm, "Restart VM")
        self._need_allocated(vm, "restart")
        return self._accept(request, vm, lambda operation: self._life.reboot(vm, operation))

    def _redeploy(self, request: Request) -> Reply:
        """Another host: switched off and on again; one that is off stays off (recording: it is generalized
        next)."""
        vm = self._named(request)
        if vm.power == "stopped":
            return self._power_off(request)
        return self._restart(request)

    def _reapply(self, request: Request) -> Reply:
        vm = self._named(request)
        return self._accept(request, vm, lambda operation: self._life.update(vm, operation))

    def _simulate_eviction(self, request: Request) -> Reply:
        """Evicted within the notice, as if Azure needed the room (recording: 204, no operation)."""
        vm = self._named(request)
        if vm.market != Market.SPOT or vm.power != "running":
            raise ApiError(
                "OperationNotAllowed",
                f"Operation 'simulateEviction' is not allowed on VM '{vm.resource.name}' since it is not a "
                "running "
                "Azure Spot Virtual Machine.",
            )
        self._spot.preempt(vm, self._spot.notice_s, "")
        return Reply(204)

    def _generalize(self, request: Request) -> Reply:
        """Whoever calls says that the system inside is ready to be copied. Nobody starts it after this."""
        vm = self._named(request)
        if vm.power not in ("stopped", "deallocated"):
            raise ApiError(
                "OperationNotAllowed",
                f"Operation 'generalize' is not allowed on VM '{vm.resource.name}' since the VM is running. "
                "Please power off explicitly in case you shut down the VM from inside the guest operating "
                "system.",
            )
        vm.generalized = True
        return Reply(200)

    def _refuse(self, request: Request) -> Reply:
        vm = self._named(request)
        action = request.path.rstrip("/").rpartition("/")[2]
        text = next(text for name, text in _REFUSED.items() if name.lower() == action.lower())
        raise ApiError("OperationNotAllowed", text.format(name=vm.resource.name))

    def _accept(self, request: Request, vm: Vm, begin: Callable[[Operation], None]) -> Reply:
        operation = self._machines.start(request, vm.resource)
        vm.resource.state = "Updating"
        begin(operation)
        return Reply(202, None, operation.headers(request.base_url))

    def _named(self, request: Request) -> Vm:
        vm = self._machines.named_vm(request)
        request.region = vm.resource.location
        if vm.resource.state == "Deleting":
            action = request.path.rstrip("/").rpartition("/")[2]
            raise ApiError(
                "OperationNotAllowed",
                f"Operation '{action}' is not allowed on VM '{vm.resource.name}' since the VM is marked for "
                "deletion. You can only retry the Delete operation (or wait for an ongoing one to complete).",
            )
        return vm

    def _need_whole(self, vm: Vm, operation: str) -> None:
        if vm.generalized:
            raise ApiError(
                "OperationNotAllowed",
                f"Operation '{operation}' is not allowed on VM '{vm.resource.name}' since the VM is "
                "generalized.",
            )

    def _need_allocated(self, vm: Vm, action: str) -> None:
        if not vm.has_room:
            raise ApiError(
                "OperationNotAllowed",
                f"Operation '{action}' is not allowed on VM '{vm.resource.name}' since the VM is "
                "deallocated. Start "
                "the VM first.",
            )
