"""How long is billed for, by the rule of its provider and day, and what an amount is elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun.billing import billed_quantity, billed_seconds, exact_seconds, in_currency
from cloudrun.config import DEFAULT_RATES
from cloudrun.errors import ConfigError
from cloudrun.models import Market

AWS_HOUR_DAY = datetime(2017, 10, 1, 12, tzinfo=UTC)  # the last day billed by the hour
AWS_SECOND_DAY = datetime(2017, 10, 2, 12, tzinfo=UTC)
AZURE_MINUTE_DAY = datetime(2017, 6, 1, tzinfo=UTC)
AZURE_SECOND_DAY = datetime(2025, 5, 31, tzinfo=UTC)
AZURE_FIVE_MINUTES_DAY = datetime(2025, 6, 1, tzinfo=UTC)

RULES = st.sampled_from(
    [
        ("aws", AWS_HOUR_DAY),
        ("aws", AWS_SECOND_DAY),
        ("azure", AZURE_MINUTE_DAY),
        ("azure", AZURE_SECOND_DAY),
        ("azure", AZURE_FIVE_MINUTES_DAY),
        ("floydhub", AWS_SECOND_DAY),
        ("somebody", AWS_SECOND_DAY),
    ]
)
MARKETS = st.sampled_from([Market.SPOT, Market.ON_DEMAND])
DURATIONS = st.timedeltas(timedelta(0), timedelta(days=40))


def seconds(provider: str, opened_at: datetime, passed: timedelta, market: Market = Market.SPOT) -> int:
    return billed_seconds(provider, market, opened_at, opened_at + passed)


@pytest.mark.parametrize(
    ("provider", "day", "passed_s", "billed_s"),
    [
        ("aws", AWS_HOUR_DAY, 1, 3600),
        ("aws", AWS_HOUR_DAY, 3600, 3600),
        ("aws", AWS_HOUR_DAY, 3601, 7200),
        ("aws", AWS_SECOND_DAY, 1, 60),
        ("aws", AWS_SECOND_DAY, 61, 61),
        ("aws", AWS_SECOND_DAY, 60.25, 61),
        ("azure", AZURE_MINUTE_DAY, 6 * 60 + 45, 360),  # Azure's own example
        ("azure", AZURE_MINUTE_DAY, 59, 60),
        ("azure", datetime(2019, 12, 31, tzinfo=UTC), 119, 60),
        ("azure", datetime(2020, 1, 1, tzinfo=UTC), 119, 119),
        ("azure", AZURE_SECOND_DAY, 1, 1),
        ("azure", AZURE_FIVE_MINUTES_DAY, 1, 300),
        ("azure", AZURE_FIVE_MINUTES_DAY, 301, 301),
        ("somebody", AWS_SECOND_DAY, 7, 7),
        ("aws", AWS_SECOND_DAY, -30, 60),  # the provider's clock before ours
    ],
)
def test_the_rule_of_the_day(provider: str, day: datetime, passed_s: float, billed_s: int) -> None:
    assert seconds(provider, day, timedelta(seconds=passed_s)) == billed_s


def test_the_day_is_counted_in_utc() -> None:
    in_seattle = datetime(2017, 10, 1, 18, tzinfo=timezone(timedelta(hours=-7)))  # 01:00 of the 2nd in UTC
    assert seconds("aws", in_seattle, timedelta(seconds=90)) == 90


def test_the_quantity_is_in_hours() -> None:
    assert billed_quantity(
        "aws", Market.SPOT, AWS_SECOND_DAY, AWS_SECOND_DAY + timedelta(minutes=90)
    ) == Decimal("1.5")


@given(st.sampled_from(["local", "attached", "aws"]), DURATIONS)
def test_own_machines_are_billed_nothing(provider: str, passed: timedelta) -> None:
    assert seconds(provider, AWS_SECOND_DAY, passed, Market.OWN) == 0


@given(RULES, MARKETS, DURATIONS, DURATIONS)
def test_longer_never_costs_less(
    rule: tuple[str, datetime], market: Market, one: timedelta, other: timedelta
) -> None:
    short, long = sorted([one, other])
    assert 0 <= seconds(*rule, short, market) <= seconds(*rule, long, market)


@given(DURATIONS)
def test_the_hour_rule_rounds_up(passed: timedelta) -> None:
    billed = seconds("aws", AWS_HOUR_DAY, passed)
    assert billed % 3600 == 0
    assert max(passed.total_seconds(), 3600) <= billed < max(passed.total_seconds(), 1) + 3600


@given(st.sampled_from([("aws", AWS_SECOND_DAY, 60), ("azure", AZURE_FIVE_MINUTES_DAY, 300)]), st.data())
def test_per_second_billing_adds_up_over_splits(rule: tuple[str, datetime, int], data: st.DataObject) -> None:
    provider, day, minimum_s = rule
    above = st.integers(minimum_s, 10**6).map(lambda amount: timedelta(seconds=amount))
    first, second = data.draw(above), data.draw(above)
    together = seconds(provider, day, first + second)
    assert together == seconds(provider, day, first) + seconds(provider, day + first, second)


@given(st.sampled_from([("azure", AZURE_SECOND_DAY), ("somebody", AWS_SECOND_DAY)]), DURATIONS)
def test_a_second_begun_is_a_second(rule: tuple[str, datetime], passed: timedelta) -> None:
    assert timedelta(0) <= timedelta(seconds=seconds(*rule, passed)) - passed < timedelta(seconds=1)


MOMENTS = st.datetimes(
    datetime(1950, 1, 1),  # noqa: DTZ001  # the zones are the next
    datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7))]),
)


@given(MOMENTS, MOMENTS)
def test_exact_seconds_are_never_negative(one: datetime, other: datetime) -> None:
    passed = exact_seconds(one, other)
    assert passed >= 0
    assert (passed == 0) == (other <= one)


# --- currencies --------------------------------------------------------------------------


def test_amounts_are_rounded_half_up_to_the_smallest_coin() -> None:
    assert str(in_currency(Decimal("0.125"), "USD", DEFAULT_RATES)) == "0.13"
    assert str(in_currency(Decimal("0.1249999"), "USD", DEFAULT_RATES)) == "0.12"
    assert str(in_currency(Decimal("0.27"), "JPY", DEFAULT_RATES)) == "30"  # 29.7 yen
    assert str(in_currency(Decimal(2), "EUR", {"EUR": Decimal("0.9")})) == "1.80"


def test_a_currency_without_a_rate_says_how_to_give_one() -> None:
    with pytest.raises(ConfigError, match="EUR") as refusal:
        in_currency(Decimal(1), "EUR", DEFAULT_RATES)
    assert "CLOUDRUN_RATE_USD_EUR" in refusal.value.hint
