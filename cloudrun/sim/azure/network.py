"""Virtual networks with their subnets, and security groups with their rules."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import ClassVar

from cloudrun.sim.azure.kinds import Kind, Put
from cloudrun.sim.azure.store import Resource
from cloudrun.sim.azure.wire import ApiError, Body, Request

NAMESPACE = "Microsoft.Network"
_TAGS_OF_ADDRESSES = frozenset(("*", "internet", "virtualnetwork", "azureloadbalancer"))
_RANGES = ("sourcePortRanges", "destinationPortRanges", "sourceAddressPrefixes", "destinationAddressPrefixes")

# What every group has (Azure, "Default security rules"): name, priority, from, to, access, direction.
_DEFAULT_RULES = (
    ("AllowVnetInBound", 65000, "VirtualNetwork", "VirtualNetwork", "Allow", "Inbound"),
    ("AllowAzureLoadBalancerInBound", 65001, "AzureLoadBalancer", "*", "Allow", "Inbound"),
    ("DenyAllInBound", 65500, "*", "*", "Deny", "Inbound"),
    ("AllowVnetOutBound", 65000, "VirtualNetwork", "VirtualNetwork", "Allow", "Outbound"),
    ("AllowInternetOutBound", 65001, "*", "Internet", "Allow", "Outbound"),
    ("DenyAllOutBound", 65500, "*", "*", "Deny", "Outbound"),
)


class NetworkKind(Kind):
    """What resources of Microsoft.Network show beside the others: etag and a GUID of their own."""

    notifies = True

    def show(self, resource: Resource) -> Body:
        return {**super().show(resource), "etag": f'W/"{resource.etag}"'}

    def view(self, resource: Resource) -> Body:
        return {**super().view(resource), "resourceGuid": resource.guid}

    def needs(self, request: Request, user: Resource, reference: Body | None, type: str) -> str:
        """The id of a resource that another one names, checked: it is there, near, and may be used."""
        named = str((reference or {}).get("id", ""))
        found = self.world.get(named)
        if found is None or found.kind.type != type or found.location != user.location:
            raise ApiError(
                "InvalidResourceReference",
                f"Resource {named} referenced by resource {user.id} was not found. Please make sure that the "
                "referenced resource exists, and that both resources are in the same region.",
                400,
            )
        if found.state != "Succeeded":
            raise ApiError(
                "ReferencedResourceNotProvisioned",
                f"Cannot proceed with operation because resource {found.id} used by resource {user.id} is "
                f"not in Succeeded state. Resource is in {found.state} state.",
            )
        self.world.authorization.check_linked(request, f"{type}/join/action", found.id)
        return found.id


class ChildKind(NetworkKind):
    """A part of another resource that is a resource too. Its parent's PUT may hold it."""

    notifies = False
    rank = 50  # they go with their parent
    extras: ClassVar[tuple[str, ...]] = ()

    def show(self, resource: Resource) -> Body:
        return super().show(resource)

    def view(self, resource: Resource) -> Body:
        return {name: value for name, value in super().view(resource).items() if name != "resourceGuid"}

    def replace(self, request: Request, parent: Resource, bodies: list[Body]) -> None:
        """The parent has these children from now on. Raises before anything is changed."""
        old = {each.name.lower(): each for each in self.world.children(parent, self.type)}
        wanted = [(str(body.pop("name", "")), body) for body in bodies]
        for name in sorted(set(old) - {name.lower() for name, _ in wanted}):
            self.check_delete(old[name])
        made = [
            Resource(self, parent.group, (*parent.names, name), parent.location, body)
            for name, body in wanted
        ]
        for at, each in enumerate(made):
            before = old.get(each.name.lower())
            self.check(Put(request, each, before.body if before else None), made[:at])
        for gone in old.values():
            self.drop(gone)
        for each in made:
            self.world.add(each)

    def fill(self, put: Put) -> None:
        resource = put.resource
        parent = self.parent(resource.group, resource.names)
        siblings = [
            each
            for each in self.world.children(parent, self.type)
            if each.name.lower() != resource.name.lower()
        ]
        self.check(put, siblings)

    def check(self, put: Put, siblings: list[Resource]) -> None:
        """Complete a child's body, or raise ApiError: it does not fit its parent or its siblings."""


