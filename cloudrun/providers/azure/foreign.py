"""What others have in the subscription: everything that can cost something and is not ours.

Four calls, and as many pages as there are. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from cloudrun.catalog import find_type, load_offers
from cloudrun.catalog.prices import HOURS_PER_MONTH
from cloudrun.models import MachineState, Market
from cloudrun.providers import tags as t
from cloudrun.providers.answers import side_by_side
from cloudrun.providers.azure.arm import Body
from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.instances import PROVIDER, STATES
from cloudrun.providers.azure.leftovers import OUR_DISK, SNAPSHOT, ask_all, made_at, price_per_month_usd
from cloudrun.providers.azure.parts import DISK, IMAGE, IP, VM
from cloudrun.providers.azure.power import look_at
from cloudrun.providers.azure.session import Session
from cloudrun.providers.base import Leftover

# Types in small letters, as Azure writes them in capital ones too.
KINDS: Mapping[str, tuple[str, str]] = {
    kind.lower(): (kind, word)
    for kind, word in (
        (VM, "machine"),
        (DISK, "disk"),
        (SNAPSHOT, "snapshot"),
        (IMAGE, "image"),
        (IP, "address"),
    )
}
BILLED = (MachineState.PENDING, MachineState.RUNNING, MachineState.HALTED)


def list_foreign(session: Session) -> list[Leftover]:
    """All of it, in every region."""
    compute = session.compute
    asked: list[Callable[[], Iterable[Any]]] = [
        lambda: session.resources.resources.list(expand="createdTime"),
        compute.disks.list,
        compute.virtual_machines.list_all,
        lambda: compute.virtual_machines.list_all(status_only="true"),
    ]
    with mapped(region="", what="list what others have"):
        listed, disks, vms, states = side_by_side(ask_all, asked)
    told = {str(each["id"]).lower(): each for each in (*disks, *vms)}  # more than a list of all kinds does
    power = {str(each["id"]).lower(): look_at(each).power for each in states}
    found = []
    for each in listed:
        kind, word = KINDS.get(str(each["type"]).lower(), ("", ""))
        if kind and not _is_ours(kind, each):
            place = str(each["id"]).lower()
            found.append(_found({**told.get(place, {}), **each}, kind, word, power.get(place, "")))
    return found


def _is_ours(kind: str, each: Body) -> bool:
    """Disks of ours are known by their names too; older ones have no tags."""
    if (each.get("tags") or {}).get(t.OURS) == "1":
        return True
    return kind == DISK and bool(OUR_DISK.fullmatch(str(each["name"]).lower()))


def _found(each: Body, kind: str, word: str, power: str) -> Leftover:
    return Leftover(
        provider=PROVIDER,
        region=str(each["location"]),
        kind=word,
        id=str(each["id"]),
        name=str(each["name"]),
        ours=False,
        since=made_at(each),
        state=power,
        price_per_month_usd=_machine_price(each, power) if kind == VM else price_per_month_usd(kind, each),
        in_use=True,
    )


def _machine_price(vm: Body, power: str) -> Decimal | None:
    """A month of it at the catalogue's price; its disks and addresses are things of their own. One that was
    switched off inside is billed on."""
    if STATES.get(power, MachineState.RUNNING) not in BILLED:
        return Decimal(0)
    properties: Mapping[str, Any] = vm["properties"]
    known = find_type(PROVIDER, str(properties["hardwareProfile"]["vmSize"]))
    if known is None:
        return None
    market = Market.SPOT if properties.get("priority") == "Spot" else Market.ON_DEMAND
    offers = load_offers(provider=PROVIDER, type=known.type, market=market, regions=(str(vm["location"]),))
    hourly = next((each.price_per_hour_usd for each in offers), None)
    return None if hourly is None else hourly * HOURS_PER_MONTH
