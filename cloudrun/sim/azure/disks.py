"""Managed disks: of their own, and those that a machine's PUT makes. They grow, and never shrink."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

from cloudrun.sim.azure.kinds import Kind, Put
from cloudrun.sim.azure.operations import Operations
from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.store import Resource, World
from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request, timestamp

GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
GIB = 1024**3
# Performance of standard HDDs up to 512 GiB (Azure, "Azure managed disk types"), which a disk's body shows.
_IOPS, _MBPS = 500, 60
LIVE_MOST_GB = 4095  # a data disk that stays below grows while its machine runs ("Expand without downtime")

Attached = Callable[[Resource], tuple[Resource, bool, bool] | None]
"""A disk -> the machine that has it, whether that is deallocated, and whether it boots from it."""


class Disks(Kind):
    type = "Microsoft.Compute/disks"
    schema = "compute:disks"
    rank = 15  # after the machines that have them
    word = "DiskOperations"
    put_status = (202, 202)
    put_location = True

    def __init__(
        self, world: World, operations: Operations, attached: Attached, grown: Callable[[Resource], None]
    ) -> None:
        super().__init__(world, operations)
        self._attached = attached
        self._grown = grown

    def routes(self) -> list[Route]:
        one = f"{GROUP}/providers/{self.type}/{{name0}}"
        return [
            *super().routes(),
            Route("POST", f"{one}/beginGetAccess", f"{self.type}/beginGetAccess/action", self._lend),
            Route("POST", f"{one}/endGetAccess", f"{self.type}/endGetAccess/action", self._lend),
        ]

    def _lend(self, request: Request) -> Reply:
        """An address where its content could be read, for a while; nothing is there."""
        disk = self.named(request)
        operation = self.start(request, disk)
        begins = request.path.lower().rstrip("/").endswith("/begingetaccess")
        address = f"https://md-rehearsal.blob.storage.azure.net/{disk.guid}/abcd?sig=none"
        output = {"accessSAS": address} if begins else None
        self.operations.end_after(operation, self.world.delays.disk_s, lambda: output)
        return Reply(202, None, operation.headers(request.base_url))

    def make(self, machine: Resource, name: str, told: Body) -> Resource:
        """The disk that a machine's PUT asks for, with the machine's tags, as Azure does."""
        body: Body = {
            "location": machine.location,
            "sku": {"name": (told.get("managedDisk") or {}).get("storageAccountType") or "Standard_LRS"},
            "properties": {
                "creationData": {"createOption": told["createOption"]},
                "diskSizeGB": told.get("diskSizeGB", 30),
            },
        }
        if told.get("osType"):
            body["properties"]["osType"] = told["osType"]
        for each in ("tags", "zones"):
            if machine.body.get(each):
                body[each] = deepcopy(machine.body[each])
        made = Resource(self, machine.group, (name,), machine.location, body, state="Succeeded")
        _complete(made)
        self.world.add(made)
        return made

    def fill(self, put: Put) -> None:
        resource, properties = put.resource, put.resource.properties
        if put.before is not None:
            before = put.before["properties"]
            for name, value in before.items():
                properties.setdefault(name, deepcopy(value))
            self._check_size(resource, int(before["diskSizeGB"]), int(properties["diskSizeGB"]))
        elif properties.get("creationData", {}).get("createOption") == "Empty" and not properties.get(
            "diskSizeGB"
        ):
            raise ApiError("InvalidParameter", "Required parameter 'disk.diskSizeGB' is missing (null).", 400)

    def settle(self, resource: Resource) -> None:
        _complete(resource)
        self._grown(resource)

    def show_new(self, resource: Resource) -> Body:
        """What its PUT and PATCH answer: what was asked for, and no id."""
        shown: Body = {"name": resource.name, "location": resource.location}
        shown |= {name: deepcopy(resource.body[name]) for name in self.extras if resource.body.get(name)}
        hidden = ("timeCreated", "uniqueId", "diskSizeBytes")
        properties = {name: value for name, value in resource.properties.items() if name not in hidden}
        return {
            **shown,
            "properties": {**deepcopy(properties), "provisioningState": "Updating", "isArmResource": True},
        }

    def view(self, resource: Resource) -> Body:
        shown = super().view(resource)
        user = self._attached(resource)
        shown["diskState"] = "Unattached" if user is None else "Reserved" if user[1] else "Attached"
        return shown

    def show(self, resource: Resource) -> Body:
        shown = super().show(resource)
        user = self._attached(resource)
        return shown if user is None else {**shown, "managedBy": user[0].id}

    def patch(self, request: Request, resource: Resource) -> Reply:
        """Size, kind and tags; carried out by an operation."""
        body = request.json()
        told = body.get("properties") or {}
        if "diskSizeGB" in told:
            self._check_size(resource, int(resource.properties["diskSizeGB"]), int(told["diskSizeGB"]))
        if "sku" in body:
            self._check_off(resource, "change the account type of")
        resource.properties.update(deepcopy(told))
        for each in ("tags", "sku"):
            if each in body:
                resource.body[each] = deepcopy(body[each])
        resource.state = "Updating"
        return self.accept_put(request, resource, made=False)

    def check_delete(self, resource: Resource) -> None:
        user = self._attached(resource)
        if user is not None:
            raise ApiError("OperationNotAllowed", f"Disk {resource.name} is attached to VM {user[0].id}.")

    def put_delay_s(self) -> float:
        return self.world.delays.disk_s

    def delete_delay_s(self) -> float:
        return self.world.delays.disk_s

    def _check_size(self, resource: Resource, old_gb: int, new_gb: int) -> None:
        if new_gb < old_gb:
            raise ApiError(
                "OperationNotAllowed",
                f"The disk/snapshot resource with id {resource.id} cannot be resized down. Reducing "
                "disk/snapshot "
                "size is not supported in Azure to prevent data loss. If you do need to reduce the size of "
                "the "
                "disk, please create new snapshot/disks with the appropriate size. More information is "
                "available "
                "at https://aka.ms/AzureDisksFAQ",
            )
        user = self._attached(self.world.get(resource.id) or resource)
        live = user is not None and not user[2] and new_gb <= LIVE_MOST_GB
        if new_gb > old_gb and not live:
            self._check_off(resource, "resize")

    def _check_off(self, resource: Resource, verb: str) -> None:
        user = self._attached(self.world.get(resource.id) or resource)
        if user is not None and not user[1]:
            raise ApiError(
                "OperationNotAllowed",
                f"Cannot {verb} disk {resource.name} while it is attached to running VM {user[0].id}. "
                "Resizing a "
                "disk of an Azure Virtual Machine requires the virtual machine to be deallocated. Please "
                "stop your "
                "VM and retry the operation.",
            )


def _complete(resource: Resource) -> None:
    """What Azure adds once a disk is there, and tells anew when it has grown."""
    sku = resource.body.setdefault("sku", {"name": "Standard_LRS"})
    sku.setdefault("tier", str(sku["name"]).partition("_")[0])
    properties = resource.properties
    properties.setdefault("diskIOPSReadWrite", _IOPS)
    properties.setdefault("diskMBpsReadWrite", _MBPS)
    properties.setdefault("encryption", {"type": "EncryptionAtRestWithPlatformKey"})
    properties.setdefault("networkAccessPolicy", "AllowAll")
    properties.setdefault("timeCreated", timestamp(resource.created_at))
    properties.setdefault("uniqueId", resource.guid)
    properties["diskSizeBytes"] = int(properties.get("diskSizeGB", 0)) * GIB
