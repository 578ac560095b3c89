"""Who may reach a machine: its own network, an address that stays, and port of SSH for known addresses only.

Each owner (user, host, home folder) has one rule of the machine's security group, for the address at which
the cloud sees this computer, and replaces only that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cloudrun.errors import NotFound
from cloudrun.models import Machine
from cloudrun.providers.azure.arm import Begun, Body, begin, id_of, settled, shown, shown_or_none
from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.parts import IP, NIC, NSG, VNET, Parts, parts_of_id
from cloudrun.providers.azure.session import Session
from cloudrun.providers.firewall import my_address
from cloudrun.providers.tags import owner_of

SUBNET = "machines"
SPACE = "10.7.0.0/24"  # of each machine's own network, which nothing else is in
FIRST_PRIORITY, LAST_PRIORITY = 1000, 4096  # of our rules; Azure's go to 4096
RULE = "ssh-"  # and the number of the owner


def make_network(
    session: Session,
    parts: Parts,
    region: str,
    tags: Mapping[str, str],
    *,
    visitor: str,
    dns_label: str,
    zone: str,
) -> str:
    """The machine's network, security group and public address, side by side; waits until they are there.
    `visitor` is the address that is let in. Returns the machine's own. Idempotent."""
    network, rule = session.network, _rule(session, visitor, priority=FIRST_PRIORITY)
    place = {"location": region, "tags": dict(tags)}
    address = {
        **place,
        "sku": {"name": "Standard"},
        "properties": {
            "publicIPAllocationMethod": "Static",
            "publicIPAddressVersion": "IPv4",
            "deleteOption": "Delete",
            **({"dnsSettings": {"domainNameLabel": dns_label}} if dns_label else {}),
        },
        **({"zones": [zone]} if zone else {}),
    }
    space: Mapping[str, Any] = {
        **place,
        "properties": {
            "addressSpace": {"addressPrefixes": [SPACE]},
            "subnets": [{"name": SUBNET, "properties": {"addressPrefix": SPACE}}],
        },
    }
    group: Mapping[str, Any] = {**place, "properties": {"securityRules": [rule]}}
    wanted = (
        (network.public_ip_addresses, IP, address, "make the public address"),
        (network.network_security_groups, NSG, group, "make the security group"),
        (network.virtual_networks, VNET, space, "make the network"),
    )
    with ThreadPoolExecutor(len(wanted), thread_name_prefix="azure") as pool:
        made = [
            pool.submit(_make, session, operations, parts, kind, body, region, what)
            for operations, kind, body, what in wanted
        ]
    bodies = [each.result() for each in made]
    return str(bodies[0]["properties"]["ipAddress"])


def make_interface(
    session: Session, parts: Parts, region: str, tags: Mapping[str, str], *, subnet: str
) -> None:
    """The machine's network interface, behind the security group, with the public address. `subnet` is the
    id of one of the user's, "" for the machine's own. Idempotent."""
    own = f"{id_of(session, parts.group, VNET, parts.name(VNET))}/subnets/{SUBNET}"
    address = {
        "name": "main",
        "properties": {
            "primary": True,
            "privateIPAllocationMethod": "Dynamic",
            "subnet": {"id": subnet or own},
            "publicIPAddress": {
                "id": id_of(session, parts.group, IP, parts.name(IP)),
                "properties": {"deleteOption": "Delete"},
            },
        },
    }
    body = {
        "location": region,
        "tags": dict(tags),
        "properties": {
            "ipConfigurations": [address],
            "networkSecurityGroup": {"id": id_of(session, parts.group, NSG, parts.name(NSG))},
        },
    }
    interfaces = session.network.network_interfaces
    _make(session, interfaces, parts, NIC, body, region, "make the network interface")


def open_access(session: Session, machine: Machine) -> None:
    """Let this computer's address of now in to the machine, and its earlier one no more. Idempotent: one call
    where it is let in already."""
    parts = parts_of_id(machine.id)
    groups, owner = session.network.network_security_groups, owner_of(session.settings)
    visitor = my_address(session.settings)
    with mapped(region=machine.region, what="open SSH"):
        found = shown_or_none(groups.get, parts.group, parts.name(NSG))
        if found is None:
            raise NotFound(f"the machine {machine.name} is gone", hint="cloudrun machines list --all")
        rules = found["properties"].get("securityRules") or []
        ours = next((rule for rule in rules if rule["properties"].get("description") == owner), None)
        wanted = _rule(session, visitor, priority=_priority(rules, ours))
        if ours is not None and _same(ours, wanted):
            return
        name = ours["name"] if ours else wanted["name"]
        session.network.security_rules.begin_create_or_update(
            parts.group, parts.name(NSG), name, {"properties": wanted["properties"]}, polling=False
        )


def _make(
    session: Session, operations: Any, parts: Parts, kind: str, body: Body, region: str, what: str
) -> Body:
    name = parts.name(kind)
    with mapped(region=region, what=what):
        begun: Begun = begin(operations.begin_create_or_update, parts.group, name, body)

        def look() -> Body:
            return shown(operations.get, parts.group, name)

        return settled(session, session.network, begun, look, region=region, what=what)


def _rule(session: Session, visitor: str, *, priority: int) -> dict[str, Any]:
    owner = owner_of(session.settings)
    return {
        "name": RULE + owner.rpartition(" ")[2],
        "properties": {
            "description": owner[:140],
            "priority": priority,
            "direction": "Inbound",
            "access": "Allow",
            "protocol": "Tcp",
            "sourceAddressPrefix": f"{visitor}/32",
            "sourcePortRange": "*",
            "destinationAddressPrefix": "*",
            "destinationPortRange": str(session.settings.ssh_port),
        },
    }


def _priority(rules: Sequence[Body], ours: Body | None) -> int:
    """Ours as it is; another owner's first rule comes behind those that are there."""
    if ours is not None:
        return int(ours["properties"]["priority"])
    taken = {int(rule["properties"]["priority"]) for rule in rules}
    return next(number for number in range(FIRST_PRIORITY, LAST_PRIORITY) if number not in taken)


def _same(rule: Body, wanted: Body) -> bool:
    keys = ("sourceAddressPrefix", "destinationPortRange", "access", "direction")
    return all(rule["properties"].get(key) == wanted["properties"][key] for key in keys)
