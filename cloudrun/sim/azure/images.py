"""Managed images: the disk of a generalized machine, kept; and what a machine boots from, whoever made it.

An image has the generation of its machine, and serves its own region alone. No recording has one: refusals
are worded as Microsoft lists them ("Common error messages when you manage virtual machines in Azure") and
as users quote them in public (2021 to 2025); answers are as the REST reference has them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from cloudrun.sim.azure.kinds import Kind, Put
from cloudrun.sim.azure.life import Vm
from cloudrun.sim.azure.operations import Operation, Operations
from cloudrun.sim.azure.platform_images import PlatformImage, find_image
from cloudrun.sim.azure.store import Resource, World
from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptDisk:
    """What a machine boots from that names an image of the subscription's own: Linux, as all here."""

    generation: str
    disk_gb: int
    folder: Path | None  # as MachineHost.capture gave it; None where no machine boots
    version: str = ""
    windows: bool = False


def boot_disk(world: World, reference: Body, location: str) -> PlatformImage | KeptDisk:
    """What the reference of a machine's storage profile means. Raises ApiError where there is none."""
    if not reference.get("id"):
        return find_image(reference)
    found = world.get(str(reference["id"]))
    if found is None or not isinstance(found.kind, Images) or found.location != location:
        raise ApiError("NotFound", f"The Image '{reference['id']}' cannot be found in '{location}' region.")
    if found.state != "Succeeded":
        raise ApiError(
            "OperationNotAllowed",
            f"The resource 'Virtual Machine' cannot be created from Image '{found.name}' until Image has "
            "been successfully created.",
        )
    return found.kind.kept(found)


class Images(Kind):
    """`find` is VirtualMachines.find."""

    type = "Microsoft.Compute/images"
    schema = "compute:images"
    rank = 25

    def __init__(
        self, world: World, operations: Operations, find: Callable[[Resource | None], Vm | None]
    ) -> None:
        super().__init__(world, operations)
        self._find = find
        self._folders: dict[str, Path] = {}  # by guid

    def kept(self, image: Resource) -> KeptDisk:
        """What boots from one that is there."""
        properties = image.properties
        size_gb = int(properties["storageProfile"]["osDisk"]["diskSizeGB"])
        return KeptDisk(str(properties["hyperVGeneration"]), size_gb, self._folders.get(image.guid))

    def fill(self, put: Put) -> None:
        """Tags may change later, and nothing else."""
        told = put.resource.properties
        if put.before is not None:
            before = put.before["properties"]
            if any(told[name] != before.get(name) for name in told):
                raise ApiError(
                    "PropertyChangeNotAllowed", "Changing property 'sourceVirtualMachine' is not allowed."
                )
            put.resource.body["properties"] = deepcopy(before)
            return
        vm = self._source(told, put.resource.location)
        generation = told.setdefault("hyperVGeneration", "V1")
        if generation != vm.generation:
            raise ApiError(
                "InvalidParameter",
                f"The Input HyperVGeneration property: '{generation}' does not match with the "
                f"HyperVGeneration property: 'Gen{vm.generation[1]}' belonging to source: "
                "'sourceVirtualMachine'.",
                400,
            )
        told["storageProfile"] = {**told.get("storageProfile", {}), "osDisk": _disk_of(vm), "dataDisks": []}
        put.resource.state = "Creating"

    def _source(self, told: Body, location: str) -> Vm:
        """The machine that it is made of, if that is ready for it."""
        wanted = str((told.get("sourceVirtualMachine") or {}).get("id", ""))
        vm = self._find(self.world.get(wanted))
        if vm is None or vm.resource.location != location:
            raise ApiError(
                "NotFound",
                f"Source Virtual Machine '{wanted.rpartition('/')[2]}' specified in the request does not "
                "exist in this Azure location.",
            )
        security = vm.resource.properties.get("securityProfile") or {}
        if security.get("securityType", "Standard") != "Standard":
            raise ApiError(
                "OperationNotAllowed",
                "Creation of managed images are not supported for virtual machine with "
                f"{security['securityType']} security type.",
            )
        if not vm.generalized:
            raise ApiError(
                "OperationNotAllowed",
                f"The operation 'Create Image' requires the Virtual Machine '{vm.resource.name}' to be "
                "Generalized.",
            )
        return vm

    def accept_put(self, request: Request, resource: Resource, *, made: bool) -> Reply:
        """The disk is copied outside the lock, and may take longer than what is told to clients."""
        if not made:
            return super().accept_put(request, resource, made=False)
        operation = self.start(request, resource)
        self.world.timers.work(lambda: self._capture(resource, operation))
        return Reply(201, self.show(resource), operation.headers(request.base_url, location=False))

    def _capture(self, resource: Resource, operation: Operation) -> None:
        try:
            folder = self._copy(resource)
        except Exception:
            log.exception("%s is not made", resource.id)
            operation.late = ApiError("InternalExecutionError", "An internal execution error occurred.")
            folder = None

        def done() -> Body:
            resource.state = "Succeeded"
            resource.touch()
            if folder is not None:
                self._folders[resource.guid] = folder
            if self.world.get(resource.id) is not resource:
                self._discard(resource)  # it was deleted meanwhile
            return self.show(resource)

        self.operations.end_after(
            operation, self.put_delay_s(), done, lambda error: self._fail(resource, error)
        )

    def _copy(self, resource: Resource) -> Path | None:
        host = self.world.host
        with self.world.lock:
            source = self.world.get(str(resource.properties["sourceVirtualMachine"]["id"]))
            vm = self._find(source)
        if host is None:
            return None
        if vm is None:
            raise ValueError("its machine was deleted before its disk was copied")
        with vm.machine_lock:
            return host.capture(vm.resource.guid, resource.guid)

    def failed(self, resource: Resource, error: ApiError) -> None:  # noqa: ARG002  # it is told elsewhere
        self._discard(resource)

    def deleted(self, resource: Resource) -> None:
        """Machines that were made of it stay."""
        self._discard(resource)

    def _discard(self, resource: Resource) -> None:
        self._folders.pop(resource.guid, None)
        host = self.world.host
        if host is not None:
            self.world.timers.work(lambda: host.discard(resource.guid))

    def put_delay_s(self) -> float:
        return self.world.delays.disk_s

    def delete_delay_s(self) -> float:
        return self.world.delays.disk_s


def _disk_of(vm: Vm) -> Body:
    """As Azure shows it of an image, which has the disk's own size and kind."""
    told: Body = vm.resource.properties["storageProfile"]["osDisk"]
    managed = told.get("managedDisk") or {}
    return {
        "osType": told.get("osType", "Linux"),
        "osState": "Generalized",
        "diskSizeGB": told["diskSizeGB"],
        "managedDisk": {"id": managed.get("id", "")},
        "caching": told.get("caching", "ReadWrite"),
        "storageAccountType": managed.get("storageAccountType", "Standard_LRS"),
    }
