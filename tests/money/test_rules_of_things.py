"""How disks, addresses and what is sent out are billed, and FloydHub's rule; machines: tests/store."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from money_samples import START, a_charge

from cloudrun.billing import address_price_usd, billed_seconds, disk_seconds, egress_usd, exact_seconds
from cloudrun.ledger import billed_seconds_of, cost_usd
from cloudrun.models import Market

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
