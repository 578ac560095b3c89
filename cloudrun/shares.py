"""The cost of a charge laid over the days, in UTC, on which it arose, and over the runs that used its machine
then. Pure functions.

The share of a day is what the charge cost by the day's end, less what it cost by its beginning: so the shares
of a charge add up to its cost to the millionth, whatever its billing rule and however it is rounded, and a
minimum falls on the first day. A day's share is split by time among the runs that used the machine on it, in
equal parts where several did at once. What no run used is the run's that the machine was rented for, else
nobody's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

from cloudrun.ledger import SMALLEST_USD, billed_seconds_of, by_time, cost_usd
from cloudrun.models import Charge

MICROS = int(1 / SMALLEST_USD)  # of a dollar: in them the store adds up, exactly
TICK = timedelta(microseconds=1)
FRESH = timedelta(days=7)  # a price list of the same week is no old one


@dataclass(frozen=True, slots=True)
class Use:
    """A run's process was on a machine. ended_at: None while it is."""

    run: str
    began_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Share:
    """One day's part of a charge, one run's where runs used the machine: "" is nobody's. micros: millionths
    of a US dollar, None where the price is unknown."""

    day: date
    micros: int | None
    seconds: int
    run: str = ""


def shares_of(charge: Charge, *, now: datetime, uses: Sequence[Use] = ()) -> list[Share]:
    """The parts of a charge in order; of an open one as it stands now. [] where it costs nothing ever. uses:
    of its machine, by any run and at any time."""
    if charge.void:
        return []
    end = max(charge.opened_at, charge.closed_at or now)
    used = _by_day(uses if by_time(charge) else (), charge.opened_at, end)
    found: list[Share] = []
    micros_before: int | None = 0
    seconds_before = 0
    for day, begin, until in _days(charge.opened_at, end):
        so_far = charge if until == charge.closed_at else replace(charge, closed_at=until)
        micros, seconds = _micros(so_far), billed_seconds_of(so_far, until)
        part = None if micros is None or micros_before is None else micros - micros_before
        whole = Share(day, part, seconds - seconds_before, charge.run)
        found += _by_run(whole, begin, until, used[day]) if day in used else [whole]
        micros_before, seconds_before = micros, seconds
    return found


def old_price(charge: Charge) -> date | None:
    """The day of its price, where that lay more than a week before the charge began."""
    as_of = charge.price_as_of
    return as_of if as_of is not None and charge.opened_at.date() - as_of > FRESH else None


def _by_day(uses: Sequence[Use], begin: datetime, end: datetime) -> dict[date, list[Use]]:
    """Those that meet the stretch, under each day that they touch of it: a machine may carry thousands."""
    found: dict[date, list[Use]] = {}
    for use in uses:
        if not _overlaps(use, begin, end):
            continue
        day = max(use.began_at, begin).astimezone(UTC).date()
        last = min(use.ended_at or end, end).astimezone(UTC).date()
        while day <= last:
            found.setdefault(day, []).append(use)
            day += timedelta(days=1)
    return found


def _overlaps(use: Use, begin: datetime, end: datetime) -> bool:
    return use.began_at < end and (use.ended_at is None or use.ended_at > begin)


def _days(begin: datetime, end: datetime) -> Iterator[tuple[date, datetime, datetime]]:
    """Each day from begin on, with the moments between which it counts."""
    day, since, last = begin.astimezone(UTC).date(), begin.astimezone(UTC), end.astimezone(UTC)
    while True:
        midnight = datetime.combine(day + timedelta(days=1), time(), UTC)
        if midnight >= last:
            yield day, since, last
            return
        yield day, since, midnight
        day, since = day + timedelta(days=1), midnight


def _by_run(whole: Share, begin: datetime, until: datetime, uses: Sequence[Use]) -> list[Share]:
    """A day's share, split by time. Nothing is lost: each stretch gets what is due by its end, less what is
    given out already."""
    stretches = list(_stretches(begin, until, uses))
    moments, all_of_it = [to - begin for to, _ in stretches], until - begin
    micros = None if whole.micros is None else _due(whole.micros, moments, all_of_it)
    seconds = _due(whole.seconds, moments, all_of_it)
    found: dict[str, Share] = {}
    for number, (_, users) in enumerate(stretches):
        of = users or (whole.run,)
        for place, run in enumerate(of):
            known = found.get(run, Share(whole.day, 0, 0, run))
            more = None if micros is None else _part(micros[number], place, len(of))
            total = None if more is None else (known.micros or 0) + more
            longer = known.seconds + _part(seconds[number], place, len(of))
            found[run] = Share(whole.day, total, longer, run)
    return list(found.values())


def _stretches(
    begin: datetime, end: datetime, uses: Sequence[Use]
) -> Iterator[tuple[datetime, tuple[str, ...]]]:
    """The end of each stretch in which the same runs used the machine, and these; one at least."""
    changes = []
    for use in uses:
        if _overlaps(use, begin, end):
            changes.append((max(use.began_at, begin), 1, use.run))
            changes += [(use.ended_at, -1, use.run)] if use.ended_at and use.ended_at < end else []
    there: Counter[str] = Counter()
    for moment, step, run in sorted(changes):
        if moment > begin:
            yield moment, tuple(sorted(+there))
            begin = moment
        there[run] += step
    yield end, tuple(sorted(+there))


def _due(amount: int, moments: Sequence[timedelta], whole: timedelta) -> list[int]:
    """What each stretch gets that ends at such a moment: the last one what is left."""
    due = [amount * (moment // TICK) // (whole // TICK) for moment in moments[:-1]] + [amount]
    return [one - before for before, one in pairwise([0, *due])]


def _part(amount: int, number: int, of: int) -> int:
    """Of equal parts; what is left over goes to the first ones, one each."""
    return amount // of + (number < amount % of)


def _micros(charge: Charge) -> int | None:
    assert charge.closed_at is not None  # noqa: S101  # set by the caller
    cost = cost_usd(charge, now=charge.closed_at)
    return None if cost is None else int(cost * MICROS)
