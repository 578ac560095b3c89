"""What the PUT of a virtual machine asks for, and what Azure refuses about it before it accepts it."""

from __future__ import annotations

from decimal import Decimal

from cloudrun.models import Market
from cloudrun.sim.azure.images import Images, KeptDisk, boot_disk
from cloudrun.sim.azure.kinds import Put
from cloudrun.sim.azure.platform_images import PlatformImage
from cloudrun.sim.azure.sizes import Size, find_size, regions_of, sizes
from cloudrun.sim.azure.store import Resource, World
from cloudrun.sim.azure.supply import Supply, market_of
from cloudrun.sim.azure.wire import ApiError, Body

INTERFACES = "Microsoft.Network/networkInterfaces"
RESERVED_NAMES = ("admin", "administrator", "root", "guest", "user", "test", "console", "sys")  # some of them


class Wanted:
    """Checks a new machine, and completes its body as Azure does."""

    def __init__(self, world: World, supply: Supply) -> None:
        self._world = world
        self._supply = supply

    def check(self, put: Put) -> None:
        """Everything that is refused at once. Raises ApiError; the body is complete after it."""
        resource, properties = put.resource, put.resource.properties
        size = size_of(properties)
        self._check_place(resource, size)
        market = market_of(properties)
        self._world.refuse_or_pass(put.request, type=size.name, market=market.value)
        image = self._image(put, size)
        self.check_interfaces(put)
        check_spot(properties, size)
        _check_profile(properties, image)
        check_disks(properties, size)
        self._supply.check_price(size, resource.location, max_price(properties), "Create VM")
        self._supply.check_quota(size, resource.location, market)
        put.request.linked.append("Microsoft.Compute/disks/write")
        _complete(resource, image)

    def _check_place(self, resource: Resource, size: Size) -> None:
        if not any(resource.location in regions_of(each.name) for each in sizes()):
            raise ApiError(
                "LocationNotAvailableForResourceType",
                f"The provided location '{resource.location}' is not available for resource type "
                "'Microsoft.Compute/virtualMachines'.",
                400,
            )
        zones = resource.body.get("zones") or [""]
        self._supply.check_size(size, resource.location, str(zones[0]))

    def _image(self, put: Put, size: Size) -> PlatformImage | KeptDisk | None:
        """None: it boots from a disk that is there."""
        storage = put.resource.properties.get("storageProfile") or {}
        reference = storage.get("imageReference")
        if not reference:
            if (storage.get("osDisk") or {}).get("createOption") == "Attach":
                return None
            raise missing("imageReference")
        image = boot_disk(self._world, reference, put.resource.location)
        if isinstance(image, KeptDisk):
            self._world.authorization.check_linked(put.request, f"{Images.type}/read", reference["id"])
        if image.generation not in size.generations:
            raise ApiError(
                "BadRequest",
                f"The selected VM size '{size.name}' cannot boot Hypervisor Generation "
                f"'{image.generation[1]}'. "
                "If this was a Create operation please check that the Hypervisor Generation of the Image "
                "matches "
                "the Hypervisor Generation of the selected VM Size.",
                400,
            )
        return image

    def check_interfaces(self, put: Put) -> None:
        """They are there, ready, near, and nobody else's."""
        told = (put.resource.properties.get("networkProfile") or {}).get("networkInterfaces") or []
        if not told:
            raise missing("networkProfile")
        for each in told:
            wanted = str(each.get("id", ""))
            found = self._world.get(wanted)
            if found is None or found.location != put.resource.location:
                raise ApiError(
                    "InvalidResourceReference",
                    f"Resource {wanted} referenced by resource {put.resource.id} was not found. Please "
                    "make sure that "
                    "the referenced resource exists, and that both resources are in the same region.",
                    400,
                )
            if found.state != "Succeeded":
                raise ApiError(
                    "ReferencedResourceNotProvisioned",
                    f"Cannot proceed with operation because resource {wanted} used by resource "
                    f"{put.resource.id} is "
                    f"not in Succeeded state. Resource is in {found.state} state and the last operation that "
                    "updated/is updating the resource is PutNicOperation.",
                )
            for user, _ in self._world.referring(wanted):
                if user.id.lower() != put.resource.id.lower():
                    raise ApiError(
                        "NicInUse", f"Network Interface {wanted} is used by existing resource {user.id}.", 400
                    )
            self._world.authorization.check_linked(put.request, f"{INTERFACES}/join/action", wanted)


def size_of(properties: Body) -> Size:
    """Raises ApiError for a size that nothing has."""
    name = str((properties.get("hardwareProfile") or {}).get("vmSize", ""))
    found = find_size(name)
    if found is None:
        raise ApiError(
            "InvalidParameter",
            f"The value {name} provided for the VM size is not valid. The valid sizes in the current "
            "region are "
            f"listed by the resource SKUs API.",
            400,
            target="vmSize",
        )
    properties["hardwareProfile"]["vmSize"] = found.name
    return found


def max_price(properties: Body) -> Decimal | None:
    told = (properties.get("billingProfile") or {}).get("maxPrice")
    return None if told is None else Decimal(str(told))


