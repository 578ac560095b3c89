"""What paid things cost. Every one is a Charge: opened, and committed, before it exists; closed at the
provider's own stop time.

Amounts are exact to a millionth of a dollar, rounded half up once, at the end. To the cent they are
rounded only where they are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from cloudrun import catalog
from cloudrun.billing import (
    SECONDS_PER_HOUR,
    billed_seconds,
    disk_seconds,
    egress_parts,
    exact_seconds,
    stored_seconds,
)
from cloudrun.catalog import BillingRule
from cloudrun.catalog.prices import HOURS_PER_MONTH
from cloudrun.images import SNAPSHOT, charged_as
from cloudrun.models import Charge, Market, Offer

SMALLEST_USD = Decimal("0.000001")
SMALLEST_GB = Decimal("0.001")
BYTES_PER_GB = 10**9
TRANSFER = "transfer"  # Charge.what of what goes to another region: at one price, not by the month's steps

_SECONDS_PER_UNIT = {
    "hour": SECONDS_PER_HOUR,
    "month": HOURS_PER_MONTH * SECONDS_PER_HOUR,
    "GB-month": HOURS_PER_MONTH * SECONDS_PER_HOUR,
}


def open_rent(offer: Offer, *, disk_gb: int, machine: str, run: str, at: datetime) -> list[Charge]:
    """The lines to store before a machine is asked for: what its running costs, and its disk."""
    disk = open_disk(offer, disk_gb=disk_gb, machine=machine, run=run, at=at)
    return [*open_running(offer, machine=machine, run=run, at=at), *disk]


def open_running(offer: Offer, *, machine: str, run: str, at: datetime) -> list[Charge]:
    """The lines of a machine that is on: compute and its public address.

    One's own machines get a line too, at price 0, so that their hours stand in the same ledger;
    a price that is missing or 0 elsewhere is unknown.
    """
    known = offer.price_per_hour_usd is not None and offer.price_per_hour_usd > 0
    price = Decimal(0) if offer.market is Market.OWN else offer.price_per_hour_usd if known else None
    compute = Charge(
        id=None,
        machine=machine,
        run=run,
        what="compute",
        provider=offer.provider,
        region=offer.region,
        market=offer.market,
        unit="hour",
        unit_price_usd=price,
        price_as_of=offer.price_as_of,
        opened_at=at,
        estimated=offer.market is Market.SPOT,  # the price at launch; it moves while the machine runs
    )
    rule = None if offer.market is Market.OWN else catalog.address_rule(offer.provider)
    return [compute] if rule is None else [compute, _by_rule(compute, "address", rule, Decimal(1))]


def open_disk(offer: Offer, *, disk_gb: int, machine: str, run: str, at: datetime) -> list[Charge]:
    """The line of a machine's own disk, which is billed by its size, also while the machine is off."""
    rule = None if offer.market is Market.OWN or not disk_gb else catalog.disk_rule(offer.provider)
    if rule is None:
        return []
    running = open_running(offer, machine=machine, run=run, at=at)
    return [_by_rule(running[0], "disk", rule, Decimal(disk_gb))]


def _by_rule(compute: Charge, what: str, rule: BillingRule, quantity: Decimal) -> Charge:
    """The line of something that the catalogue prices, on the machine of a compute line."""
    return replace(
        compute,
        what=what,
        unit=rule.unit,
        unit_price_usd=rule.price_usd,
        price_as_of=None,  # the rule says when it was seen, to the month or the year
        quantity=quantity,
        estimated=rule.region not in ("all", compute.region),  # another region's price stands for this one
    )


def open_image(provider: str, region: str, name: str, *, stored_gb: int, at: datetime) -> Charge:
    """The line to store before an image is asked for: of what is stored for it, until it is deleted. An
    estimate, as no provider tells how much it stores."""
    rule = catalog.snapshot_rule(provider)
    return Charge(
        id=None,
        machine=charged_as(name),
        run="",
        what=SNAPSHOT,
        provider=provider,
        region=region,
        market=Market.ON_DEMAND,
        unit="GB-month",
        unit_price_usd=rule.price_usd if rule else None,
        price_as_of=None,  # the rule says when it was seen
        opened_at=at,
        quantity=Decimal(stored_gb),
        estimated=True,
    )


def sent_home(
    offer: Offer, sent_bytes: int, *, before_gb: Decimal, machine: str, run: str, at: datetime
) -> list[Charge]:
    """The lines of what was sent home over the internet, one for each step of the price, the free one too; an
    estimate: one region's prices stand for all, other traffic of the account is not known, and what failed
    halfway is not counted. before_gb: sent in this month already. In MB: what is less is no line."""
    sent_gb = _gigabytes(sent_bytes)
    parts = None if offer.market is Market.OWN else egress_parts(offer.provider, before_gb, sent_gb)
    return [_sent(offer, "egress", gb, price, machine, run, at) for gb, price in parts or ()]


