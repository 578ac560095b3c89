"""Spot prices that move, per zone, and the same for everyone who asks with the same seed.

The base is the catalogue's spot price of the type in the region, which is that of its cheapest zone;
where it has none, 30 % of the on-demand price there. Around the base a zone's price changes about every
six hours, as spot prices have moved slowly since 2017-11 (AWS announcement of the smoothed prices), and
it never passes the on-demand price. A type without any price in the catalogue has none here either.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cache

from cloudrun.catalog import load_offers
from cloudrun.models import Market
from cloudrun.sim.aws.seeds import PROVIDER, zones_offering

STEP = timedelta(hours=6)
HISTORY = timedelta(days=90)  # as far back as DescribeSpotPriceHistory goes
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_FALLBACK_SHARE = Decimal("0.3")
_CENT_OF_CENT = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class PriceChange:
    """From `at` on, one hour of spot in that zone costs this."""

    zone: str
    type: str
    price_usd: Decimal
    at: datetime


@cache
def catalogue_price(region: str, type: str, market: Market) -> Decimal | None:
    """Price an hour as the catalogue has it, None where it has none."""
    found = load_offers(provider=PROVIDER, type=type, market=market, regions=(region,))
    return found[0].price_per_hour_usd if found else None


class SpotPrices:
    """The series of all zones, and the prices that somebody set."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._set: dict[tuple[str, str], list[PriceChange]] = {}

    def set_price(self, zone: str, type: str, price_usd: Decimal, at: datetime) -> None:
        """From now on that price, until another is set."""
        self._set.setdefault((zone, type), []).append(PriceChange(zone, type, price_usd, at))

    def price(self, region: str, zone: str, type: str, at: datetime) -> Decimal | None:
        """The price in effect, None where the type has none."""
        changes = self.changes(region, zone, type, since=at, until=at)
        return changes[0].price_usd if changes else None

    def changes(
        self, region: str, zone: str, type: str, *, since: datetime, until: datetime
    ) -> list[PriceChange]:
        """Changes in that time, newest first, and last the one in effect when it began."""
        base = self._base(region, type)
        ours = self._set.get((zone, type), [])
        if (base is None and not ours) or zone not in zones_offering(region, type):
            return []
        moving = [] if base is None else self._moving(region, zone, type, base, since, until)
        frozen_from = ours[0].at if ours else None
        series = [change for change in moving if frozen_from is None or change.at < frozen_from]
        series = [change for change in (*series, *ours) if change.at <= until]
        first = max((place for place, change in enumerate(series) if change.at <= since), default=0)
        return series[first:][::-1]

    def _base(self, region: str, type: str) -> Decimal | None:
        spot = catalogue_price(region, type, Market.SPOT)
        if spot is not None:
            return spot
        on_demand = catalogue_price(region, type, Market.ON_DEMAND)
        return on_demand * _FALLBACK_SHARE if on_demand is not None else None

    def _moving(
        self, region: str, zone: str, type: str, base: Decimal, since: datetime, until: datetime
    ) -> list[PriceChange]:
        """The computed series over that time, oldest first, with the step before it."""
        ceiling = catalogue_price(region, type, Market.ON_DEMAND)
        cheapest = zones_offering(region, type)[self._draw(region, type) % len(zones_offering(region, type))]
        above = Decimal(0) if zone == cheapest else Decimal(5 + self._draw(zone, type) % 40) / 100
        first, last = int((since - _EPOCH) / STEP) - 2, int((until - _EPOCH) / STEP)
        series = []
        for step in range(first, last + 1):
            wave = Decimal(self._draw(zone, type, step) % 17) / 100  # 0 to 16 % over the zone's level
            price = base * (1 + above + wave)
            price = min(price, ceiling) if ceiling is not None else price
            moved = STEP * (self._draw(zone, type, step, "at") % 1000) / 1000
            at = (_EPOCH + step * STEP + moved).replace(microsecond=0)
            series.append(PriceChange(zone, type, price.quantize(_CENT_OF_CENT, ROUND_HALF_UP), at))
        return series

    def _draw(self, *what: object) -> int:
        text = " ".join(map(str, (self._seed, *what)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
