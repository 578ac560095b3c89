"""A provider's bill beside our ledger: whose each line is, what is kept of it, where the two differ and why.

Only lines of our machines are kept. A line that stands in a later version of the same bill takes the place of
the earlier one; so importing twice, or again when the month has gone on, counts nothing twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from cloudrun.bill_formats import BillLine, read_bill
from cloudrun.billing import SECONDS_PER_HOUR
from cloudrun.errors import UsageError
from cloudrun.images import SNAPSHOT
from cloudrun.ledger import TRANSFER
from cloudrun.models import Machine
from cloudrun.shares import shares_of
from cloudrun.store_bills import Billed

if TYPE_CHECKING:
    from cloudrun.store import Store

SAME_USD = Decimal("0.005")  # half a cent: below it two amounts are the same
SAME_PART = Decimal("0.01")  # of hours or prices: clocks and roundings
COUNTED = ("compute", "disk", "address")  # what the ledger has exact lines for
GUESSED = ("egress", TRANSFER, SNAPSHOT)  # and estimates


@dataclass(frozen=True, slots=True)
class Side:
    """One side's account of one thing: amount in US dollars, and hours of compute where they are known."""

    usd: Decimal = Decimal(0)
    hours: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One machine in our ledger and on the bill; why: the known reasons, [] where they agree."""

    machine: str
    ours_usd: Decimal
    billed_usd: Decimal
    why: tuple[str, ...] = ()

    @property
    def difference_usd(self) -> Decimal:
        return self.billed_usd - self.ours_usd


@dataclass(frozen=True, slots=True)
class Imported:
    """What a bill came to. foreign_usd: lines that are not of our machines, which are not kept."""

    provider: str
    first_day: date
    last_day: date
    lines: int
    matched: int
    new: int
    changed: int
    foreign_usd: Decimal
    differences: tuple[Difference, ...]


@dataclass
class _Bill:
    """A bill while it is read."""

    lines: int = 0
    kept: dict[str, tuple[BillLine, str]] = field(default_factory=dict)
    foreign: dict[str, Decimal] = field(default_factory=dict)
    first: date = date.max
    last: date = date.min


def import_bills(
    store: Store, paths: Sequence[Path], *, rates: Mapping[str, Decimal], now: datetime
) -> list[Imported]:
    """Keep what the bills say of our machines, and compare; one answer a provider. Files that are parts of
    one bill belong into one call. Raises UsageError, and then nothing is kept."""
    found: dict[str, _Bill] = {}
    finder = _Finder(store.list_machines(all=True), store.charged_images())
    for path in paths:
        for line in read_bill(path):
            bill = found.setdefault(line.provider, _Bill())
            _take(bill, line, finder.name_of(line))
    if not found:
        raise UsageError("no line in these bills", hint="are they of the right month?")
    for bill in found.values():
        _check_rates(bill, rates)
    return [_finish(store, provider, bill, paths, rates, now) for provider, bill in found.items()]


def billed_sums(
    store: Store, by: str, rates: Mapping[str, Decimal], *, since: date | None = None
) -> dict[str, Decimal]:
    """US dollars that imported bills name, by month, day, machine or provider; {} by anything else. What is
    billed in a currency without a rate is left out."""
    found: dict[str, Decimal] = {}
    if by not in ("month", "day", "machine", "provider"):
        return found
    for each in store.list_billed():
        key = {"month": each.day[:7], "day": each.day, "machine": each.machine}.get(by, each.provider)
        if each.currency in rates and (since is None or each.day >= since.isoformat()):
            found[key] = found.get(key, Decimal(0)) + each.cost / rates[each.currency]
    return found


class _Finder:
    """Whose a line is: by the resource's id, by our tags, at Azure by the name with which all parts of a
    machine begin."""

    def __init__(self, machines: Iterable[Machine], images: Iterable[str]) -> None:
        known = list(machines)
        self._ids = {each.id.lower(): each.name for each in known if each.id}
        self._names = {*(each.name for each in known), *images}
        self._stems = {_last(each.id): each.name for each in known if each.provider == "azure" and each.id}

    def name_of(self, line: BillLine) -> str:
        """ "" where it is none of ours."""
        return (
            self._ids.get(line.resource.lower())
            or (line.name if line.name in self._names else "")
            or (self._part_of(line.resource) if line.provider == "azure" else "")
        )

    def _part_of(self, resource: str) -> str:
        """NAME-disk and NAME-ip are parts of the virtual machine NAME."""
        return self._stems.get(_last(resource).rpartition("-")[0], "")


def _last(resource: str) -> str:
    return resource.lower().rpartition("/")[2]


def _take(bill: _Bill, line: BillLine, name: str) -> None:
    bill.lines += 1
    bill.first, bill.last = min(bill.first, line.day), max(bill.last, line.last_day)
    if not name:
        bill.foreign[line.currency] = bill.foreign.get(line.currency, Decimal(0)) + line.cost
        return
    key = hashlib.sha256("\0".join((line.provider, *line.identity)).encode()).hexdigest()
    if key in bill.kept:
        known, _ = bill.kept[key]
        line = _together(known, line)
    bill.kept[key] = (line, name)


def _together(one: BillLine, other: BillLine) -> BillLine:
    return replace(one, quantity=one.quantity + other.quantity, cost=one.cost + other.cost)


def _check_rates(bill: _Bill, rates: Mapping[str, Decimal]) -> None:
    currencies = {line.currency for line, _ in bill.kept.values()} | set(bill.foreign)
    for code in sorted(currencies - rates.keys()):
        raise UsageError(f"the bill is in {code}, and there is no rate", hint=f"add --rate {code}=UNITS")


def _finish(
    store: Store,
    provider: str,
    bill: _Bill,
    paths: Sequence[Path],
    rates: Mapping[str, Decimal],
    now: datetime,
) -> Imported:
    files = ", ".join(path.name for path in paths)
    rows = [_billed(key, line, name, files, now) for key, (line, name) in bill.kept.items()]
    new, changed = store.save_billed(rows)
    foreign = sum((cost / rates[code] for code, cost in bill.foreign.items()), Decimal(0))
    return Imported(
        provider=provider,
        first_day=bill.first,
        last_day=bill.last,
        lines=bill.lines,
        matched=len(rows),
        new=new,
        changed=changed,
        foreign_usd=foreign,
        differences=tuple(_differences(store, provider, bill, rates, now)),
    )


def _billed(key: str, line: BillLine, name: str, files: str, now: datetime) -> Billed:
    return Billed(
        key=key,
        provider=line.provider,
        account=line.account,
        resource=line.resource,
        machine=name,
        what=line.what,
        usage=line.usage,
        day=line.day.isoformat(),
        quantity=line.quantity,
        unit=line.unit,
        cost=line.cost,
        currency=line.currency,
        file=files,
        imported_at=now.isoformat(),
    )


# --- where the two differ ----------------------------------------------------------------


def _differences(
    store: Store, provider: str, bill: _Bill, rates: Mapping[str, Decimal], now: datetime
) -> list[Difference]:
    """Each machine that either side names within the days of the bill, the greatest difference first."""
    ours, unknown = _ours(store, provider, bill.first, bill.last, now)
    billed = _theirs(bill, rates)
    found = []
    for machine in sorted({*ours, *billed}):
        mine, theirs = ours.get(machine, {}), billed.get(machine, {})
        found.append(Difference(
            machine=machine,
            ours_usd=sum((side.usd for side in mine.values()), Decimal(0)),
            billed_usd=sum((side.usd for side in theirs.values()), Decimal(0)),
            why=tuple(_why(mine, theirs, unknown=machine in unknown)),
        ))  # fmt: skip
    return sorted(found, key=lambda each: (-abs(each.difference_usd), each.machine))


Sides = dict[str, dict[str, Side]]


def _ours(store: Store, provider: str, first: date, last: date, now: datetime) -> tuple[Sides, set[str]]:
    """By machine and what; and the machines with a line whose price is unknown."""
    from cloudrun.report import usd

    found: Sides = {}
    unknown = set()
    for machine, what, micros, seconds, unpriced in store.spent_by_machine_in(first, last, provider):
        _add(found, machine, what, usd(micros), Decimal(seconds) / SECONDS_PER_HOUR)
        if unpriced:
            unknown.add(machine)
    for charge in store.list_charges(open_only=True):
        for share in shares_of(charge, now=now) if charge.provider == provider else ():
            if first <= share.day <= last:
                hours = Decimal(share.seconds) / SECONDS_PER_HOUR
                _add(found, charge.machine, charge.what, usd(share.micros or 0), hours)
                if share.micros is None:
                    unknown.add(charge.machine)
    return found, unknown


def _theirs(bill: _Bill, rates: Mapping[str, Decimal]) -> Sides:
    found: Sides = {}
    for line, machine in bill.kept.values():
        _add(found, machine, line.what, line.cost / rates[line.currency], line.hours)
    return found


def _add(found: Sides, machine: str, what: str, amount: Decimal, hours: Decimal | None) -> None:
    sides = found.setdefault(machine, {})
    known = sides.get(what, Side(hours=Decimal(0)))
    both = None if hours is None or known.hours is None else known.hours + hours
    sides[what] = Side(known.usd + amount, both)


def _why(ours: Mapping[str, Side], billed: Mapping[str, Side], *, unknown: bool) -> list[str]:
    """The known reasons of a difference."""
    if not billed:
        return ["not on the bill for these days"]
    if not ours:
        return ["not in our ledger for these days"]
    reasons = ["a price of ours was unknown"] if unknown else []
    for what in COUNTED:
        reasons += _why_of(what, ours.get(what, Side()), billed.get(what, Side()))
    for what in GUESSED:
        mine, theirs = (side.get(what, Side()).usd for side in (ours, billed))
        if abs(mine - theirs) >= SAME_USD:
            reasons.append(f"{what}: {mine:.2f} USD by our estimate, {theirs:.2f} billed")
    known = (*COUNTED, *GUESSED)
    rest = {what: side.usd for what, side in billed.items() if what not in known and side.usd}
    return reasons + [
        f"{what} {amount:.2f} USD, which we do not count" for what, amount in sorted(rest.items())
    ]


def _why_of(what: str, ours: Side, billed: Side) -> list[str]:
    if abs(ours.usd - billed.usd) < SAME_USD:
        return []
    if not billed.usd:
        tag = "" if what == "compute" else ": is the tag cloudrun-name active for cost allocation?"
        return [f"no {what} on the bill{tag}"]
    if not ours.usd:
        return [f"no {what} in our ledger"]
    if what != "compute" or not ours.hours or not billed.hours:
        return [f"{what}: {ours.usd:.2f} USD by our price, {billed.usd:.2f} billed"]
    reasons = []
    if _apart(ours.hours, billed.hours):
        reasons.append(f"{billed.hours:.2f} h billed, {ours.hours:.2f} h counted")
    ours_price, price = ours.usd / ours.hours, billed.usd / billed.hours
    if _apart(ours_price, price):
        reasons.append(f"{price:.4f} USD/h billed, {ours_price:.4f} counted")
    return reasons or ["roundings"]


def _apart(one: Decimal, other: Decimal) -> bool:
    return abs(one - other) > SAME_PART * max(abs(one), abs(other))