def check_spot(properties: Body, size: Size) -> None:
    """The rules of "Error messages for Azure Spot Virtual Machines"."""
    spot, price = market_of(properties) == Market.SPOT, max_price(properties)
    if spot and not size.spot:
        raise ApiError(
            "AzureSpotIsNotSupportedForThisVMSize",
            f"Azure Spot Virtual Machine is not supported for this VM size {size.name}.",
        )
    if not spot and properties.get("evictionPolicy"):
        raise ApiError(
            "EvictionPolicyCanBeSetOnlyOnAzureSpotVirtualMachines",
            "Eviction policy can be set only on Azure Spot Virtual Machines.",
        )
    if price is not None and not spot:
        raise ApiError(
            "BillingProfileMaxPriceCanBeSetOnlyOnAzureSpotVirtualMachines",
            "Max price can be set only on Azure Spot Virtual Machines.",
        )
    if price is not None and price != -1 and price <= 0:
        raise ApiError(
            "MaxPriceValueInvalid", "Max price should be a value greater than 0, or -1 for the default.", 400
        )
    if spot:
        properties.setdefault("evictionPolicy", "Deallocate")


def check_disks(properties: Body, size: Size) -> None:
    """Premium disks for the sizes alone that take them; unique LUNs."""
    storage = properties["storageProfile"]
    disks = [
        storage.setdefault("osDisk", {"createOption": "FromImage"}),
        *storage.setdefault("dataDisks", []),
    ]
    for each in disks:
        kind = (each.get("managedDisk") or {}).get("storageAccountType", "")
        if kind.startswith("Premium") and not size.takes_premium_disks:
            raise ApiError(
                "InvalidParameter",
                f"Requested operation cannot be performed because the VM size {size.name} does not support "
                "the "
                f"storage account type {kind} of disk '{each.get('name', '')}'. Consider updating the VM "
                "to a size "
                "that supports Premium storage.",
                400,
            )
    numbers = [each.get("lun") for each in storage["dataDisks"]]
    if len(set(numbers)) < len(numbers):
        raise ApiError("InvalidParameter", "Two data disks have the same lun.", 400, target="dataDisk.lun")


def missing(name: str) -> ApiError:
    return ApiError("InvalidParameter", f"Required parameter '{name}' is missing (null).", 400, target=name)


def _check_profile(properties: Body, image: PlatformImage | KeptDisk | None) -> None:
    profile = properties.get("osProfile")
    if image is None:
        return
    if not profile:
        raise missing("osProfile")
    user = str(profile.get("adminUsername", ""))
    if not user:
        raise missing("osProfile.adminUsername")
    if user.lower() in RESERVED_NAMES:
        raise ApiError(
            "InvalidParameter",
            "The Admin Username specified is not allowed.",
            400,
            target="adminUsername",
        )
    if not image.windows:
        _check_keys(profile, user)


def _check_keys(profile: Body, user: str) -> None:
    linux = profile.get("linuxConfiguration") or {}
    keys = (linux.get("ssh") or {}).get("publicKeys") or []
    if not profile.get("adminPassword") and not keys:
        raise ApiError(
            "InvalidParameter",
            "Authentication using either SSH or by user name and password must be enabled in Linux profile.",
            400,
            target="linuxConfiguration",
        )
    for each in keys:
        if each.get("path") != f"/home/{user}/.ssh/authorized_keys":
            raise ApiError(
                "InvalidParameter",
                "Destination path for SSH public keys is currently limited to its default value "
                f"/home/{user}/.ssh/authorized_keys  due to a known issue in Linux provisioning agent.",
                400,
                target="linuxConfiguration.ssh.publicKeys.path",
            )


def _complete(resource: Resource, image: PlatformImage | KeptDisk | None) -> None:
    """What Azure fills in. Passwords and custom data it never shows."""
    properties = resource.properties
    profile = properties.get("osProfile")
    if profile is not None:
        profile.pop("adminPassword", None)
        profile.setdefault("computerName", resource.name)
        profile.setdefault("secrets", [])
        profile.setdefault("allowExtensionOperations", True)
        profile.setdefault("requireGuestProvisionSignal", True)
    if profile is not None and image is not None and not image.windows:
        linux = profile.setdefault("linuxConfiguration", {})
        linux.setdefault("disablePasswordAuthentication", False)
        linux.setdefault("provisionVMAgent", True)
    if image is not None and image.version:
        properties["storageProfile"]["imageReference"]["exactVersion"] = image.version
    os_disk = properties["storageProfile"]["osDisk"]
    os_disk.setdefault("osType", "Windows" if image is not None and image.windows else "Linux")
    os_disk.setdefault("caching", "ReadWrite")
    if image is not None and int(os_disk.setdefault("diskSizeGB", image.disk_gb)) < image.disk_gb:
        raise ApiError(
            "InvalidParameter",
            f"The specified disk size {os_disk['diskSizeGB']} GB is smaller than the size of the "
            "corresponding "
            f"disk in the VM image: {image.disk_gb} GB. This is not allowed. Please choose equal or "
            "greater size or "
            "do not specify an explicit size.",
            400,
            target="osDisk.diskSizeGB",
        )
