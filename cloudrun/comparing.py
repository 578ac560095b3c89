"""The same work everywhere: what so many hours would have cost on each offer, service and own computer.

Hours are those of one GPU, the base. Elsewhere they are divided by a ratio of speeds, stated or measured;
without one the same hours are assumed, and the line says so. No I/O beyond the shipped facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal

from cloudrun import catalog
from cloudrun.billing import SECONDS_PER_HOUR, address_price_usd, billed_seconds, egress_usd
from cloudrun.catalog.loader import find_type, read_csv
from cloudrun.catalog.prices import HOURS_PER_MONTH
from cloudrun.errors import UsageError
from cloudrun.ledger import SMALLEST_USD
from cloudrun.models import Market, Offer
from cloudrun.ownpc import OwnPc

SAME_HOURS = "same hours assumed"
OLD_PRICES_DAY = date(2017, 6, 1)  # whose billing rules go with prices_2017.csv: AWS still by the hour


@dataclass(frozen=True, slots=True)
class Speed:
    """How many times faster than the base a GPU is, and who says so."""

    ratio: Decimal
    source: str  # "stated", or what was measured


@dataclass(frozen=True, slots=True)
class Work:
    """What is compared: hours on the base, and everything that is sent or kept beside them.

    gpu: the base, as the catalogue names it; "" is not known. speeds: by GPU, lower case.
    """

    hours: Decimal
    gpu: str = ""
    gpu_count: int = 1
    disk_gb: int = 0
    egress_gb: Decimal = Decimal(0)
    speeds: Mapping[str, Speed] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way to do the work. Money of None is unknown. hours: there."""

    kind: str  # offer | service | own-pc | paid
    name: str
    hours: Decimal
    provider: str = ""
    region: str = ""
    market: str = ""
    gpu: str = ""
    gpu_count: int = 0
    speed: Speed | None = None
    price_per_hour_usd: Decimal | None = None
    price_as_of: str = ""  # the day, or the year where that is all that is known
    billed_hours: Decimal | None = None
    compute_usd: Decimal | None = None
    disk_usd: Decimal = Decimal(0)
    address_usd: Decimal = Decimal(0)
    egress_usd: Decimal = Decimal(0)
    total_usd: Decimal | None = None
    break_even_hours: Decimal | None = None  # of the own PC against this; None = never, or none asked for
    retired: bool = False  # its provider rents it out no more
    notes: tuple[str, ...] = ()
    brief: tuple[str, ...] = ()  # the notes for a narrow place


def compare(
    work: Work,
    offers: Iterable[Offer],
    *,
    services: Sequence[Alternative] = (),
    own_pc: OwnPc | None = None,
    paid: Sequence[tuple[str, Decimal]] = (),
    at: datetime,
) -> list[Alternative]:
    """All of them, cheapest first, an unknown total last. at: when the work would begin; the billing rules of
    that day count. paid: (what it was, USD) for work of the base's hours that was really paid."""
    found = [of_offer(work, offer, at=at) for offer in offers]
    found += [of_service(work, service, at=at) for service in services]
    found += [_of_payment(work, name, amount) for name, amount in paid]
    if own_pc is not None:
        pc_speed, _ = _speed(work, own_pc.gpu)
        found = [_with_break_even(each, own_pc, pc_speed) for each in found]
        found.append(of_own_pc(work, own_pc))
    return sorted(found, key=_order)


def cheapest_regions(offers: Iterable[Offer]) -> list[Offer]:
    """One offer a provider, type and market: that of the cheapest region. Offers come cheapest first."""
    best: dict[tuple[str, str, Market], Offer] = {}
    for offer in offers:
        best.setdefault((offer.provider, offer.type, offer.market), offer)
    return list(best.values())


