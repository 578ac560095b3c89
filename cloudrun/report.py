"""What was spent: sums by one key, what still costs, how old the prices are, what spot saved.

The closed lines come as sums from the store, whatever their number; the open ones are few and are counted
here as they stand now. Money is Decimal US dollars, exact to a millionth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from cloudrun import catalog
from cloudrun.billing import SECONDS_PER_HOUR
from cloudrun.images import SNAPSHOT
from cloudrun.ledger import run_cost_usd
from cloudrun.models import Charge, Market
from cloudrun.shares import MICROS, old_price, shares_of
from cloudrun.store_charges import IMAGE_TYPE
from cloudrun.store_sums import BY, Spent, SpentOnType

if TYPE_CHECKING:
    from cloudrun.store import Store

__all__ = ["BY", "CostReport", "Row", "Running", "Saving", "make_report", "make_series"]


@dataclass(frozen=True, slots=True)
class Row:
    """What one key came to. The total holds what is known; `unknown` says that some price is not.

    hours: of compute, as billed. estimated_usd: the part of the total that may still change. billed_usd: what
    the provider's imported bills say, None where none was imported.
    """

    key: str
    hours: Decimal = Decimal(0)
    compute_usd: Decimal = Decimal(0)
    disk_usd: Decimal = Decimal(0)
    address_usd: Decimal = Decimal(0)
    other_usd: Decimal = Decimal(0)
    total_usd: Decimal = Decimal(0)
    estimated_usd: Decimal = Decimal(0)
    unknown: bool = False
    billed_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A machine, or a kept image, that costs something now. None where a price is unknown, or there is no
    deadline."""

    machine: str
    type: str
    provider: str
    market: str
    since: datetime
    on: bool  # else only its disk, an address, or what is stored of an image, is billed
    cost_usd: Decimal | None
    deadline_at: datetime | None
    cost_at_deadline_usd: Decimal | None

    @property
    def described(self) -> str:
        """Its type, and whether it is off, which an image is not."""
        return self.type if self.on or self.type == IMAGE_TYPE else f"{self.type}, off"


@dataclass(frozen=True, slots=True)
class Saving:
    """Spot beside what the same hours would have cost on demand, by the catalogue's price of today."""

    provider: str
    type: str
    hours: Decimal
    paid_usd: Decimal
    on_demand_usd: Decimal | None  # None where no price is known

    @property
    def saved_usd(self) -> Decimal | None:
        return None if self.on_demand_usd is None else self.on_demand_usd - self.paid_usd


@dataclass(frozen=True, slots=True)
class CostReport:
    """rows: the dearest first, or the newest month or day; `more` further keys are left out of them, never
    out of the total. at_old_prices_usd: what was counted by price lists older than a week when it began, the
    oldest of them from oldest_price."""

    by: str
    since: date | None
    made_at: datetime
    rows: tuple[Row, ...]
    more: int
    total: Row
    running: tuple[Running, ...]
    savings: tuple[Saving, ...]
    oldest_price: date | None
    at_old_prices_usd: Decimal


def make_report(
    store: Store,
    *,
    by: str,
    now: datetime,
    since: date | None = None,
    limit: int | None = None,
    billed: Mapping[str, Decimal] | None = None,
) -> CostReport:
    """The report of everything on record, or since the beginning of a day (UTC). One read after another, each
    consistent in itself. billed: what bills say, by the same keys."""
    open_lines = store.list_charges(open_only=True)
    opened = _open_sums(store, open_lines, by, now=now, since=since)
    dearest = store.spent(by, since=since, limit=limit)
    closed = {each.key: each for each in dearest}
    left_out = [key for key in opened if key not in closed]
    if left_out:
        closed |= {each.key: each for each in store.spent(by, since=since, keys=left_out)}
    count = dearest.of + len(opened.keys() - closed.keys())
    for key, sums in opened.items():
        closed[key] = closed.get(key, Spent(key)).plus(sums)
    rows = _sorted((_row(each, (billed or {}).get(each.key)) for each in closed.values()), by)
    total = store.spent_in_all(since=since)
    for sums in opened.values():
        total = total.plus(sums)
    types = store.spent_on_types(since=since)
    oldest, at_old = _old_prices(types, open_lines, now)
    shown = rows if limit is None else rows[:limit]
    return CostReport(
        by=by,
        since=since,
        made_at=now,
        rows=tuple(shown),
        more=max(0, count - len(shown)),
        total=_row(replace(total, key="total"), sum(billed.values(), Decimal(0)) if billed else None),
        running=tuple(_running(store, open_lines, now)),
        savings=tuple(_savings(types)),
        oldest_price=oldest,
        at_old_prices_usd=at_old,
    )


def make_series(
    store: Store, *, by: str, now: datetime, since: date | None = None
) -> list[tuple[date, str, Decimal]]:
    """(day, key, USD) in order, of the closed lines and of the open ones as they stand now. by: provider,
    type, market, project or job."""
    sums = {(day, key): micros for day, key, micros in store.spent_by_day_and(by, since=since)}
    open_lines = store.list_charges(open_only=True)
    for each in store.count_open(open_lines, now=now):
        if each.share.micros and (since is None or each.share.day >= since):
            place = (each.under["day"], each.under[by])
            sums[place] = sums.get(place, 0) + each.share.micros
    return [
        (date.fromisoformat(day), key, usd(micros)) for (day, key), micros in sorted(sums.items()) if micros
    ]


