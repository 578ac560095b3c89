"""The end of a machine and of all that was made for it.

A machine with a group of its own ends with one call: Azure deletes the group and all in it, also when nobody
waits. In a group of the user's its parts go one by one, in the order in which they need each other.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from cloudrun.models import Machine
from cloudrun.providers.azure.arm import begin, gone, shown_or_none, state_of
from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.parts import DISK, IN_ORDER, IP, NIC, NSG, VM, VNET, Parts, parts_of_id, stem_of
from cloudrun.providers.azure.session import Session
from cloudrun.providers.launched import forget_keys

GOING = "Deleting"


def terminate(session: Session, machine: Machine) -> None:
    """End it and all that was made for it. Idempotent, silent when it is gone. A stranger with the same id
    stays. Returns at once; in a group of the user's it waits for the machine's end (a minute or two), and
    whoever repeats it after a kill goes on."""
    parts = parts_of_id(machine.id)
    if stem_of(machine.token) != parts.stem:
        return
    delete_parts(session, parts, region=machine.region)
    forget_keys(session.settings, [machine])


def delete_parts(session: Session, parts: Parts, *, region: str) -> None:
    """Delete what there is of a machine. Idempotent. Raises ProviderError where something cannot go."""
    with mapped(region=region, what="terminate"):
        if parts.own_group:
            delete_group(session, parts.group)
            return
        for kind in IN_ORDER:
            delete_part(session, parts.group, kind, parts.name(kind), wait=True)


def delete_group(session: Session, group: str) -> None:
    """Have the group deleted with all in it; silent where there is none, or where it goes already."""
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

    try:
        begin(session.resources.resource_groups.begin_delete, group)
    except ResourceNotFoundError:
        return
    except HttpResponseError as error:
        if error.error is None or error.error.code != "ResourceGroupBeingDeleted":
            raise


def delete_part(session: Session, group: str, kind: str, name: str, *, wait: bool) -> None:
    """Delete one resource; silent where there is none."""
    from azure.core.exceptions import ResourceNotFoundError

    operations = _operations(session)[kind]
    with suppress(ResourceNotFoundError):
        begun = begin(operations.begin_delete, group, name)
        if wait:
            gone(session, begun, lambda: shown_or_none(operations.get, group, name))


def is_standing(session: Session, parts: Parts) -> bool:
    """Whether what was made around a machine is there: after a termination it is not, or is going."""
    if parts.own_group:
        group = shown_or_none(session.resources.resource_groups.get, parts.group)
        return group is not None and state_of(group) != GOING
    security = session.network.network_security_groups.get
    return shown_or_none(security, parts.group, parts.name(NSG)) is not None


def _operations(session: Session) -> dict[str, Any]:
    network, compute = session.network, session.compute
    return {
        VM: compute.virtual_machines,
        DISK: compute.disks,
        NIC: network.network_interfaces,
        IP: network.public_ip_addresses,
        NSG: network.network_security_groups,
        VNET: network.virtual_networks,
    }