class ParentKind(NetworkKind):
    """A resource with children of one kind, which its own PUT holds in one property."""

    child: ClassVar[str] = ""  # type of its children
    holds: ClassVar[str] = ""  # the property that holds them

    @property
    def children(self) -> ChildKind:
        kind = self.world.kinds[self.child.lower()]
        assert isinstance(kind, ChildKind)  # noqa: S101 - told by `child`
        return kind

    def stored(self, put: Put) -> None:
        resource = put.resource
        bodies = resource.properties.pop(self.holds, None)
        if bodies is None:
            return
        try:
            self.children.replace(put.request, resource, bodies)
        except ApiError:
            if put.before is None:
                self.world.remove(resource)
            else:
                resource.body = put.before
            raise

    def settle(self, resource: Resource) -> None:
        for each in self.world.children(resource, self.child):
            each.state = "Succeeded"

    def view(self, resource: Resource) -> Body:
        shown = [self.children.show(each) for each in self.world.children(resource, self.child)]
        return {**super().view(resource), self.holds: shown}

    def check_delete(self, resource: Resource) -> None:
        for each in self.world.children(resource, self.child):
            self.children.check_delete(each)

    def deleted(self, resource: Resource) -> None:
        for each in self.world.children(resource, self.child):
            self.children.drop(each)


class VirtualNetworks(ParentKind):
    type = f"{NAMESPACE}/virtualNetworks"
    schema = "network:virtualNetworks"
    rank = 30
    child = f"{NAMESPACE}/virtualNetworks/subnets"
    holds = "subnets"

    def fill(self, put: Put) -> None:
        resource = put.resource
        prefixes = (resource.properties.get("addressSpace") or {}).get("addressPrefixes")
        if not prefixes:
            raise ApiError(
                "InvalidRequestFormat", "Virtual network needs an address space with address prefixes.", 400
            )
        for prefix in prefixes:
            _network(prefix, "InvalidAddressPrefixFormat")
        resource.properties.setdefault("virtualNetworkPeerings", [])
        resource.properties.setdefault("enableDdosProtection", False)


class Subnets(ChildKind):
    type = f"{NAMESPACE}/virtualNetworks/subnets"
    schema = "network:virtualNetworks/subnets"

    def check(self, put: Put, siblings: list[Resource]) -> None:
        resource = put.resource
        parent = self.parent(resource.group, resource.names)
        space = [_network(each, "") for each in parent.properties["addressSpace"]["addressPrefixes"]]
        ours = prefixes_of(resource)
        for mine in ours:
            if not any(mine.version == each.version and mine.subnet_of(each) for each in space):  # type: ignore[arg-type]
                raise ApiError(
                    "NetcfgSubnetRangeOutsideVnet",
                    f"Subnet '{resource.name}' is not valid because its IP address range is outside the IP "
                    f"address range of virtual network '{parent.name}'.",
                    400,
                )
        for other in siblings:
            if any(mine.overlaps(theirs) for mine in ours for theirs in prefixes_of(other)):
                raise ApiError(
                    "NetcfgSubnetRangesOverlap",
                    f"Subnet '{resource.name}' is not valid because its IP address range overlaps with that "
                    f"of an existing subnet in virtual network '{parent.name}'.",
                    400,
                )
        if resource.properties.get("networkSecurityGroup"):
            self.needs(
                put.request, resource, resource.properties["networkSecurityGroup"], SecurityGroups.type
            )
        for name, value in (
            ("delegations", []),
            ("privateEndpointNetworkPolicies", "Enabled"),
            ("privateLinkServiceNetworkPolicies", "Enabled"),
        ):
            resource.properties.setdefault(name, value)

    def check_delete(self, resource: Resource) -> None:
        users = [part for _, part in self.world.referring(resource.id)]
        if users:
            raise ApiError(
                "InUseSubnetCannotBeDeleted",
                f"Subnet {resource.name} is in use by {users[0]} and cannot be deleted. In order to delete "
                "the subnet, delete all the resources within the subnet. See aka.ms/deletesubnet.",
                400,
            )

    def references(self, resource: Resource) -> Iterator[tuple[str, str]]:
        group = resource.properties.get("networkSecurityGroup") or {}
        if group.get("id"):
            yield group["id"], resource.id

    def view(self, resource: Resource) -> Body:
        shown = super().view(resource)
        users = [part for _, part in self.world.referring(resource.id)]
        return {**shown, "ipConfigurations": [{"id": each} for each in users]} if users else shown