def sent_between(offer: Offer, sent_bytes: int, *, machine: str, run: str, at: datetime) -> list[Charge]:
    """The line of what was sent from the offer's region to another one of the same cloud; an estimate, and
    none where no price is known."""
    rule, gb = catalog.between_rule(offer.provider), _gigabytes(sent_bytes)
    if rule is None or rule.price_usd is None or not gb:
        return []
    return [_sent(offer, TRANSFER, gb, rule.price_usd, machine, run, at)]


def _gigabytes(count: int) -> Decimal:
    return (Decimal(count) / BYTES_PER_GB).quantize(SMALLEST_GB, ROUND_HALF_UP)


def _sent(
    offer: Offer, what: str, gb: Decimal, price_usd: Decimal, machine: str, run: str, at: datetime
) -> Charge:
    return Charge(
        id=None,
        machine=machine,
        run=run,
        what=what,
        provider=offer.provider,
        region=offer.region,
        market=offer.market,
        unit="GB",
        unit_price_usd=price_usd,
        price_as_of=None,  # the rule says when it was seen
        opened_at=at,
        closed_at=at,
        quantity=gb,
        estimated=True,
    )


def at_prices(charge: Charge, prices: Sequence[tuple[datetime, Decimal]]) -> list[Charge]:
    """A closed line as it was really billed: one line for each price, (from when, USD an hour) in order.

    The last price from before the beginning counts from then on, or else the first one, whenever it was set;
    a price after the end not at all.
    """
    closed_at = charge.closed_at or charge.opened_at
    first = [price for at, price in prices if at <= charge.opened_at][-1:] or [prices[0][1]]
    begins = [(charge.opened_at, first[0]), *(item for item in prices[1:] if item[0] > charge.opened_at)]
    begins = [item for item in begins if item[0] < closed_at] or begins[:1]
    ends = [*(at for at, _ in begins[1:]), closed_at]
    return [
        replace(
            charge,
            id=None if number else charge.id,
            opened_at=at,
            closed_at=end,
            unit_price_usd=price,
            price_as_of=at.date(),
            estimated=False,
            follows=charge.follows or number > 0,
        )
        for number, ((at, price), end) in enumerate(zip(begins, ends, strict=True))
    ]


def cost_usd(charge: Charge, *, now: datetime) -> Decimal | None:
    """What it cost, or has cost by now while it is open; None where the price is unknown, 0 when void."""
    if charge.void:
        return Decimal(0)
    if charge.unit_price_usd is None:
        return None
    amount = charge.unit_price_usd * charge.quantity
    if by_time(charge):
        seconds = billed_seconds_of(charge, charge.closed_at or now)
        amount = amount * seconds / _SECONDS_PER_UNIT[charge.unit]
    return amount.quantize(SMALLEST_USD, ROUND_HALF_UP)


def by_time(charge: Charge) -> bool:
    """Billed for how long it was there; else sold by the piece: egress by the GB."""
    return charge.unit in _SECONDS_PER_UNIT


def billed_seconds_of(charge: Charge, until: datetime) -> int:
    """The seconds of it that are billed when it ends then: compute, disks and what is stored for images by
    their provider's rules, all else by the second. A line that follows another of the same machine has no
    minimum of its own."""
    if charge.follows:
        return exact_seconds(charge.opened_at, until)
    if charge.what == "compute":
        return billed_seconds(charge.provider, charge.market, charge.opened_at, until)
    if charge.what == "disk":
        return disk_seconds(charge.provider, charge.opened_at, until)
    if charge.what == SNAPSHOT:
        return stored_seconds(charge.provider, charge.opened_at, until)
    return exact_seconds(charge.opened_at, until)


def per_hour_usd(charge: Charge) -> Decimal | None:
    """What an hour of it costs while it is open; None where the price is unknown."""
    if charge.unit_price_usd is None:
        return None
    return charge.unit_price_usd * charge.quantity * SECONDS_PER_HOUR / _SECONDS_PER_UNIT[charge.unit]


def run_cost_usd(charges: Iterable[Charge], *, now: datetime) -> Decimal | None:
    """The sum of all lines; None as soon as one price is unknown, because a part is no total."""
    total = Decimal(0)
    for charge in charges:
        cost = cost_usd(charge, now=now)
        if cost is None:
            return None
        total += cost
    return total
