"""The cost of a charge laid over the days, in UTC, on which it arose. Pure functions.

The share of a day is what the charge cost by the day's end, less what it cost by its beginning: so the shares
of a charge add up to its cost to the millionth, whatever its billing rule and however it is rounded, and a
minimum falls on the first day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from cloudrun.ledger import SMALLEST_USD, billed_seconds_of, cost_usd
from cloudrun.models import Charge

MICROS = int(1 / SMALLEST_USD)  # of a dollar: in them the store adds up, exactly
FRESH = timedelta(days=7)  # a price list of the same week is no old one


@dataclass(frozen=True, slots=True)
class Share:
    """One day's part of a charge. micros: millionths of a US dollar, None where the price is unknown."""

    day: date
    micros: int | None
    seconds: int


def shares_of(charge: Charge, *, now: datetime) -> list[Share]:
    """The parts of a charge in order; of an open one as it stands now. [] where it costs nothing ever."""
    if charge.void:
        return []
    end = max(charge.opened_at, charge.closed_at or now)
    found: list[Share] = []
    micros_before: int | None = 0
    seconds_before = 0
    for day, until in _ends(charge.opened_at, end):
        so_far = charge if until == charge.closed_at else replace(charge, closed_at=until)
        micros, seconds = _micros(so_far), billed_seconds_of(so_far, until)
        part = None if micros is None or micros_before is None else micros - micros_before
        found.append(Share(day, part, seconds - seconds_before))
        micros_before, seconds_before = micros, seconds
    return found


def old_price(charge: Charge) -> date | None:
    """The day of its price, where that lay more than a week before the charge began."""
    as_of = charge.price_as_of
    return as_of if as_of is not None and charge.opened_at.date() - as_of > FRESH else None


def _ends(begin: datetime, end: datetime) -> Iterator[tuple[date, datetime]]:
    """Each day from begin on, with the moment up to which it counts."""
    day, last = begin.astimezone(UTC).date(), end.astimezone(UTC)
    while True:
        midnight = datetime.combine(day + timedelta(days=1), time(), UTC)
        if midnight >= last:
            yield day, last
            return
        yield day, midnight
        day += timedelta(days=1)


def _micros(charge: Charge) -> int | None:
    assert charge.closed_at is not None  # noqa: S101  # set one line above
    cost = cost_usd(charge, now=charge.closed_at)
    return None if cost is None else int(cost * MICROS)
