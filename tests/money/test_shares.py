"""A charge laid over its days: nothing gained, nothing lost, at every boundary that UTC has or has not."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from money_samples import START, a_charge

from cloudrun.ledger import cost_usd
from cloudrun.models import Charge, Market
from cloudrun.shares import MICROS, old_price, shares_of

PRICES = st.decimals(Decimal("0.0001"), Decimal(100), places=4)
BEGIN = datetime(2016, 1, 1, tzinfo=UTC)
TIMES = st.timedeltas(timedelta(0), timedelta(days=4000)).map(lambda passed: BEGIN + passed)
LINES = st.builds(
    lambda provider, what, price, begin, length: a_charge(
        provider=provider,
        what=what,
        unit="GB-month" if what == "disk" else "hour",
        quantity=Decimal(100) if what == "disk" else Decimal(1),
        unit_price_usd=price,
        opened_at=begin,
        closed_at=begin + length,
        market=Market.SPOT,
    ),
    st.sampled_from(["aws", "azure", "floydhub", "somebody"]),
    st.sampled_from(["compute", "disk", "address"]),
    PRICES,
    TIMES,
    st.timedeltas(timedelta(0), timedelta(days=70)),
)


def micros(charge: Charge) -> int:
    cost = cost_usd(charge, now=START)
    assert cost is not None
    return int(cost * MICROS)


@given(LINES)
def test_the_parts_are_the_whole(charge: Charge) -> None:
    """Under every rule: by the hour, the minute, the second, with a minimum or without."""
    parts = shares_of(charge, now=START)
    assert sum(part.micros or 0 for part in parts) == micros(charge)
    assert all((part.micros or 0) >= 0 and part.seconds >= 0 for part in parts)
    days = [part.day for part in parts]
    assert days == [days[0] + timedelta(days=number) for number in range(len(days))]
    assert days[0] == charge.opened_at.date()


@given(LINES, st.timedeltas(timedelta(0), timedelta(days=9)))
def test_a_day_that_is_over_changes_no_more(charge: Charge, more: timedelta) -> None:
    """An open line seen later has the same past."""
    assert charge.closed_at is not None
    early = shares_of(charge, now=START)[:-1]
    later = shares_of(a_charge(**{**fields_of(charge), "closed_at": charge.closed_at + more}), now=START)
    assert later[: len(early)] == early


def fields_of(charge: Charge) -> dict[str, object]:
    return {name: getattr(charge, name) for name in Charge.__dataclass_fields__}


def parts_of(begin: datetime, end: datetime) -> dict[str, int]:
    """Seconds of each day."""
    parts = shares_of(a_charge(opened_at=begin, closed_at=end), now=START)
    return {part.day.isoformat(): part.seconds for part in parts}


def test_months_and_the_leap_day() -> None:
    found = parts_of(datetime(2024, 2, 28, 12, tzinfo=UTC), datetime(2024, 3, 1, 12, tzinfo=UTC))
    assert found == {"2024-02-28": 43200, "2024-02-29": 86400, "2024-03-01": 43200}
    found = parts_of(datetime(2023, 2, 28, 12, tzinfo=UTC), datetime(2023, 3, 1, 12, tzinfo=UTC))
    assert found == {"2023-02-28": 43200, "2023-03-01": 43200}


def test_midnight_belongs_to_the_day_that_begins() -> None:
    midnight = datetime(2026, 3, 5, tzinfo=UTC)
    assert parts_of(midnight - timedelta(hours=1), midnight) == {"2026-03-04": 3600}
    assert parts_of(midnight, midnight + timedelta(hours=1)) == {"2026-03-05": 3600}


def test_clocks_that_are_put_forward_or_back_change_nothing() -> None:
    """New York on 2026-03-08 had 23 hours, on 2026-11-01 it had 25: in UTC every day has 24."""
    new_york = ZoneInfo("America/New_York")
    for day in (date(2026, 3, 8), date(2026, 11, 1)):
        begin = datetime(day.year, day.month, day.day, tzinfo=new_york).astimezone(UTC)
        after = day + timedelta(days=1)
        end = datetime(after.year, after.month, after.day, tzinfo=new_york).astimezone(UTC)
        assert sum(parts_of(begin, end).values()) == (end - begin) // timedelta(seconds=1)
    local = datetime(2026, 3, 8, 1, 30, tzinfo=new_york)
    assert parts_of(local, datetime(2026, 3, 8, 3, 30, tzinfo=new_york)) == {"2026-03-08": 3600}


def test_the_minimum_falls_on_the_first_day() -> None:
    late = datetime(2026, 3, 4, 23, 59, 59, tzinfo=UTC)
    assert parts_of(late, late + timedelta(seconds=10)) == {"2026-03-04": 60, "2026-03-05": 0}


def test_an_unknown_price_is_no_zero_and_a_void_line_is_nothing() -> None:
    assert [part.micros for part in shares_of(a_charge(unit_price_usd=None), now=START)] == [None]
    assert shares_of(a_charge(void=True), now=START) == []


def test_an_open_line_counts_to_now_and_one_that_ends_before_its_beginning_once() -> None:
    opened = a_charge(closed_at=None)
    assert sum(part.seconds for part in shares_of(opened, now=START + timedelta(days=2))) == 2 * 86400
    backwards = a_charge(closed_at=START - timedelta(seconds=30))
    assert [part.seconds for part in shares_of(backwards, now=START)] == [60]


def test_a_price_is_old_after_a_week() -> None:
    assert old_price(a_charge(price_as_of=START.date() - timedelta(days=7))) is None
    assert old_price(a_charge(price_as_of=START.date() - timedelta(days=9))) == START.date() - timedelta(
        days=9
    )
    assert old_price(a_charge(price_as_of=None)) is None
