"""How disks, addresses and what is sent out are billed, and FloydHub's rule; machines: tests/store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from money_samples import START, a_charge

from cloudrun.billing import address_price_usd, billed_seconds, disk_seconds, egress_usd, exact_seconds
from cloudrun.ledger import at_prices, billed_seconds_of, cost_usd
from cloudrun.models import Charge, Market
from cloudrun.shares import shares_of

GIGABYTES = st.decimals(Decimal(0), Decimal(500_000), places=3)
SECONDS = st.integers(60, 10**7)
IN_2020 = datetime(2020, 1, 1, tzinfo=UTC)


def after(seconds: int) -> datetime:
    return IN_2020 + timedelta(seconds=seconds)


# --- what is sent out --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "sent_gb", "usd"),
    [
        ("aws", "0", "0"),
        ("aws", "100", "0"),  # free
        ("aws", "101", "0.09"),
        ("aws", "10241", "912.685"),  # 10,140 at 0.09 and one at 0.085
        ("azure", "200", "8.70"),
    ],
)
def test_egress_by_its_steps(provider: str, sent_gb: str, usd: str) -> None:
    assert egress_usd(provider, Decimal(sent_gb)) == Decimal(usd)


def test_egress_of_others_is_unknown() -> None:
    assert egress_usd("floydhub", Decimal(1)) is None


@given(st.sampled_from(["aws", "azure"]), GIGABYTES, GIGABYTES)
def test_more_egress_never_costs_less_nor_more_than_its_first_price(
    provider: str, one: Decimal, other: Decimal
) -> None:
    less, more = (egress_usd(provider, amount) for amount in sorted([one, other]))
    assert less is not None
    assert more is not None
    assert 0 <= less <= more <= max(one, other) * Decimal("0.09")
    assert more - less <= abs(one - other) * Decimal("0.09")


# --- addresses and disks -----------------------------------------------------------------


def test_aws_bills_addresses_since_february_2024() -> None:
    assert address_price_usd("aws", date(2024, 1, 31)) == 0
    assert address_price_usd("aws", date(2024, 2, 1)) == Decimal("0.005")
    assert address_price_usd("azure", date(2026, 1, 1)) == Decimal("0.005")
    assert address_price_usd("local", date(2026, 1, 1)) == 0


def test_an_ebs_disk_is_billed_for_a_minute_at_least() -> None:
    assert disk_seconds("aws", IN_2020, after(1)) == 60
    assert disk_seconds("aws", IN_2020, after(61)) == 61
    assert disk_seconds("azure", IN_2020, after(1)) == 1
    disk = a_charge(what="disk", unit="GB-month", opened_at=IN_2020, closed_at=after(1))
    assert billed_seconds_of(disk, after(1)) == 60


@given(st.sampled_from(["aws", "azure"]), st.sampled_from(["disk", "address"]), SECONDS, SECONDS)
def test_disks_and_addresses_add_up_over_splits(provider: str, what: str, first: int, second: int) -> None:
    def seconds(begin: datetime, end: datetime) -> int:
        line = a_charge(provider=provider, what=what, opened_at=begin, closed_at=end)
        return billed_seconds_of(line, end)

    whole = seconds(IN_2020, after(first + second))
    assert whole == seconds(IN_2020, after(first)) + seconds(after(first), after(first + second))


@given(st.integers(0, 10**7))
def test_floydhub_bills_seconds_without_a_minimum(seconds: int) -> None:
    assert billed_seconds("floydhub", Market.ON_DEMAND, IN_2020, after(seconds)) == seconds


# --- months, leap days, clocks -----------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "hours"),
    [
        (datetime(2024, 2, 28, tzinfo=UTC), 72),  # 29 February in it
        (datetime(2023, 2, 28, tzinfo=UTC), 48),
        (datetime(2026, 12, 31, tzinfo=UTC), 48),
    ],
)
def test_a_day_has_24_hours_and_a_month_730(begin: datetime, hours: int) -> None:
    end = {2024: datetime(2024, 3, 2, tzinfo=UTC), 2023: datetime(2023, 3, 2, tzinfo=UTC),
           2026: datetime(2027, 1, 2, tzinfo=UTC)}[begin.year]  # fmt: skip
    assert exact_seconds(begin, end) == hours * 3600
    disk = a_charge(what="disk", unit="GB-month", quantity=Decimal(730), opened_at=begin, closed_at=end,
                    unit_price_usd=Decimal("0.1"))  # fmt: skip
    assert cost_usd(disk, now=START) == Decimal("0.1") * hours


RULES = st.sampled_from([
    ("aws", 2016), ("aws", 2018), ("azure", 2016), ("azure", 2021), ("azure", 2026), ("floydhub", 2017),
    ("somebody", 2020),
])  # fmt: skip
WHATS = st.sampled_from(["compute", "disk", "address"])
LENGTHS = st.timedeltas(timedelta(0), timedelta(days=50))
ZONES = st.sampled_from(["America/New_York", "Europe/London", "Asia/Tokyo", "Australia/Lord_Howe", "UTC"])


def line_of(provider: str, what: str, begin: datetime, end: datetime) -> Charge:
    unit = "GB-month" if what == "disk" else "hour"
    return a_charge(provider=provider, what=what, unit=unit, unit_price_usd=Decimal("0.0713"),
                    market=Market.SPOT, opened_at=begin, closed_at=end)  # fmt: skip


def dollars(line: Charge) -> Decimal:
    cost = cost_usd(line, now=START)
    assert cost is not None
    return cost


@given(RULES, WHATS, LENGTHS, LENGTHS)
def test_no_rule_is_ever_negative_or_pays_for_staying_longer(
    rule: tuple[str, int], what: str, one: timedelta, other: timedelta
) -> None:
    begin = datetime(rule[1], 2, 20, 13, 5, tzinfo=UTC)
    less, more = (dollars(line_of(rule[0], what, begin, begin + each)) for each in sorted([one, other]))
    assert 0 <= less <= more


@given(RULES, WHATS, LENGTHS, LENGTHS)
def test_to_stop_between_saves_nothing_but_the_rest_of_a_minute(
    rule: tuple[str, int], what: str, first: timedelta, second: timedelta
) -> None:
    """Azure once left the rest of a minute unbilled; every other rule rounds up, or not at all."""
    provider, year = rule
    begin = datetime(year, 2, 20, 13, 5, tzinfo=UTC)
    middle, end = begin + first, begin + first + second
    whole = dollars(line_of(provider, what, begin, end))
    parts = dollars(line_of(provider, what, begin, middle)) + dollars(line_of(provider, what, middle, end))
    minute = Decimal("0.0713") / 60 if (provider, year, what) == ("azure", 2016, "compute") else 0
    assert whole <= parts + minute + Decimal("0.000001")


@given(RULES, WHATS, st.timedeltas(timedelta(0), timedelta(days=400)), LENGTHS, ZONES, ZONES)
def test_nobody_s_clock_changes_what_is_billed(
    rule: tuple[str, int], what: str, since: timedelta, length: timedelta, one: str, other: str
) -> None:
    """Put forward, put back by half an hour, or in two zones: the same moments cost the same, on the same
    days."""
    begin = datetime(rule[1], 1, 1, tzinfo=UTC) + since
    line = line_of(rule[0], what, begin, begin + length)
    there = replace(line, opened_at=begin.astimezone(ZoneInfo(one)),
                    closed_at=(begin + length).astimezone(ZoneInfo(other)))  # fmt: skip
    assert dollars(there) == dollars(line)
    assert shares_of(there, now=START) == shares_of(line, now=START)


PRICES = st.lists(
    st.tuples(st.integers(-300, 900), st.decimals(Decimal("0.01"), 9, places=2)), min_size=1, max_size=7
)


@given(PRICES, st.integers(1, 600))
def test_every_minute_of_spot_costs_the_price_of_that_minute(
    prices: list[tuple[int, Decimal]], minutes: int
) -> None:
    known = [(START + timedelta(minutes=at), price) for at, price in sorted(dict(prices).items())]
    line = line_of("aws", "compute", START, START + timedelta(minutes=minutes))
    total = Decimal(0)
    for minute in range(minutes):
        now = START + timedelta(minutes=minute)
        in_force = [price for at, price in known if at <= now] or [known[0][1]]
        total += in_force[-1] / 60
    found = at_prices(line, known)
    assert abs(sum(map(dollars, found)) - total) < Decimal("0.00001")
    assert [part.closed_at for part in found][-1] == line.closed_at
