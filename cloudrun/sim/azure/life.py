"""The life of a virtual machine: starting, running, stopped, deallocated, gone, with what runs behind it.

Each change is announced at once and done a moment later; the operation that asked for it ends with it. A new
operation cuts an older one off, as Azure does. Machines boot and end outside the lock, one thing at a time.
"""

from __future__ import annotations

import base64
import binascii
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cloudrun.models import Market
from cloudrun.sim.azure.addresses import Interfaces, PublicAddresses
from cloudrun.sim.azure.operations import Operation
from cloudrun.sim.azure.sizes import Size, find_size
from cloudrun.sim.azure.store import Resource, World
from cloudrun.sim.azure.supply import Supply, market_of
from cloudrun.sim.azure.wire import ApiError, Body
from cloudrun.sim.packages import cards
from cloudrun.sim.spec import METADATA_URL, MachineSpec, Respond, SimMachine

if TYPE_CHECKING:
    from cloudrun.sim.azure.events import Event

log = logging.getLogger(__name__)

INSIDE = {"CLOUDRUN_AZURE_METADATA_ENDPOINT": METADATA_URL, "CLOUDRUN_AZURE_ENDPOINT": METADATA_URL}
HAS_ROOM = ("starting", "running", "stopping", "stopped", "deallocating")  # of its host, and is billed for it
CUSTOM_DATA_LETTERS = 87_380  # base64 of 65,535 bytes (REST reference, osProfile.customData)


@dataclass(eq=False, slots=True)
class Vm:
    """A virtual machine beyond its resource: its power, its room, and the machine behind it."""

    resource: Resource
    custom_data: str = ""  # base64, which Azure never shows again
    power: str = "starting"
    power_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    failure: ApiError | None = None  # why its last operation failed
    turn: int = 0  # grows with every operation: what belongs to an older one does nothing
    operation: Operation | None = None
    has_room: bool = False
    generation: str = "V1"  # of Hyper-V, which its disk was made for
    image: Path | None = None  # the disk that it began with, where that is no platform image
    generalized: bool = False  # an image may be made of it, and nobody starts it again
    machine: SimMachine | None = None
    machine_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    events: list[Event] = field(default_factory=list)
    incarnation: int = 1  # of the document of its events

    @property
    def size(self) -> Size:
        found = find_size(str(self.resource.properties["hardwareProfile"]["vmSize"]))
        if found is None:
            raise ValueError("it was made with a size that there is")
        return found

    @property
    def market(self) -> Market:
        return market_of(self.resource.properties)

    @property
    def zone(self) -> str:
        zones = self.resource.body.get("zones") or [""]
        return str(zones[0])

    def become(self, power: str) -> None:
        self.power, self.power_at = power, datetime.now(UTC)