class SecurityGroups(ParentKind):
    type = f"{NAMESPACE}/networkSecurityGroups"
    schema = "network:networkSecurityGroups"
    rank = 40
    child = f"{NAMESPACE}/networkSecurityGroups/securityRules"
    holds = "securityRules"

    def fill(self, put: Put) -> None:
        put.resource.properties.setdefault(self.holds, [])  # a PUT without rules leaves none

    def check_delete(self, resource: Resource) -> None:
        users = [part for _, part in self.world.referring(resource.id)]
        if users:
            raise ApiError(
                "InUseNetworkSecurityGroupCannotBeDeleted",
                f"Network security group {resource.id} cannot be deleted because it is in use by the "
                f"following resources: {', '.join(users)}. In order to delete the Network security group, "
                "remove the association with the resource(s). To learn how to do this, see "
                "aka.ms/deletensg.",
                400,
            )

    def view(self, resource: Resource) -> Body:
        shown = super().view(resource)
        shown["defaultSecurityRules"] = [_default_rule(resource, *rule) for rule in _DEFAULT_RULES]
        for user, part in self.world.referring(resource.id):
            place = "networkInterfaces" if len(user.names) == 1 else "subnets"
            shown.setdefault(place, []).append({"id": part})
        return shown


class SecurityRules(ChildKind):
    type = f"{NAMESPACE}/networkSecurityGroups/securityRules"
    schema = "network:networkSecurityGroups/securityRules"

    def check(self, put: Put, siblings: list[Resource]) -> None:
        resource, rule = put.resource, put.resource.properties
        if not 100 <= rule["priority"] <= 4096:
            raise ApiError(
                "SecurityRuleInvalidPriority",
                f"Security rule has invalid Priority. Value provided: {rule['priority']} Allowed range "
                "100-4096.",
                400,
            )
        for prefix in _prefixes(rule):
            if prefix.lower() not in _TAGS_OF_ADDRESSES:
                _network(prefix, "SecurityRuleInvalidAddressPrefix")
        for other in siblings:
            theirs = other.properties
            if (theirs["priority"], theirs["direction"]) == (rule["priority"], rule["direction"]):
                raise ApiError(
                    "SecurityRuleConflict",
                    f"Security rule {resource.name} conflicts with rule {other.name}. Rules cannot have the "
                    f"same Priority and Direction.",
                    400,
                )
        for name in _RANGES:
            rule.setdefault(name, [])


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def prefixes_of(subnet: Resource) -> list[Network]:
    """The address ranges of a subnet. Raises ApiError where it has none."""
    told = subnet.properties.get("addressPrefixes") or [subnet.properties.get("addressPrefix")]
    if not told[0]:
        raise ApiError(
            "InvalidRequestFormat", f"Subnet '{subnet.name}' needs an addressPrefix or addressPrefixes.", 400
        )
    return [_network(each, "InvalidAddressPrefixFormat") for each in told]


def _network(prefix: str, code: str) -> Network:
    try:
        return ipaddress.ip_network(prefix)
    except ValueError as error:
        raise ApiError(code, f"The address prefix {prefix} is invalid: {error}.", 400) from error


def _prefixes(rule: Body) -> list[str]:
    found = [rule.get("sourceAddressPrefix"), rule.get("destinationAddressPrefix")]
    found += rule.get("sourceAddressPrefixes") or []
    found += rule.get("destinationAddressPrefixes") or []
    return [each for each in found if each]


def _default_rule(
    group: Resource, name: str, priority: int, source: str, destination: str, access: str, direction: str
) -> Body:
    return {
        "name": name,
        "id": f"{group.id}/defaultSecurityRules/{name}",
        "etag": f'W/"{group.etag}"',
        "type": f"{NAMESPACE}/networkSecurityGroups/defaultSecurityRules",
        "properties": {
            "provisioningState": group.state,
            "protocol": "*",
            "sourcePortRange": "*",
            "destinationPortRange": "*",
            "sourceAddressPrefix": source,
            "destinationAddressPrefix": destination,
            "access": access,
            "priority": priority,
            "direction": direction,
            **{each: [] for each in _RANGES},
        },
    }


NETWORK_KINDS = (VirtualNetworks, Subnets, SecurityGroups, SecurityRules)
