"""Disks: of which kind a machine's is, and how it grows.

Azure grows the disk of the system only while its machine is deallocated ("Expand virtual hard disks on a
Linux VM"): deallocate, change the size, start. None of these is waited for. Each call of resize_disk and
disk_ready looks where things stand and takes the next step, so whoever repeats it, after a kill at any point
too, goes on where it broke off. A tag on the machine says that it is off for this, and will be started again
whatever comes of it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

from cloudrun.catalog.loader import find_type, list_types
from cloudrun.errors import NotFound, Refused
from cloudrun.models import Machine
from cloudrun.providers import tags as t
from cloudrun.providers.azure import power
from cloudrun.providers.azure.errors import error_for, mapped
from cloudrun.providers.azure.power import DEALLOCATED, DEALLOCATING, RESIZING, Look
from cloudrun.providers.azure.session import Session

PROVIDER = "azure"
USUAL_TYPE = "StandardSSD_LRS"
# Standard_NC4as_T4_v3: what stands between the number of CPUs and the first "_" are the size's features, and
# "s" is premium storage ("Azure VM sizes naming conventions"); older ones have it in the family: DS2_v2.
SIZE = re.compile(r"Standard_(?P<family>[A-Z]+)\d+(-\d+)?(?P<features>[a-z]*)(_|$)")
OLD_PREMIUM_FAMILIES = ("DS", "GS")
# A data disk grows while its machine runs unless it crosses this size ("Expand without downtime").
MOST_ONLINE_GB = 4095
UNDER_WAY = ("", "starting", "stopping", DEALLOCATING)  # power states that pass by themselves
CHANGED_WITHIN_S = 20.0  # Azure changes a disk's size in a second or two; then it is looked at again later


def disk_type(asked: str, size: str, *, takes_premium: bool | None = None) -> str:
    """The kind of disk to launch with: what was asked for, else the usual one. No I/O.

    takes_premium is what Azure says of the size (its capability PremiumIO); None: its name tells. Raises
    Refused for a premium disk on a size that takes none.
    """
    if not asked.startswith("Premium"):
        return asked or USUAL_TYPE
    if named_premium(size) if takes_premium is None else takes_premium:
        return asked
    raise Refused(
        f"{size} takes no premium disks ({asked})",
        hint=f"leave --disk-type out, or launch one that does: {', '.join(_premium_sizes(size))}",
    )


def named_premium(size: str) -> bool:
    """Whether a size takes premium disks, by its name."""
    found = SIZE.match(size)
    return found is not None and ("s" in found["features"] or found["family"] in OLD_PREMIUM_FAMILIES)


def resize_disk(session: Session, machine: Machine, disk_gb: int, *, disk: str = "") -> None:
    """Take the first step towards that size, of the machine's own disk or of the data disk with that name;
    disk_ready takes the others. Idempotent; nothing happens when it has that size.

    Raises Refused for less than it has, NotFound where there is no such disk. A stopped machine stays off.
    """
    with mapped(region=machine.region, type=machine.type, what="resize the disk"):
        seen = power.look(session, machine)
        found = _disk(session, seen, disk)
        if disk_gb < found.disk_size_gb:
            raise Refused(
                f"the disk of {machine.name} has {found.disk_size_gb} GB, and Azure makes none smaller",
                hint="launch another machine with a smaller --disk-gb",
            )
        _go_on(session, replace(seen, failure=""), found, disk_gb, own=not disk)


def disk_ready(session: Session, machine: Machine, disk_gb: int, *, disk: str = "") -> bool:
    """Whether the machine has a disk of that size by now and is on again; takes the next step where not.

    Raises what Azure says where it refuses: NoCapacity for the start, anything for the size; then the machine
    has been started again with the size that it had.
    """
    with mapped(region=machine.region, type=machine.type, what="resize the disk"):
        seen = power.look(session, machine)
        found = _disk(session, seen, disk)
        if seen.failure and seen.power == DEALLOCATED and RESIZING in seen.tags:
            raise error_for(
                seen.failure, seen.words, region=machine.region, type=machine.type, what="start again"
            )
        return _go_on(session, seen, found, disk_gb, own=not disk)


def _go_on(session: Session, seen: Look, disk: Any, disk_gb: int, *, own: bool) -> bool:
    """Take the step that is due. True when there is none left."""
    if seen.power in UNDER_WAY or seen.vm.provisioning_state == "Creating":
        return False
    if disk.disk_size_gb >= disk_gb:
        return _come_back(session, seen, disk_gb if own else 0)
    if disk.provisioning_state == "Updating":
        return False
    if seen.power == DEALLOCATED:
        _grow_while_off(session, seen, disk, disk_gb)
    elif not own and (disk_gb <= MOST_ONLINE_GB or disk.disk_size_gb > MOST_ONLINE_GB):
        _grow(session, disk, disk_gb)
    else:
        power.change_tags(session, seen, {RESIZING: str(disk_gb)})
        session.compute.virtual_machines.begin_deallocate(seen.group, seen.name, polling=False)
    return False


def _come_back(session: Session, seen: Look, own_gb: int) -> bool:
    """The disk has its size: start the machine if it is off for that. The mark goes when it is on."""
    if RESIZING in seen.tags and seen.power == DEALLOCATED:
        session.compute.virtual_machines.begin_start(seen.group, seen.name, polling=False)
        return False
    power.change_tags(session, seen, {RESIZING: "", **({t.DISK_GB: str(own_gb)} if own_gb else {})})
    return True


def _grow_while_off(session: Session, seen: Look, disk: Any, disk_gb: int) -> None:
    """Change the size; where that is refused, a machine that is off for it only is started first."""
    try:
        _grow(session, disk, disk_gb)
    except Exception:
        if RESIZING in seen.tags:
            session.compute.virtual_machines.begin_start(seen.group, seen.name, polling=False)
            with suppress(Exception):  # what counts is why the disk cannot have that size
                power.change_tags(session, seen, {RESIZING: ""})
        raise


def _grow(session: Session, disk: Any, disk_gb: int) -> None:
    group, name = power.group_and_name(disk.id)
    change = {"properties": {"diskSizeGB": disk_gb}}
    session.compute.disks.begin_update(
        group, name, change, polling_interval=power.look_again_s(session)
    ).result(CHANGED_WITHIN_S)


def _disk(session: Session, seen: Look, name: str) -> Any:
    """The machine's own disk, or its data disk of that name."""
    storage = seen.vm.storage_profile
    if not name:
        own = storage.os_disk.managed_disk
        if own is not None and own.id:
            return session.compute.disks.get(*power.group_and_name(own.id))
        raise NotFound(f"{seen.name} has no disk yet", hint="try again in a moment")
    for each in storage.data_disks or ():
        if name in (each.name, str(each.lun)):
            return session.compute.disks.get(*power.group_and_name(each.managed_disk.id))
    names = ", ".join(each.name for each in storage.data_disks or ()) or "none"
    raise NotFound(f"{seen.name} has no data disk {name}", hint=f"its data disks: {names}")


def _premium_sizes(size: str) -> list[str]:
    """Sizes of the catalogue that take premium disks and can be had, with as many GPUs."""
    known = find_type(PROVIDER, size)
    count = known.gpu_count if known else 1
    found = [
        each
        for each in list_types(PROVIDER)
        if each.status == "listed" and each.nvidia and each.whole_gpus and named_premium(each.type)
    ]
    found = [each for each in found if each.gpu_count == count] or found
    return [each.type for each in sorted(found, key=lambda each: (each.vcpus, each.type))][:5]
