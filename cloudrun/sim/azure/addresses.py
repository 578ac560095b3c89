"""Public addresses with their DNS names, and network interfaces."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from cloudrun.sim.azure.kinds import Put
from cloudrun.sim.azure.network import NAMESPACE, NetworkKind, SecurityGroups, Subnets, prefixes_of
from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.store import Resource, World
from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request

MACHINES = "Microsoft.Compute/virtualMachines"
RESERVED = 4  # the first addresses of a subnet are Azure's own
_LABEL = re.compile(r"[a-z][a-z0-9-]{1,61}[a-z0-9]")


class PublicAddresses(NetworkKind):
    """127.x.y.z on this computer. Static ones have it for good, dynamic ones while their machine is on."""

    type = f"{NAMESPACE}/publicIPAddresses"
    schema = "network:publicIPAddresses"
    rank = 20

    def fill(self, put: Put) -> None:
        resource = put.resource
        sku = resource.body.setdefault("sku", {})
        sku.setdefault("name", "Basic")
        properties = resource.properties
        properties.setdefault("publicIPAddressVersion", "IPv4")
        properties.setdefault("publicIPAllocationMethod", "Dynamic")
        properties.setdefault("idleTimeoutInMinutes", 4)
        properties.setdefault("ipTags", [])
        if sku["name"] != "Basic" and properties["publicIPAllocationMethod"] != "Static":
            raise ApiError(
                "InvalidRequestFormat",
                f"Standard sku publicIp {resource.id} must have AllocationMethod set to Static.",
                400,
            )
        self._name(resource)
        address = (put.before or {}).get("properties", {}).get("ipAddress")
        if address:
            properties["ipAddress"] = address

    def settle(self, resource: Resource) -> None:
        if resource.properties["publicIPAllocationMethod"] == "Static":
            self.allocate(resource)

    def allocate(self, resource: Resource) -> str:
        """Its address, a new one where it has none (a dynamic one whose machine starts)."""
        if not resource.properties.get("ipAddress"):
            resource.properties["ipAddress"] = self._free_address()
        return str(resource.properties["ipAddress"])

    def release(self, resource: Resource) -> None:
        """Its machine was deallocated: a dynamic address is let go."""
        if resource.properties["publicIPAllocationMethod"] == "Dynamic":
            resource.properties.pop("ipAddress", None)

    def check_delete(self, resource: Resource) -> None:
        users = [part for _, part in self.world.referring(resource.id)]
        if users:
            raise ApiError(
                "PublicIPAddressCannotBeDeleted",
                f"Public IP address {resource.id} can not be deleted since it is still allocated to resource "
                f"{users[0]}. In order to delete the public IP, disassociate/detach the Public IP address "
                "from the resource.  To learn how to do this, see aka.ms/deletepublicip.",
                400,
            )

    def view(self, resource: Resource) -> Body:
        shown = super().view(resource)
        for _, part in self.world.referring(resource.id):
            shown["ipConfiguration"] = {"id": part}
        return shown

    def _name(self, resource: Resource) -> None:
        """Its DNS name, which has to be free in its region."""
        dns = resource.properties.get("dnsSettings") or {}
        label = dns.get("domainNameLabel")
        if not label:
            return
        if not _LABEL.fullmatch(label):
            raise ApiError("InvalidDomainNameLabel", _bad_label(label), 400)
        dns["fqdn"] = full_name(label, resource.location)
        owner = owner_of(self.world, dns["fqdn"])
        if owner is not None and owner.id.lower() != resource.id.lower():
            raise ApiError(
                "DnsRecordInUse", f"DNS record {dns['fqdn']} is already used by another public IP.", 400
            )

    def _free_address(self) -> str:
        """At random, so that two doubles on one computer rarely meet; none twice."""
        taken = {each.properties.get("ipAddress") for each in self.world.resources(type=self.type)}
        chance = random.SystemRandom()
        while True:
            address = ".".join(map(str, (127, *(chance.randrange(16, 250) for _ in range(3)))))
            if address not in taken:
                return address


class Interfaces(NetworkKind):
    type = f"{NAMESPACE}/networkInterfaces"
    schema = "network:networkInterfaces"
    rank = 10

    def fill(self, put: Put) -> None:
        request, resource = put.request, put.resource
        properties = resource.properties
        configurations = properties.get("ipConfigurations") or []
        if not configurations:
            raise ApiError(
                "NetworkInterfaceMustHaveIpConfiguration",
                f"Network interface {resource.id} must have one or more IP configurations.",
                400,
            )
        if properties.get("networkSecurityGroup"):
            self.needs(request, resource, properties["networkSecurityGroup"], SecurityGroups.type)
        for at, each in enumerate(configurations):
            self._fill_configuration(request, resource, each, first=at == 0)
        properties.setdefault("dnsSettings", {"dnsServers": [], "appliedDnsServers": []})
        for name in ("enableAcceleratedNetworking", "enableIPForwarding"):
            properties.setdefault(name, False)
        for name in ("hostedWorkloads", "tapConfigurations"):
            properties.setdefault(name, [])
        properties.setdefault("nicType", "Standard")

    def _fill_configuration(
        self, request: Request, resource: Resource, configuration: Body, *, first: bool
    ) -> None:
        properties = configuration.setdefault("properties", {})
        subnet_id = self.needs(request, resource, properties.get("subnet"), Subnets.type)
        ours = f"{resource.id}/ipConfigurations/{configuration.get('name', '')}"
        if properties.get("publicIPAddress"):
            address = self.needs(request, resource, properties["publicIPAddress"], PublicAddresses.type)
            for user, part in self.world.referring(address):
                if user.id.lower() != resource.id.lower():
                    raise ApiError(
                        "PublicIPAddressInUse",
                        f"Resource {ours} is referencing public IP address {address} that is already "
                        f"allocated to resource {part}.",
                        400,
                    )
        configuration["id"] = ours
        configuration["type"] = f"{self.type}/ipConfigurations"
        properties.setdefault("privateIPAllocationMethod", "Dynamic")
        properties.setdefault("privateIPAddressVersion", "IPv4")
        properties.setdefault("primary", first)
        if not properties.get("privateIPAddress"):
            properties["privateIPAddress"] = self._private_address(subnet_id, ours)

    def check_delete(self, resource: Resource) -> None:
        users = [user for user, _ in self.world.referring(resource.id)]
        if users:
            raise ApiError(
                "NicInUse",
                f"Network Interface {resource.id} is used by existing resource {users[0].id}. In order to "
                "delete the network interface, it must be dissociated from the resource. To learn more, see "
                "aka.ms/deletenic.",
                400,
            )

    def references(self, resource: Resource) -> Iterator[tuple[str, str]]:
        group = resource.properties.get("networkSecurityGroup") or {}
        if group.get("id"):
            yield group["id"], resource.id
        for each in resource.properties.get("ipConfigurations") or []:
            for name in ("subnet", "publicIPAddress"):
                target = (each["properties"].get(name) or {}).get("id")
                if target:
                    yield target, f"{resource.id}/ipConfigurations/{each['name']}"

    def view(self, resource: Resource) -> Body:
        shown = super().view(resource)
        for each in shown["ipConfigurations"]:
            each["etag"] = f'W/"{resource.etag}"'
            each["properties"]["provisioningState"] = resource.state
        for user, _ in self.world.referring(resource.id):
            if user.kind.type == MACHINES:
                shown["virtualMachine"] = {"id": user.id}
                shown["primary"] = True
        return shown

    def public_address(self, resource: Resource) -> Resource | None:
        """The public address of its first configuration that has one."""
        for each in resource.properties["ipConfigurations"]:
            address = (each["properties"].get("publicIPAddress") or {}).get("id", "")
            if address:
                return self.world.get(address)
        return None

    def _private_address(self, subnet_id: str, configuration: str) -> str:
        """The first that is free in the subnet; the one that it has already, if it has one."""
        taken: dict[str, str] = {}
        for each in self.world.resources(type=self.type):
            for other in each.properties.get("ipConfigurations") or []:
                if (other["properties"].get("subnet") or {}).get("id", "").lower() == subnet_id.lower():
                    taken[other["properties"]["privateIPAddress"]] = other["id"]
        for address, owner in taken.items():
            if owner.lower() == configuration.lower():
                return address
        subnet = self.world.get(subnet_id)
        network = prefixes_of(subnet)[0] if subnet else None
        for at in range(RESERVED, network.num_addresses - 1 if network else 0):
            if network and str(network[at]) not in taken:
                return str(network[at])
        raise ApiError("SubnetIsFull", f"Subnet {subnet_id} does not have enough capacity.", 400)


class DnsNames:
    """Whether a name is free."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        place = f"/subscriptions/{{subscription}}/providers/{NAMESPACE}/locations/{{location}}"
        return [
            Route(
                "GET",
                f"{place}/CheckDnsNameAvailability",
                f"{NAMESPACE}/locations/checkDnsNameAvailability/read",
                self._check,
            )
        ]

    def _check(self, request: Request) -> Reply:
        label = request.query.get("domainnamelabel", "")
        if not _LABEL.fullmatch(label):
            raise ApiError("InvalidDomainNameLabel", _bad_label(label), 400)
        name = full_name(label, request.params["location"].lower())
        return Reply(200, {"available": owner_of(self._world, name) is None})


def full_name(label: str, region: str) -> str:
    return f"{label}.{region}.cloudapp.azure.com"


def owner_of(world: World, name: str) -> Resource | None:
    """The public address that has this DNS name."""
    for each in world.resources(type=PublicAddresses.type):
        if (each.properties.get("dnsSettings") or {}).get("fqdn") == name:
            return each
    return None


def _bad_label(label: str) -> str:
    return (
        f"The domain name label {label} is invalid. It must conform to the following regular expression: "
        f"^{_LABEL.pattern}$."
    )


ADDRESS_KINDS = (PublicAddresses, Interfaces)