def usd(micros: int) -> Decimal:
    """From the store's millionths."""
    return Decimal(micros) / MICROS


def _open_sums(
    store: Store, charges: Sequence[Charge], by: str, *, now: datetime, since: date | None
) -> dict[str, Spent]:
    """What the open lines have come to by now, by key."""
    found: dict[str, Spent] = {}
    for each in store.count_open(charges, now=now):
        if since is not None and each.share.day < since:
            continue
        key = each.under[by]
        sums = _spent(key, each.charge, each.share.micros, each.share.seconds)
        found[key] = found[key].plus(sums) if key in found else sums
    return found


def _spent(key: str, charge: Charge, micros: int | None, seconds: int) -> Spent:
    amount = micros or 0
    column = charge.what if charge.what in ("compute", "disk", "address") else "other"
    return Spent(
        key,
        total=amount,
        estimated=amount if charge.estimated else 0,
        seconds=seconds if charge.what == "compute" else 0,
        unknown=int(micros is None),
        **{column: amount},
    )


def _row(spent: Spent, billed_usd: Decimal | None) -> Row:
    return Row(
        key=spent.key,
        hours=Decimal(spent.seconds) / SECONDS_PER_HOUR,
        compute_usd=usd(spent.compute),
        disk_usd=usd(spent.disk),
        address_usd=usd(spent.address),
        other_usd=usd(spent.other),
        total_usd=usd(spent.total),
        estimated_usd=usd(spent.estimated),
        unknown=spent.unknown > 0,
        billed_usd=billed_usd,
    )


def _order(row: Row) -> tuple[Decimal, str]:
    return -row.total_usd, row.key


def _sorted(rows: Iterable[Row], by: str) -> list[Row]:
    if by in ("month", "day"):
        return sorted(rows, key=lambda row: row.key, reverse=True)
    return sorted(rows, key=_order)


def _running(store: Store, open_lines: Sequence[Charge], now: datetime) -> Iterable[Running]:
    """Everything that costs now, the dearest first."""
    names = dict.fromkeys(line.machine for line in open_lines if line.market is not Market.OWN)
    found = [_one_running(store, name, open_lines, now) for name in names]
    return sorted(found, key=lambda each: -(each.cost_usd or Decimal(0)))


def _one_running(store: Store, name: str, open_lines: Sequence[Charge], now: datetime) -> Running:
    machine = store.get_machine(name)
    own = [line for line in open_lines if line.machine == name]
    since = min(line.opened_at for line in own)
    started = machine.launched_at if machine and machine.launched_at else since
    lines = [line for line in store.list_charges(machine=name) if line.opened_at >= min(started, since)]
    deadline = machine.deadline_at if machine else None
    return Running(
        machine=name,
        type=IMAGE_TYPE if own[0].what == SNAPSHOT else machine.type if machine else "",
        provider=own[0].provider,
        market=own[0].market.value,
        since=since,
        on=any(line.what == "compute" for line in own),
        cost_usd=run_cost_usd(lines, now=now),
        deadline_at=deadline,
        cost_at_deadline_usd=run_cost_usd(lines, now=max(now, deadline)) if deadline else None,
    )


def _old_prices(
    types: Sequence[SpentOnType], open_lines: Sequence[Charge], now: datetime
) -> tuple[date | None, Decimal]:
    """The oldest price list that compute was counted by, and how much was."""
    old = [(date.fromisoformat(each.old_price), each.compute) for each in types if each.old_price]
    for line in open_lines:
        day = old_price(line)
        if day is not None and line.what == "compute":
            old.append((day, sum(share.micros or 0 for share in shares_of(line, now=now))))
    return min((day for day, _ in old), default=None), usd(sum(amount for _, amount in old))


def _savings(types: Sequence[SpentOnType]) -> list[Saving]:
    """By type, the greatest saving first."""
    found: dict[tuple[str, str], Saving] = {}
    for each in types:
        if each.market != Market.SPOT.value or not each.seconds:
            continue
        hours = Decimal(each.seconds) / SECONDS_PER_HOUR
        price = _on_demand_usd(each.provider, each.type, each.region)
        one = Saving(
            each.provider, each.type, hours, usd(each.compute), None if price is None else price * hours
        )
        key = (each.provider, each.type)
        found[key] = _together(found[key], one) if key in found else one
    return sorted(found.values(), key=lambda each: -(each.saved_usd or Decimal(0)))


def _together(one: Saving, other: Saving) -> Saving:
    dear = [each.on_demand_usd for each in (one, other) if each.on_demand_usd is not None]
    return replace(
        one,
        hours=one.hours + other.hours,
        paid_usd=one.paid_usd + other.paid_usd,
        on_demand_usd=sum(dear, Decimal(0)) if len(dear) == 2 else None,
    )


def _on_demand_usd(provider: str, type: str, region: str) -> Decimal | None:
    """In that region, else in the cheapest that has a price."""
    if not type:
        return None
    offers = catalog.load_offers(provider=provider, type=type, market=Market.ON_DEMAND)
    priced = {offer.region: offer.price_per_hour_usd for offer in offers if offer.price_per_hour_usd}
    return priced.get(region) or min(priced.values(), default=None)