class Life:
    """Moves machines from state to state. All methods run under the world's lock and return at once."""

    def __init__(
        self,
        world: World,
        supply: Supply,
        respond: Callable[[Vm], Respond],
        powered_off: Callable[[str], None],
    ) -> None:
        self._world = world
        self._supply = supply
        self._respond = respond
        self._powered_off = powered_off

    def create(self, vm: Vm, operation: Operation) -> None:
        self._begin(vm, operation, "starting")
        failure = operation.late or self._allocate(vm)
        if failure is not None:
            self._later(vm, self._world.delays.creating_s, lambda: self._fail(vm, failure, power=""))
            return
        self._boot(vm, self._world.delays.creating_s)

    def update(self, vm: Vm, operation: Operation) -> None:
        """A change of its body, which is done. What is under way with its power goes on."""

        def end() -> None:
            with self._world.lock:
                if operation.late is not None:
                    operation.fail(operation.late)
                    return
                operation.finish()
                if not _busy(vm) and vm.resource.state == "Updating":
                    vm.resource.state = "Succeeded"

        self._world.timers.after(self._world.delays.disk_s, end)

    def start(self, vm: Vm, operation: Operation) -> None:
        before = vm.power
        self._begin(vm, operation, before if before == "running" else "starting")
        failure = operation.late or (self._allocate(vm) if not vm.has_room else None)
        if failure is not None:
            off = before if before == "stopped" else "deallocated"
            self._later(vm, self._world.delays.starting_s, lambda: self._fail(vm, failure, power=off))
            return
        self._boot(vm, self._world.delays.starting_s)

    def stop(self, vm: Vm, operation: Operation | None, *, deallocate: bool, grace_s: float) -> None:
        """Power off; deallocate also gives its room back. operation None: nobody asked for it."""
        _forget_events(vm)
        on_its_way, there = ("deallocating", "deallocated") if deallocate else ("stopping", "stopped")
        before = vm.power
        self._begin(vm, operation, before if before == "deallocated" else on_its_way)
        if operation is not None and operation.late is not None:
            failure = operation.late
            self._later(vm, self._world.delays.deallocating_s, lambda: self._fail(vm, failure, power=before))
            return
        if before == "deallocated":
            there = before

        def off() -> None:
            if vm.machine is not None:
                vm.machine.power_off(grace_s=grace_s)

        def done() -> None:
            if there == "deallocated":
                self.give_room_back(vm)
                self._release_addresses(vm)
            self._succeed(vm, there)

        self._work(vm, self._world.delays.deallocating_s, off, done)

    def reboot(self, vm: Vm, operation: Operation | None) -> None:
        self._begin(vm, operation, vm.power)
        if operation is not None and operation.late is not None:
            failure = operation.late
            self._later(vm, self._world.delays.starting_s, lambda: self._fail(vm, failure, power=vm.power))
            return

        def off_and_on() -> None:
            if vm.machine is not None:
                vm.machine.power_off(grace_s=self._world.delays.grace_s)
                vm.machine.boot()

        self._work(vm, self._world.delays.starting_s, off_and_on, lambda: self._succeed(vm, "running"))

    def halted(self, vm: Vm) -> None:
        """The system inside ended itself: the machine is off, keeps its room and is billed on."""
        if vm.power == "running":
            _forget_events(vm)
            vm.become("stopped")

    def end(self, vm: Vm) -> None:
        """It is deleted, and its machine with it."""
        _forget_events(vm)
        vm.turn += 1
        self._preempt(vm)
        self.give_room_back(vm)
        vm.become("deleted")
        self._world.timers.work(lambda: destroy(vm))

    def give_room_back(self, vm: Vm) -> None:
        if vm.has_room:
            vm.has_room = False
            self._supply.take(vm.size, vm.resource.location, vm.market, -1)

    def _release_addresses(self, vm: Vm) -> None:
        for each in public_addresses(self._world, vm.resource):
            assert isinstance(each.kind, PublicAddresses)  # noqa: S101 - it says so
            each.kind.release(each)

    # Operations, and what they wait for

    def _begin(self, vm: Vm, operation: Operation | None, power: str) -> None:
        vm.turn += 1
        self._preempt(vm)
        vm.operation, vm.failure = operation, None
        if power != vm.power:
            vm.become(power)

    def _preempt(self, vm: Vm) -> None:
        if vm.operation is not None and _busy(vm):
            vm.operation.fail(
                ApiError(
                    "OperationPreempted", "Operation execution has been preempted by a more recent operation."
                )
            )

    def _allocate(self, vm: Vm) -> ApiError | None:
        failure = self._supply.allocation_error(vm.size, vm.resource.location, vm.market, vm.zone)
        if failure is None:
            self._supply.take(vm.size, vm.resource.location, vm.market)
            vm.has_room = True
        return failure

    def _succeed(self, vm: Vm, power: str) -> None:
        if power == "running" and vm.machine is not None and not vm.machine.running:
            power = "stopped"  # its system ended itself before we looked
        if power != vm.power:
            vm.become(power)
        if vm.resource.state != "Deleting":
            vm.resource.state = "Succeeded"
        vm.resource.touch()
        if vm.operation is not None:
            vm.operation.finish()

    def _fail(self, vm: Vm, failure: ApiError, *, power: str) -> None:
        """It stays, with what was made for it, until somebody deletes it. power "": it never had any."""
        vm.failure = failure
        if vm.resource.state != "Deleting":
            vm.resource.state = "Failed"
        vm.become(power)
        if power not in HAS_ROOM:
            self.give_room_back(vm)
        if vm.operation is not None:
            vm.operation.fail(failure)

    def _boot(self, vm: Vm, delay_s: float) -> None:
        self._work(vm, delay_s, lambda: self._boot_machine(vm), lambda: self._succeed(vm, "running"))

    def _work(self, vm: Vm, delay_s: float, work: Callable[[], None], done: Callable[[], None]) -> None:
        """Something with its machine, in the background; `done` not before delay_s has passed."""
        turn, ready_at = vm.turn, time.monotonic() + delay_s

        def run() -> None:
            then = done
            try:
                with vm.machine_lock:
                    if vm.turn == turn:
                        work()
            except Exception:
                log.exception("%s fails", vm.resource.id)
                broken = ApiError(
                    "OSProvisioningTimedOut",
                    f"OS Provisioning for VM '{vm.resource.name}' did not finish in the allotted time. The "
                    "VM "
                    "may still finish provisioning successfully.",
                )
                then = lambda: self._fail(vm, broken, power="stopped")  # noqa: E731 - one of two ways to end
            self._later(vm, max(0.0, ready_at - time.monotonic()), then, turn)

        self._world.timers.work(run)

    def _later(self, vm: Vm, delay_s: float, done: Callable[[], None], turn: int | None = None) -> None:
        turn = vm.turn if turn is None else turn

        def arrive() -> None:
            with self._world.lock:
                if vm.turn == turn:
                    done()

        self._world.timers.after(delay_s, arrive)

    def _boot_machine(self, vm: Vm) -> None:
        host = self._world.host
        with self._world.lock:
            spec = self._spec(vm)
        if host is None:
            return
        if vm.machine is None:
            vm.machine = host.create(spec, on_off=self._powered_off)
        else:
            vm.machine.move(spec.host)
        vm.machine.boot()

    def _spec(self, vm: Vm) -> MachineSpec:
        profile = vm.resource.properties.get("osProfile", {})
        return MachineSpec(
            id=vm.resource.guid,
            host=self._host_address(vm),
            hostname=str(profile.get("computerName") or vm.resource.name),
            user=str(profile.get("adminUsername") or "azureuser"),
            user_data=decode(vm.custom_data),
            disk_gb=self._disk_gb(vm),
            respond=self._respond(vm),
            environ=INSIDE,
            image=vm.image,
            gpu=cards("azure", vm.size.name),
        )

    def _host_address(self, vm: Vm) -> str:
        for each in public_addresses(self._world, vm.resource):
            assert isinstance(each.kind, PublicAddresses)  # noqa: S101 - it says so
            return each.kind.allocate(each)
        return _nobodys_address(vm.resource.guid)

    def _disk_gb(self, vm: Vm) -> int:
        os_disk: Body = vm.resource.properties["storageProfile"]["osDisk"]
        disk = self._world.get(str(os_disk.get("managedDisk", {}).get("id", "")))
        return int(disk.properties["diskSizeGB"] if disk else os_disk.get("diskSizeGB", 30))


