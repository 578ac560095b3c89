"""How long a provider bills for, and what an amount is in another currency.

The rules come from catalog/billing.csv: of each provider the one that was in force on the day (UTC)
on which the thing began, because minimums are counted from its start. Durations are whole
seconds, so that no rounding happens before the price is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cache

from cloudrun.catalog import BillingRule, address_rule, disk_rule, load_billing, snapshot_rule
from cloudrun.catalog.loader import read_csv
from cloudrun.errors import ConfigError
from cloudrun.models import Market

SECONDS_PER_HOUR = 3600

# Azure's old rule: whole minutes run, the rest of a minute unbilled. Its row has no last day and its
# source is dated "before 2020" only, so it is taken to have ended with 2019.
_AZURE_WHOLE_MINUTES_S = 60
_AZURE_WHOLE_MINUTES_END = date(2019, 12, 31)

_MINOR_UNITS: Mapping[str, int] = {"JPY": 0, "KRW": 0}  # digits after the point (ISO 4217), 2 for all others


def billed_quantity(provider: str, market: Market, opened_at: datetime, closed_at: datetime) -> Decimal:
    """The hours of compute that are billed for that time. Not rounded further than its rule says."""
    return Decimal(billed_seconds(provider, market, opened_at, closed_at)) / SECONDS_PER_HOUR


def billed_seconds(provider: str, market: Market, opened_at: datetime, closed_at: datetime) -> int:
    """The seconds of compute that are billed: 0 on one's own machines; elsewhere at least the rule's
    minimum, even where clocks put the end before the start. A provider without a rule is taken
    to bill every second begun."""
    if market is Market.OWN:
        return 0
    seconds = exact_seconds(opened_at, closed_at)
    rule = _rule(provider, opened_at.astimezone(UTC).date())
    if rule is None:
        return seconds
    step = rule.granularity_s or 1
    steps = seconds // step if _rounds_down(rule) else -(-seconds // step)
    return max(steps * step, rule.minimum_s or 0)


def disk_seconds(provider: str, opened_at: datetime, closed_at: datetime) -> int:
    """The seconds for which a disk is billed: every second begun, also while its machine is off, but no fewer
    than its provider states (AWS: 60 s since 2017-10-02)."""
    rule = disk_rule(provider)
    return max(exact_seconds(opened_at, closed_at), (rule.minimum_s or 0) if rule else 0)


def stored_seconds(provider: str, opened_at: datetime, closed_at: datetime) -> int:
    """The seconds for which an image's snapshot is billed: whole hours begun at AWS, else seconds."""
    rule = snapshot_rule(provider)
    step = (rule.granularity_s if rule else None) or 1
    return -(-exact_seconds(opened_at, closed_at) // step) * step


def exact_seconds(opened_at: datetime, closed_at: datetime) -> int:
    """The seconds begun between two times of any zone, never fewer than 0."""
    passed = closed_at.astimezone(UTC) - opened_at.astimezone(UTC)  # of one zone Python compares the clocks
    return max(0, passed.days * 86400 + passed.seconds + (passed.microseconds > 0))


def address_price_usd(provider: str, day: date) -> Decimal:
    """An hour of a running machine's public address on that day (UTC); 0 where it was free, or is not billed
    apart. AWS bills every address since 2024-02-01."""
    rule = address_rule(provider)
    in_force = rule is not None and _covers(rule, day)
    return (rule.price_usd or Decimal(0)) if rule and in_force else Decimal(0)


def egress_usd(provider: str, sent_gb: Decimal) -> Decimal | None:
    """An estimate of what so many GB sent to the internet in one month cost; None for a provider whose prices
    the catalogue lacks."""
    parts = egress_parts(provider, Decimal(0), sent_gb)
    return None if parts is None else sum((gb * price for gb, price in parts), Decimal(0))


def egress_parts(provider: str, before_gb: Decimal, sent_gb: Decimal) -> list[tuple[Decimal, Decimal]] | None:
    """So many more GB, sent to the internet after others of the same month, by the steps of the price: (GB,
    USD a GB), in order. None for a provider whose prices the catalogue lacks. One region's prices stand for
    all."""
    tiers = _egress_tiers(provider)
    if not tiers:
        return None
    after_gb = before_gb + sent_gb
    ends = [*(begin for begin, _ in tiers[1:]), max(after_gb, tiers[-1][0])]
    parts = [
        (min(after_gb, end) - max(before_gb, begin), price)
        for (begin, price), end in zip(tiers, ends, strict=True)
    ]
    return [(gb, price) for gb, price in parts if gb > 0]


def in_currency(amount_usd: Decimal, currency: str, rates: Mapping[str, Decimal]) -> Decimal:
    """The amount to show: converted and rounded, half up, to the currency's smallest coin. The ledger itself
    is never rounded to it. Raises ConfigError without a rate."""
    if currency not in rates:
        raise ConfigError(
            f"no rate from USD to {currency}",
            hint=f"set CLOUDRUN_RATE_USD_{currency}, or [rates] {currency} in config.toml",
        )
    coin = Decimal(1).scaleb(-_MINOR_UNITS.get(currency, 2))
    return (amount_usd * rates[currency]).quantize(coin, ROUND_HALF_UP)


@cache
def _egress_tiers(provider: str) -> tuple[tuple[Decimal, Decimal], ...]:
    """(from so many GB on, USD a GB), the smallest first."""
    rows = [row for row in read_csv("egress.csv") if row["provider"] == provider]
    return tuple(sorted((Decimal(row["from_gb"]), Decimal(row["price_usd_gb"])) for row in rows))


def _rule(provider: str, day: date) -> BillingRule | None:
    """The compute rule in force on that day; where an old one and an open one both say so, the old."""
    in_force = [rule for rule in _compute_rules(provider) if _covers(rule, day)]
    return min(in_force, key=lambda rule: _last_day(rule) or date.max, default=None)


@cache
def _compute_rules(provider: str) -> tuple[BillingRule, ...]:
    """Rows about running instances that state a granularity: others are about a special case, or
    say that nothing is known."""
    return tuple(
        rule
        for rule in load_billing()
        if rule.provider == provider and rule.granularity_s and rule.what.startswith(("instance", "job"))
    )


def _covers(rule: BillingRule, day: date) -> bool:
    return (rule.valid_from or date.min) <= day <= (_last_day(rule) or date.max)


def _last_day(rule: BillingRule) -> date | None:
    return _AZURE_WHOLE_MINUTES_END if rule.valid_to is None and _rounds_down(rule) else rule.valid_to


def _rounds_down(rule: BillingRule) -> bool:
    return rule.provider == "azure" and rule.granularity_s == _AZURE_WHOLE_MINUTES_S