def of_offer(work: Work, offer: Offer, *, at: datetime) -> Alternative:
    """The work on an offer: billed by its provider's rule of the day, disk and address for the same time."""
    speed, notes = _speed(work, offer.gpu)
    hours = work.hours / speed.ratio if speed else work.hours
    end = at + timedelta(seconds=int((hours * SECONDS_PER_HOUR).to_integral_value(ROUND_HALF_UP)))
    billed = Decimal(billed_seconds(offer.provider, offer.market, at, end)) / SECONDS_PER_HOUR
    price = Decimal(0) if offer.market is Market.OWN else offer.price_per_hour_usd
    rented = offer.market is not Market.OWN
    return _totalled(Alternative(
        kind="offer",
        name=offer.type,
        hours=hours,
        provider=offer.provider,
        region=offer.region,
        market=offer.market.value,
        gpu=offer.gpu,
        gpu_count=offer.gpu_count,
        speed=speed,
        price_per_hour_usd=price,
        price_as_of=offer.price_as_of.isoformat() if offer.price_as_of else "",
        billed_hours=billed if rented else hours,
        compute_usd=None if price is None else _money(price * billed),
        disk_usd=_disk_usd(offer.provider, work.disk_gb, hours) if rented else Decimal(0),
        address_usd=_money(address_price_usd(offer.provider, at.date()) * hours) if rented else Decimal(0),
        egress_usd=_money(egress_usd(offer.provider, work.egress_gb) or Decimal(0)) if rented else Decimal(0),
        retired=_retired(offer),
        notes=(*notes, *_idle_gpus(work, offer), *filter(None, (offer.why_not, offer.warning))),
        brief=_brief_of_offer(work, offer),
    ))  # fmt: skip


def of_service(work: Work, service: Alternative, *, at: datetime) -> Alternative:
    """The work on a service that sells hours at one flat price, storage within its plan."""
    speed, notes = _speed(work, service.gpu)
    hours = work.hours / speed.ratio if speed else work.hours
    end = at + timedelta(seconds=int((hours * SECONDS_PER_HOUR).to_integral_value(ROUND_HALF_UP)))
    billed = Decimal(billed_seconds(service.provider, Market.ON_DEMAND, at, end)) / SECONDS_PER_HOUR
    price = service.price_per_hour_usd
    return _totalled(replace(
        service,
        hours=hours,
        speed=speed,
        billed_hours=billed,
        compute_usd=None if price is None else _money(price * billed),
        notes=(*service.notes, *notes),
        brief=(*service.brief, *_brief_speed(work, service.gpu)),
    ))  # fmt: skip


def of_own_pc(work: Work, pc: OwnPc) -> Alternative:
    """Electricity, and the share of the purchase where a lifetime is stated."""
    speed, notes = _speed(work, pc.gpu)
    hours = work.hours / speed.ratio if speed else work.hours
    per_hour = pc.electricity_per_hour_usd + pc.purchase_per_hour_usd
    return _totalled(Alternative(
        kind="own-pc",
        name="own PC",
        hours=hours,
        market=Market.OWN.value,
        gpu=pc.gpu,
        speed=speed,
        price_per_hour_usd=per_hour,
        billed_hours=hours,
        compute_usd=_money(per_hour * hours),
        notes=notes,
        brief=_brief_speed(work, pc.gpu),
    ))  # fmt: skip


def load_services(rates: Mapping[str, Decimal]) -> list[Alternative]:
    """Services with a flat price an hour, of prices_2017.csv; a currency without a rate makes it unknown."""
    return [
        Alternative(
            kind="service",
            name=row["instance_type"],
            hours=Decimal(0),
            provider=row["provider"],
            market=Market.ON_DEMAND.value,
            gpu=_in_brackets(row["instance_type"]),
            gpu_count=1,
            price_per_hour_usd=_old_price(row, rates),
            price_as_of=row["observed"],
            retired=True,
            notes=("closed since",),
            brief=("closed",),
        )
        for row in read_csv("prices_2017.csv")
        if row["provider"] not in ("aws", "azure")
    ]


def load_old_offers(rates: Mapping[str, Decimal]) -> list[Offer]:
    """What AWS and Azure sold in 2017, as prices_2017.csv has it, cheapest first."""
    found = [
        _with_hardware(
            Offer(
                provider=row["provider"],
                region=row["region"],
                type=row["instance_type"],
                market=Market(row["kind"].replace("_", "-")),
                price_per_hour_usd=_old_price(row, rates),
                price_as_of=_day(row["observed"]),
                warning="" if _day(row["observed"]) else f"a price of {row['observed']}",
            )
        )
        for row in read_csv("prices_2017.csv")
        if row["provider"] in ("aws", "azure")
    ]
    return sorted(found, key=_by_price)


def _by_price(offer: Offer) -> tuple[bool, Decimal]:
    return offer.price_per_hour_usd is None, offer.price_per_hour_usd or Decimal(0)


def start_of(day: date) -> datetime:
    """Midnight UTC of that day."""
    return datetime.combine(day, time(), UTC)


