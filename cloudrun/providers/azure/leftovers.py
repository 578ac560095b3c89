"""What carries our tags and is no machine: groups, disks, addresses, networks, snapshots, images.

Five calls tell all of it, wherever it lies. What goes with a group of ours, and costs nothing, is not named
beside that group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cloudrun.catalog.loader import load_billing
from cloudrun.catalog.prices import HOURS_PER_MONTH, address_rule
from cloudrun.errors import ProviderError
from cloudrun.providers import tags as t
from cloudrun.providers.answers import side_by_side
from cloudrun.providers.azure.arm import Body, begin, state_of
from cloudrun.providers.azure.ending import GOING, delete_group, delete_part
from cloudrun.providers.azure.errors import codes_of, mapped
from cloudrun.providers.azure.instances import PROVIDER, machine_of
from cloudrun.providers.azure.parts import ASKED, DISK, IMAGE, IP, NIC, NSG, STEM, VM, VNET, parts_of_id
from cloudrun.providers.azure.session import Session
from cloudrun.providers.base import Leftover
from cloudrun.providers.launched import KEYS, UNDER_WAY, free_keys, left_keys

GROUP = "resource group"
SNAPSHOT = "Microsoft.Compute/snapshots"
# In the order in which they can go: groups of ours take all in them along.
KINDS: Mapping[str, str] = {
    NIC: "network interface",
    DISK: "disk",
    IP: "address",
    NSG: "security group",
    VNET: "network",
    IMAGE: "image",
    SNAPSHOT: "snapshot",
}
TYPES = {kind.lower(): kind for kind in (*KINDS, VM)}  # Azure writes them in capital and small letters
PRICED = (DISK, IP, SNAPSHOT, IMAGE)
OURS = f"tagName eq '{t.OURS}' and tagValue eq '1'"
OUR_DISK = re.compile(rf"{STEM}[0-9a-f]{{12}}-disk")
# What cannot go because of something that goes anyway.
GOES_ANYWAY = ("ResourceGroupBeingDeleted", "ResourceGroupNotFound", "ResourceNotFound", "NotFound")
# Rows of billing.csv for the kinds of disks, priced by the GB-month.
SNAPSHOT_ROW = "snapshot (standard storage)"  # images cost as much
DISK_ROWS = {
    "StandardSSD_LRS": "disk standard SSD",
    "StandardSSD_ZRS": "disk standard SSD",
    "Standard_LRS": "disk standard HDD",
}


def list_leftovers(session: Session) -> list[Leftover]:
    """Every one in the subscription, and keys on this computer that open nothing any more. In the order in
    which they can be freed."""
    asked: list[Callable[[], Iterable[Any]]] = [
        lambda: session.resources.resource_groups.list(filter=OURS),
        lambda: session.resources.resources.list(filter=OURS, expand="createdTime"),
        session.compute.disks.list,
        session.compute.images.list,
        session.compute.virtual_machines.list_all,
    ]
    with mapped(region="", what="list what is left"):
        groups, listed, disks, images, vms = side_by_side(ask_all, asked)
    machines = [
        machine_of(session.settings, each)
        for each in vms
        if (each.get("tags") or {}).get(t.OURS) == "1" and state_of(each) != GOING
    ]
    standing = [each for each in groups if state_of(each) != GOING]
    going = {str(each["name"]).lower() for each in groups if state_of(each) == GOING}
    tokens = {machine.token for machine in machines}
    found = _parts(listed, disks, images, going, tokens)
    own = [_leftover(each, GROUP, str(each["name"]), tokens) for each in standing]
    covered = {str(each["name"]).lower() for each in standing}
    shown = [
        each for kind, each in found if kind in PRICED or parts_of_id(each.id).group.lower() not in covered
    ]
    return [*own, *shown, *left_keys(session.settings, PROVIDER, machines)]


def free(session: Session, leftover: Leftover) -> None:
    """Remove it. Idempotent. Raises ProviderError while something still needs it."""
    from azure.core.exceptions import HttpResponseError

    if leftover.kind == KEYS:
        free_keys(session.settings, leftover)
        return
    with mapped(region=leftover.region, what=f"free {leftover.kind} {leftover.name}"):
        try:
            _free(session, leftover)
        except HttpResponseError as error:
            if not any(code in GOES_ANYWAY for code, _ in codes_of(error)):
                raise


def _free(session: Session, leftover: Leftover) -> None:
    if leftover.kind == GROUP:
        delete_group(session, leftover.id)
        return
    kind = next((kind for kind, word in KINDS.items() if word == leftover.kind), "")
    if not kind:
        raise ProviderError(
            f"no way to free {leftover.kind} {leftover.id}", hint="delete it in Azure's portal"
        )
    parts = parts_of_id(leftover.id)
    if kind in (SNAPSHOT, IMAGE):
        compute = session.compute
        begin(
            (compute.snapshots if kind == SNAPSHOT else compute.images).begin_delete, parts.group, parts.stem
        )
        return
    delete_part(session, parts.group, kind, parts.stem, wait=True)


def ask_all(ask: Callable[[], Iterable[Any]]) -> list[Body]:
    return [each.as_dict() for each in ask()]


def _parts(
    listed: Sequence[Body],
    disks: Sequence[Body],
    images: Sequence[Body],
    going: set[str],
    tokens: set[str],
) -> list[tuple[str, Leftover]]:
    """What is no machine and no group, by its type, in the order of KINDS. A disk of ours is known by its
    name too: Azure makes it, and older ones have no tags."""
    ours = {str(each["id"]).lower(): each for each in disks if OUR_DISK.fullmatch(str(each["name"]).lower())}
    every = {**ours, **{str(each["id"]).lower(): each for each in listed}}
    told = {str(each["id"]).lower(): each for each in (*disks, *images)}  # more than a list of all kinds does
    found = []
    for place, each in every.items():
        kind = TYPES.get(str(each["type"]).lower(), str(each["type"]))
        if kind == VM or parts_of_id(place).group in going:
            continue
        word = KINDS.get(kind, kind.rpartition("/")[2])
        whole = {**each, **told.get(place, {})}
        made = _leftover(each, word, str(each["id"]), tokens)
        in_use = made.in_use or _is_wanted(kind, whole)
        state = "kept" if in_use and kind == IMAGE else ""
        price = price_per_month_usd(kind, whole)
        found.append((kind, replace(made, in_use=in_use, state=state, price_per_month_usd=price)))
    order = [*KINDS]
    return sorted(found, key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order))


def _leftover(each: Body, kind: str, id: str, tokens: set[str]) -> Leftover:
    """A launch of the last minutes may be under way: what it has made so far is in use."""
    tags: Mapping[str, str] = each.get("tags") or {}
    asked_at = t.time_of(tags.get(ASKED, ""))
    young = asked_at is not None and datetime.now(UTC) - asked_at < UNDER_WAY
    return Leftover(
        provider=PROVIDER,
        region=str(each["location"]),
        kind=kind,
        id=id,
        name=str(each["name"]),
        machine=tags.get(t.NAME, ""),
        run=tags.get(t.RUN, ""),
        since=made_at(each),
        in_use=young or tags.get(t.TOKEN, "") in tokens,
    )


def _is_wanted(kind: str, each: Body) -> bool:
    """Whether it is an image that was baked and is no failure: launches begin with it, until somebody deletes
    it as an image."""
    return kind == IMAGE and t.IMAGE in (each.get("tags") or {}) and state_of(each) != "Failed"


def made_at(each: Body) -> datetime | None:
    """When Azure made it, as far as that is shown; else when the launch asked for it."""
    told = str(each.get("createdTime") or (each.get("properties") or {}).get("timeCreated") or "")
    return t.time_of(told) or t.time_of((each.get("tags") or {}).get(ASKED, ""))


def price_per_month_usd(kind: str, each: Body) -> Decimal | None:
    """A month of it in US dollars by the catalogue, whose one region stands for all; None = unknown."""
    if kind not in PRICED:
        return Decimal(0)
    if kind == IP:
        rule = address_rule(PROVIDER)
        return None if rule is None or rule.price_usd is None else rule.price_usd * HOURS_PER_MONTH
    sku = str((each.get("sku") or {}).get("name", ""))
    monthly, size_gb = list_price(DISK_ROWS.get(sku, "") if kind == DISK else SNAPSHOT_ROW), _size_gb(each)
    return None if monthly is None or size_gb is None else monthly * size_gb


def _size_gb(each: Body) -> int | None:
    """What is billed: of an image what was in use, where its tags tell."""
    properties: Mapping[str, Any] = each.get("properties") or {}
    disk = (properties.get("storageProfile") or {}).get("osDisk") or properties
    told = (each.get("tags") or {}).get(t.STORED_GB) or disk.get("diskSizeGB")
    return None if told is None else int(told)


def list_price(what: str) -> Decimal | None:
    """Today's price of billing.csv; one region's stands for all. None where it is not known."""
    rules = (rule for rule in load_billing() if (rule.provider, rule.what) == (PROVIDER, what))
    return next((rule.price_usd for rule in rules if rule.valid_to is None), None)
