"""What paid things cost. Every one is a Charge: opened, and committed, before it exists; closed at the
provider's own stop time.

Amounts are exact to a millionth of a dollar, rounded half up once, at the end. To the cent they are
rounded only where they are shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING

from cloudrun.billing import SECONDS_PER_HOUR, billed_seconds, exact_seconds
from cloudrun.models import Charge, Market, Offer, Run

if TYPE_CHECKING:
    from cloudrun.store import Store

SMALLEST_USD = Decimal("0.000001")

# Prices by the month are for 730 hours, an average month (8760 / 12): so both providers' price lists count
_SECONDS_PER_UNIT = {
    "hour": SECONDS_PER_HOUR,
    "month": 730 * SECONDS_PER_HOUR,
    "GB-month": 730 * SECONDS_PER_HOUR,
}


def open_compute(offer: Offer, *, machine: str, run: str, at: datetime) -> list[Charge]:
    """The lines to store before the machine is asked for. One's own machines get a line too, at price 0, so
    that their hours stand in the same ledger; a price that is missing or 0 elsewhere is unknown."""
    known = offer.price_per_hour_usd is not None and offer.price_per_hour_usd > 0
    price = Decimal(0) if offer.market is Market.OWN else offer.price_per_hour_usd if known else None
    return [
        Charge(
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
    ]


def cost_usd(charge: Charge, *, now: datetime) -> Decimal | None:
    """What it cost, or has cost by now while it is open; None where the price is unknown, 0 when void."""
    if charge.void:
        return Decimal(0)
    if charge.unit_price_usd is None:
        return None
    amount = charge.unit_price_usd * charge.quantity
    if charge.unit in _SECONDS_PER_UNIT:  # else sold by the piece: egress by the GB
        amount = amount * _seconds(charge, charge.closed_at or now) / _SECONDS_PER_UNIT[charge.unit]
    return amount.quantize(SMALLEST_USD, ROUND_HALF_UP)


def run_cost_usd(charges: Iterable[Charge], *, now: datetime) -> Decimal | None:
    """The sum of all lines; None as soon as one price is unknown, because a part is no total."""
    total = Decimal(0)
    for charge in charges:
        cost = cost_usd(charge, now=now)
        if cost is None:
            return None
        total += cost
    return total


def cost_so_far_usd(store: Store, run: Run, *, now: datetime) -> Decimal | None:
    """A run on machines of its own: all their charges. On one that was there already: that machine's price
    for the time of the run's attempts. None while a price is unknown."""
    if not run.on:
        return run_cost_usd(store.list_charges(run=run.id), now=now)
    machine = store.get_machine(run.on)
    if machine is None or machine.price_per_hour_usd is None:
        return None
    attempts = [each for each in store.list_attempts(run.id) if each.started_at]
    seconds = sum(exact_seconds(each.started_at or now, each.ended_at or now) for each in attempts)
    share = machine.price_per_hour_usd * seconds / SECONDS_PER_HOUR
    return share.quantize(SMALLEST_USD, ROUND_HALF_UP)


def _seconds(charge: Charge, until: datetime) -> int:
    if charge.what == "compute":
        return billed_seconds(charge.provider, charge.market, charge.opened_at, until)
    return exact_seconds(charge.opened_at, until)  # disks and addresses: by the second, no minimum assumed
