"""Disks: of which kind a machine's is, and how it grows.

Azure grows the disk of the system only while its machine is deallocated ("Expand virtual hard disks on a
Linux VM"): deallocate, change the size, start. None of these is waited for. Each call of resize_disk and
disk_ready looks where things stand and takes the next step, so whoever repeats it, after a kill at any point
too, goes on where it broke off. A tag on the machine says that it is off for this, and will be started again
whatever comes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from cloudrun.catalog import list_types
from cloudrun.errors import NotFound, Refused
from cloudrun.models import Machine, Offer
from cloudrun.providers import tags as t
from cloudrun.providers.azure import power
from cloudrun.providers.azure.arm import Body, begin, settled, shown, state_of
from cloudrun.providers.azure.errors import error_for, mapped
from cloudrun.providers.azure.parts import parts_of_id
from cloudrun.providers.azure.power import DEALLOCATED, DEALLOCATING, RESIZING, Look
from cloudrun.providers.azure.session import Session
from cloudrun.providers.azure.skus import takes_premium

USUAL_TYPE = "StandardSSD_LRS"
PREMIUM = "Premium"  # how the names of premium kinds begin
GIB = 2**30  # what Azure calls a GB of a disk
MOST_NAMED = 5  # sizes that a refusal names
MOST_OWN_GB = 4095  # of a system's disk ("Introduction to Azure managed disks", OS disk)
# A data disk grows while its machine runs unless it crosses this size ("Expand without downtime").
MOST_ONLINE_GB = 4095
UNDER_WAY = ("", "starting", "stopping", DEALLOCATING)  # power states that pass by themselves


def disk_type(session: Session, offer: Offer, asked: str) -> str:
    """The kind of disk to launch with: what was asked for, else the usual one. Raises Refused for a premium
    disk on a size that takes none, with sizes that do."""
    if not asked.startswith(PREMIUM) or takes_premium(session, offer.type, offer.region):
        return asked or USUAL_TYPE
    instead = ", ".join(islice(_premium_sizes(session, offer), MOST_NAMED))
    raise Refused(
        f"{offer.type} takes no premium disks ({asked})",
        hint=f"leave --disk-type out, or launch one that does: {instead}",
    )


def resize_disk(session: Session, machine: Machine, disk_gb: int, *, disk: str = "") -> None:
    """Take the first step towards that size, of the machine's own disk or of the data disk with that name;
    disk_ready takes the others. Idempotent; nothing happens when it has that size.

    Raises Refused for less than it has or too much, NotFound where there is no such disk. A stopped machine
    stays off.
    """
    with mapped(region=machine.region, type=machine.type, what="resize the disk"):
        seen = power.look(session, machine)
        found = _disk(session, machine, seen, disk)
        if disk_gb < _size_gb(found):
            raise Refused(
                f"the disk of {machine.name} has {_size_gb(found)} GB, and Azure makes none smaller",
                hint="launch another machine with a smaller --disk-gb",
            )
        if not disk and disk_gb > MOST_OWN_GB:
            raise Refused(
                f"{disk_gb} GB are too much for the disk of a system at Azure",
                hint=f"{MOST_OWN_GB} GB are the most; keep data elsewhere",
            )
        _go_on(session, machine, replace(seen, failure=""), found, disk_gb, own=not disk)


def disk_ready(session: Session, machine: Machine, disk_gb: int, *, disk: str = "") -> bool:
    """Whether the machine has a disk of that size by now and is on again; takes the next step where not.

    Raises what Azure says where it refuses: NoCapacity for the start, anything for the size; then the machine
    has been started again with the size that it had.
    """
    with mapped(region=machine.region, type=machine.type, what="resize the disk"):
        seen = power.look(session, machine)
        found = _disk(session, machine, seen, disk)
        if seen.failure and seen.power == DEALLOCATED and RESIZING in seen.tags:
            raise error_for(
                seen.failure, seen.words, region=machine.region, type=machine.type, what="start again"
            )
        return _go_on(session, machine, seen, found, disk_gb, own=not disk)


def _go_on(session: Session, machine: Machine, seen: Look, disk: Body, disk_gb: int, *, own: bool) -> bool:
    """Take the step that is due. True when there is none left."""
    if seen.power in UNDER_WAY or state_of(seen.body) == "Creating":
        return False
    if _size_gb(disk) >= disk_gb:
        return _come_back(session, machine, seen, disk_gb if own else 0)
    if state_of(disk) == "Updating":
        return False
    if seen.power == DEALLOCATED:
        _grow_while_off(session, machine, seen, disk, disk_gb)
    elif not own and (disk_gb <= MOST_ONLINE_GB or _size_gb(disk) > MOST_ONLINE_GB):
        _grow(session, machine, disk, disk_gb)
    else:
        power.change_tags(session, machine, seen, {RESIZING: str(disk_gb)})
        power.deallocate(session, machine)
    return False


def _come_back(session: Session, machine: Machine, seen: Look, own_gb: int) -> bool:
    """The disk has its size: start the machine if it is off for that. The mark goes when it is on."""
    if RESIZING in seen.tags and seen.power == DEALLOCATED:
        power.turn_on(session, machine)
        return False
    known = {t.DISK_GB: str(own_gb)} if own_gb else {}
    power.change_tags(session, machine, seen, {RESIZING: "", **known})
    return True


def _grow_while_off(session: Session, machine: Machine, seen: Look, disk: Body, disk_gb: int) -> None:
    """Change the size; where that is refused, a machine that is off for it only is started first."""
    try:
        _grow(session, machine, disk, disk_gb)
    except Exception:
        if RESIZING in seen.tags:
            power.turn_on(session, machine)
            with suppress(Exception):  # what counts is why the disk cannot have that size
                power.change_tags(session, machine, seen, {RESIZING: ""})
        raise


def _grow(session: Session, machine: Machine, disk: Body, disk_gb: int) -> None:
    """Change the size, and wait for it: that takes Azure a second or two."""
    group, name = _group_and_name(disk["id"])
    disks, change = session.compute.disks, {"properties": {"diskSizeGB": disk_gb}}
    settled(
        session,
        session.compute,
        begin(disks.begin_update, group, name, change),
        lambda: shown(disks.get, group, name),
        region=machine.region,
        what="resize the disk",
    )


def _disk(session: Session, machine: Machine, seen: Look, name: str) -> Body:
    """The machine's own disk, or its data disk of that name or number (LUN)."""
    storage = seen.body["properties"]["storageProfile"]
    attached: Sequence[Body] = storage.get("dataDisks") or ()
    listed = [each for each in attached if name in (each.get("name"), str(each["lun"]))]
    found = listed[0] if listed else storage["osDisk"] if not name else {}
    managed = found.get("managedDisk") or {}
    if managed.get("id"):
        return shown(session.compute.disks.get, *_group_and_name(managed["id"]))
    names = ", ".join(str(each.get("name")) for each in attached) or "none"
    raise NotFound(f"{machine.name} has no such disk (yet)", hint=f"its data disks: {names}")


def _size_gb(disk: Body) -> int:
    """What it has. The size in GB is the one asked for, also after Azure has failed to give it."""
    told = disk["properties"]
    return int(told["diskSizeBytes"]) // GIB if "diskSizeBytes" in told else int(told["diskSizeGB"])


def _group_and_name(id: str) -> tuple[str, str]:
    parts = parts_of_id(id)
    return parts.group, parts.stem


def _premium_sizes(session: Session, offer: Offer) -> Iterator[str]:
    """Sizes of the catalogue that take premium disks and can be had, with as many GPUs, smallest first."""
    for each in sorted(list_types(offer.provider), key=lambda each: (each.vcpus, each.type)):
        wanted = each.status == "listed" and each.whole_gpus and each.nvidia == bool(offer.gpu)
        if wanted and each.gpu_count == offer.gpu_count and takes_premium(session, each.type, offer.region):
            yield each.type