def parse_speeds(pairs: Iterable[tuple[str, str]]) -> dict[str, Speed]:
    """GPU=RATIO of the user. Raises UsageError."""
    found = {}
    for gpu, text in pairs:
        ratio = number(text)
        if ratio is None or ratio <= 0:
            raise UsageError(f"--speed {gpu}={text}: no ratio", hint="e.g. T4=1.8: 1.8 times as fast")
        found[gpu.casefold()] = Speed(ratio, "stated")
    return found


def number(text: str) -> Decimal | None:
    """A plain finite number below 10^12, None for anything else."""
    try:
        value = Decimal(text.strip().replace("_", ""))
    except ArithmeticError:
        return None
    return value if value.is_finite() and abs(value) < Decimal("1e12") else None


def _speed(work: Work, gpu: str) -> tuple[Speed | None, tuple[str, ...]]:
    """How fast that GPU is beside the base, and what must be said of it."""
    stated = work.speeds.get(gpu.casefold())
    if stated is not None:
        return stated, (f"{stated.ratio:f} x as fast, {stated.source}",)
    same = bool(gpu) and gpu.casefold() == work.gpu.casefold()
    return (Speed(Decimal(1), "the same GPU"), ()) if same else (None, (SAME_HOURS,))


def _idle_gpus(work: Work, offer: Offer) -> tuple[str, ...]:
    needed = max(1, work.gpu_count)
    return (f"{needed} of its {offer.gpu_count} GPUs used",) if offer.gpu_count > needed else ()


def _brief_of_offer(work: Work, offer: Offer) -> tuple[str, ...]:
    old = _retired(offer)
    said = (
        "retired" if old else "",
        *_brief_speed(work, offer.gpu),
        offer.why_not,
        "" if old else offer.warning,
    )
    return tuple(filter(None, said))


def _brief_speed(work: Work, gpu: str) -> tuple[str, ...]:
    speed, notes = _speed(work, gpu)
    if speed is None:
        return ("same hours",)
    return (f"x {speed.ratio:f} {speed.source.partition(':')[0]}",) if notes else ()


def _retired(offer: Offer) -> bool:
    known = find_type(offer.provider, offer.type)
    return known is not None and known.status == "retired"


def _of_payment(work: Work, name: str, amount_usd: Decimal) -> Alternative:
    return Alternative(
        kind="paid",
        name=name,
        hours=work.hours,
        gpu=work.gpu,
        price_per_hour_usd=_money(amount_usd / work.hours),
        billed_hours=work.hours,
        compute_usd=amount_usd,
        total_usd=amount_usd,
    )


def _with_break_even(found: Alternative, pc: OwnPc, pc_speed: Speed | None) -> Alternative:
    if found.total_usd is None or not found.hours:
        return found
    faster = (pc_speed.ratio if pc_speed else Decimal(1)) / (found.speed.ratio if found.speed else Decimal(1))
    hours = pc.break_even_hours(found.total_usd / found.hours, faster)
    return replace(found, break_even_hours=hours)


def _totalled(found: Alternative) -> Alternative:
    if found.compute_usd is None:
        return found
    rest = found.disk_usd + found.address_usd + found.egress_usd
    return replace(found, total_usd=found.compute_usd + rest)


def _disk_usd(provider: str, disk_gb: int, hours: Decimal) -> Decimal:
    rule = catalog.disk_rule(provider)
    if rule is None or rule.price_usd is None:
        return Decimal(0)
    return _money(rule.price_usd * disk_gb * hours / HOURS_PER_MONTH)


def _old_price(row: Mapping[str, str], rates: Mapping[str, Decimal]) -> Decimal | None:
    rate = rates.get(row["currency"])
    return Decimal(row["price_per_hour"]) / rate if rate else None


def _with_hardware(offer: Offer) -> Offer:
    known = find_type(offer.provider, offer.type)
    if known is None:
        return offer
    return replace(
        offer,
        gpu=known.gpu,
        gpu_count=known.gpu_count,
        gpu_memory_gib=known.gpu_memory_gib,
        gpu_capability=known.gpu_capability,
    )


def _in_brackets(text: str) -> str:
    return text.partition("(")[2].rstrip(")")


def _day(text: str) -> date | None:
    """None where only the year is known."""
    return date.fromisoformat(text) if len(text) > len("2017") else None


def _money(amount_usd: Decimal) -> Decimal:
    return amount_usd.quantize(SMALLEST_USD, ROUND_HALF_UP)


def _order(found: Alternative) -> tuple[bool, Decimal, str, str, str]:
    total = found.total_usd
    return total is None, total or Decimal(0), found.provider, found.name, found.market
