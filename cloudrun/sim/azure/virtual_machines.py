"""Virtual machines as resources: made, shown, listed, changed and deleted. What runs behind them: life.py."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from copy import deepcopy

from cloudrun.sim.azure.disks import Disks
from cloudrun.sim.azure.images import KeptDisk, boot_disk
from cloudrun.sim.azure.instance_view import instance_view
from cloudrun.sim.azure.kinds import Kind, Put
from cloudrun.sim.azure.life import Life, Vm, decode, interfaces_of
from cloudrun.sim.azure.operations import Operations
from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.store import Resource, World
from cloudrun.sim.azure.supply import MACHINES, Supply
from cloudrun.sim.azure.wanted import Wanted, check_disks, check_spot, max_price, size_of
from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request

ONE = (
    "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name0}"
)


class VirtualMachines(Kind):
    type = MACHINES
    schema = "compute:virtualMachines"
    rank = 0
    notifies = True

    def __init__(self, world: World, operations: Operations, supply: Supply) -> None:
        super().__init__(world, operations)
        self._supply = supply
        self._wanted = Wanted(world, supply)
        self.vms: list[Vm] = []  # all that ever were
        self.life: Life
        self.disks: Disks

    def routes(self) -> list[Route]:
        view = Route("GET", f"{ONE}/instanceView", f"{self.type}/instanceView/read", self._instance_view)
        return [*super().routes(), view]

    def find(self, resource: Resource | None) -> Vm | None:
        """The machine behind a resource."""
        return next((vm for vm in self.vms if vm.resource is resource), None) if resource else None

    def vm(self, resource: Resource) -> Vm:
        found = self.find(resource)
        if found is None:
            raise ApiError("ResourceNotFound", f"The Resource '{resource.id}' was not found.")
        return found

    def named_vm(self, request: Request) -> Vm:
        return self.vm(self.named(request))

    # A PUT

    def fill(self, put: Put) -> None:
        resource = put.resource
        if put.before is None:
            custom_data = str((resource.properties.get("osProfile") or {}).get("customData", ""))
            self._wanted.check(put)
            decode(custom_data)
            resource.state = "Creating"
        else:
            self._fill_change(put, put.before)
        self._identify(resource, put.before)

    def _fill_change(self, put: Put, before: Body) -> None:
        """What a PUT leaves out stays; what cannot be changed has to be as it was."""
        properties, old = put.resource.properties, before["properties"]
        for name, value in old.items():
            properties.setdefault(name, deepcopy(value))
        profile = properties.get("osProfile") or {}
        vm = self.vm(self.world.get(put.resource.id) or put.resource)
        if profile.get("customData", vm.custom_data) != vm.custom_data:
            raise _unchangeable("osProfile.customData")
        for name in ("adminUsername", "computerName"):
            if profile.get(name, old["osProfile"].get(name)) != old["osProfile"].get(name):
                raise _unchangeable(f"osProfile.{name}")
        self._check_changes(properties, old, vm)
        kept = ("customData", "adminPassword")
        properties["osProfile"] = {
            **deepcopy(old["osProfile"]), **{key: value for key, value in profile.items() if key not in kept}
        }  # fmt: skip
        storage = properties["storageProfile"]
        storage["osDisk"] = {**deepcopy(old["storageProfile"]["osDisk"]), **storage.get("osDisk", {})}
        storage["imageReference"] = deepcopy(old["storageProfile"].get("imageReference"))
        self._wanted.check_interfaces(put)
        check_disks(properties, size_of(properties))

    def _check_changes(self, properties: Body, old: Body, vm: Vm) -> None:
        size = size_of(properties)
        if size.name != old["hardwareProfile"]["vmSize"]:
            self._supply.check_size(size, vm.resource.location, vm.zone)
            if vm.power != "deallocated":
                raise ApiError(
                    "OperationNotAllowed",
                    f"Unable to resize the VM {vm.resource.name} because the requested size {size.name} is "
                    "not "
                    "available in the current hardware cluster. The available sizes in this cluster are: "
                    f"{vm.size.name}. Read more on VM resizing strategy at https://aka.ms/azure-resizevm.",
                )
        if properties.get("priority", "Regular") != old.get("priority", "Regular"):
            raise _unchangeable("priority")
        if max_price(properties) != max_price(old) and vm.power != "deallocated":
            raise ApiError(
                "MaxPriceUpdateRequiresVMToBeDeallocated",
                "Max price change is not allowed while the VM is allocated. Please deallocate it first.",
            )
        check_spot(properties, size)

    def _identify(self, resource: Resource, before: Body | None) -> None:
        """A system-assigned identity gets its object id, and keeps it."""
        known = (before or {}).get("identity") or {}
        told = resource.body.get("identity") or (deepcopy(known) if before else {})
        if "SystemAssigned" not in str(told.get("type", "")):
            resource.body.pop("identity", None)
            return
        told["principalId"] = known.get("principalId") or str(uuid.uuid4())
        told["tenantId"] = self.world.tokens.tenant
        resource.body["identity"] = told
        self.world.authorization.principals.add(told["principalId"])

    def stored(self, put: Put) -> None:
        resource = put.resource
        if put.before is None:
            resource.properties["vmId"] = resource.guid
            profile = resource.properties.get("osProfile") or {}
            vm = Vm(resource, custom_data=str(profile.pop("customData", "")))
            if reference := resource.properties["storageProfile"].get("imageReference"):
                boots = boot_disk(self.world, reference, resource.location)
                vm.generation = boots.generation
                vm.image = boots.folder if isinstance(boots, KeptDisk) else None
            self.vms.append(vm)
            self._make_os_disk(resource)
        self._make_data_disks(resource)

    def accept_put(self, request: Request, resource: Resource, *, made: bool) -> Reply:
        vm, operation = self.vm(resource), self.start(request, resource)
        if made or not vm.power:
            self.life.create(vm, operation)
        else:
            self.life.update(vm, operation)
        headers = operation.headers(request.base_url, location=False) | self._notification()
        return Reply(201 if made else 200, self.show(resource), headers)

    def patch(self, request: Request, resource: Resource) -> Reply:
        """Tags, identity, and what a deallocated machine can change; carried out by an operation."""
        body, vm = request.json(), self.vm(resource)
        changed = deepcopy(resource.properties)
        _merge(changed, body.get("properties") or {})
        self._check_changes(changed, resource.properties, vm)
        check_disks(changed, size_of(changed))
        before = deepcopy(resource.body)
        resource.body["properties"] = changed
        if "tags" in body:
            resource.body["tags"] = body["tags"] or {}
        if "identity" in body:
            resource.body["identity"] = deepcopy(body["identity"])
        self._identify(resource, before)
        self._make_data_disks(resource)
        resource.state = "Updating"
        return self.accept_put(request, resource, made=False)

    # Its disks

    def _make_os_disk(self, resource: Resource) -> None:
        told: Body = resource.properties["storageProfile"]["osDisk"]
        if "vhd" in told:
            return  # a file in a storage account, as in the first years
        name = told.setdefault("name", f"{resource.name}_OsDisk_1_{uuid.uuid4().hex}")
        if told["createOption"] == "Attach":
            return
        if self.world.get(self.disks.id_of(resource.group, (name,))):
            raise ApiError(
                "ConflictingUserInput", f"Disk {name} already exists in resource group {resource.group}."
            )
        self._made(resource, told, name)

    def _make_data_disks(self, resource: Resource) -> None:
        for at, told in enumerate(resource.properties["storageProfile"].get("dataDisks", [])):
            told.setdefault("caching", "None")
            told.setdefault("toBeDetached", False)
            if told["createOption"] == "Attach":
                disk = self.world.get(str((told.get("managedDisk") or {}).get("id", "")))
                if disk is None:
                    raise ApiError("NotFound", f"Disk {told.get('name', '')} is not found.")
                told["name"], told["diskSizeGB"] = disk.name, disk.properties["diskSizeGB"]
                told["managedDisk"] = {"id": disk.id, "storageAccountType": disk.body["sku"]["name"]}
            elif not (told.get("managedDisk") or {}).get("id"):
                name = told.setdefault("name", f"{resource.name}_disk{at + 2}_{uuid.uuid4().hex}")
                self._made(resource, told, name)

    def _made(self, resource: Resource, told: Body, name: str) -> None:
        disk = self.disks.make(resource, name, told)
        told["managedDisk"] = {
            **(told.get("managedDisk") or {}), "id": disk.id, "storageAccountType": disk.body["sku"]["name"]
        }  # fmt: skip

    def attached(self, disk: Resource) -> tuple[Resource, bool, bool] | None:
        """The machine that has a disk, whether that is deallocated, and whether it boots from it."""
        for user, part in self.world.referring(disk.id):
            vm = self.find(user)
            if vm is not None:
                return user, vm.power in ("deallocated", ""), part.endswith("/osDisk")
        return None

    def grown(self, disk: Resource) -> None:
        """A disk has another size: its machine's gets bigger, when it is the one that it boots from."""
        user = self.attached(disk)
        if user is None:
            return
        size_gb = int(disk.properties["diskSizeGB"])
        vm, storage = self.vm(user[0]), user[0].properties["storageProfile"]
        for told in (storage["osDisk"], *storage.get("dataDisks", [])):
            if str((told.get("managedDisk") or {}).get("id", "")).lower() == disk.id.lower():
                told["diskSizeGB"] = size_gb
        machine = vm.machine
        if user[2] and machine is not None:
            self.world.timers.work(lambda: machine.grow(size_gb))

    # What it is connected to, and its end

    def references(self, resource: Resource) -> Iterator[tuple[str, str]]:
        for each in resource.properties.get("networkProfile", {}).get("networkInterfaces", []):
            yield str(each.get("id", "")), resource.id
        storage = resource.properties.get("storageProfile", {})
        for told, part in (
            (storage.get("osDisk", {}), "osDisk"),
            *((each, "dataDisks") for each in storage.get("dataDisks", [])),
        ):
            disk_id = str((told.get("managedDisk") or {}).get("id", ""))
            if disk_id:
                yield disk_id, f"{resource.id}/{part}"

    def delete_delay_s(self) -> float:
        return self.world.delays.deleting_s

    def deleted(self, resource: Resource) -> None:
        """Its machine ends; with it go the disks, interfaces and addresses whose delete option says so."""
        self.life.end(self.vm(resource))
        self.world.authorization.principals.discard(str(resource.body.get("identity", {}).get("principalId")))
        storage = resource.properties["storageProfile"]
        for told in (storage["osDisk"], *storage.get("dataDisks", [])):
            if told.get("deleteOption") == "Delete":
                self._drop(str((told.get("managedDisk") or {}).get("id", "")))
        going = [
            str(each.get("id", ""))
            for each in resource.properties["networkProfile"]["networkInterfaces"]
            if (each.get("properties") or {}).get("deleteOption") == "Delete"
        ]
        for interface in interfaces_of(self.world, resource):
            for each in interface.properties.get("ipConfigurations") or []:
                address = each["properties"].get("publicIPAddress") or {}
                if (address.get("properties") or {}).get("deleteOption") == "Delete":
                    each["properties"].pop("publicIPAddress")
                    self._drop(str(address["id"]))
        for each_id in going:
            self._drop(each_id)

    def _drop(self, id: str) -> None:
        found = self.world.get(id)
        if found is not None:
            found.kind.drop(found)

    # Looking at it

    def get(self, request: Request) -> Reply:
        found = self.named(request)
        shown = self.show(found)
        if request.query.get("$expand", "").lower() == "instanceview":
            shown["properties"]["instanceView"] = instance_view(self.vm(found))
        return Reply(200, shown, {"ETag": f'"{found.etag}"'})

    def _instance_view(self, request: Request) -> Reply:
        return Reply(200, instance_view(self.named_vm(request)))

    def _list(self, request: Request) -> Reply:
        """Run-time states come with statusOnly=true (of a subscription), and then little else."""
        if request.query.get("$expand") and not request.query.get("$filter"):
            raise ApiError(
                "InvalidParameter",
                "The $expand option can be used with a $filter alone.",
                400,
                target="$expand",
            )
        reply = super()._list(request)
        if request.query.get("statusonly", "").lower() == "true":
            reply.body["value"] = [self._status(str(each["id"])) for each in reply.body["value"]]
        return reply

    def _status(self, id: str) -> Body:
        resource = self.world.get(id)
        assert resource is not None  # noqa: S101 - it was just listed
        return {
            "name": resource.name,
            "id": resource.id,
            "type": self.type,
            "location": resource.location,
            "properties": {
                "vmId": resource.guid,
                "provisioningState": resource.state,
                "instanceView": instance_view(self.vm(resource)),
            },
        }


def _merge(into: Body, told: Body) -> None:
    """Objects are merged, everything else is replaced."""
    for name, value in told.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = deepcopy(value)


def _unchangeable(name: str) -> ApiError:
    return ApiError(
        "PropertyChangeNotAllowed", f"Changing property '{name}' is not allowed.", 409, target=name
    )