def _forget_events(vm: Vm) -> None:
    """What was announced to it does not come: it is off."""
    if vm.events:
        vm.events.clear()
        vm.incarnation += 1


def _busy(vm: Vm) -> bool:
    return vm.operation is not None and vm.operation.status == "InProgress"


def destroy(vm: Vm) -> None:
    """End its machine and remove all of it. Blocks; idempotent."""
    with vm.machine_lock:
        machine, vm.machine = vm.machine, None
        if machine is not None:
            machine.destroy()


def public_addresses(world: World, resource: Resource) -> list[Resource]:
    """The public addresses of its network interfaces, that of the primary one first."""
    kind = world.kinds[Interfaces.type.lower()]
    assert isinstance(kind, Interfaces)  # noqa: S101 - so registered by double.py
    found = (kind.public_address(each) for each in interfaces_of(world, resource))
    return [each for each in found if each is not None]


def interfaces_of(world: World, resource: Resource) -> list[Resource]:
    """Its network interfaces, the primary one first."""
    told = resource.properties.get("networkProfile", {}).get("networkInterfaces", [])
    ordered = sorted(told, key=lambda each: not each.get("properties", {}).get("primary", False))
    found = (world.get(str(each.get("id", ""))) for each in ordered)
    return [each for each in found if each is not None]


def decode(text: str) -> bytes:
    """Custom data as the machine gets it. Raises ApiError for what is no base64, or too much."""
    with suppress(binascii.Error):
        if len(text) <= CUSTOM_DATA_LETTERS:
            return base64.b64decode(text, validate=True)
    raise ApiError(
        "InvalidParameter",
        "Custom data in OSProfile must be in Base64 encoding and with a maximum length of 87380 characters.",
        400,
        target="customData",
    )


def _nobodys_address(guid: str) -> str:
    """A loopback address for a machine that nobody reaches from outside."""
    number = int(guid.replace("-", "")[:6], 16)
    return f"127.{192 + number % 32}.{number // 32 % 256}.{number // 8192 % 254 + 1}"
