"""What AWS offers: every zone of the regions asked for, on demand and spot, at today's prices.

Asked of AWS where the account can ask; the rest comes from the catalogue, with its date. Planning needs
no account: missing credentials, a refused right or a broken line leave the catalogue, and only the launch
complains of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial

import boto3

from cloudrun import catalog
from cloudrun.catalog import InstanceType
from cloudrun.errors import ConfigError, Credentials, NotFound, ProviderError
from cloudrun.models import Market, Offer
from cloudrun.providers.answers import digest, kept, side_by_side
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.prices import on_demand_prices, placement_scores, spot_prices_now
from cloudrun.providers.aws.quotas import quota_limits, too_small
from cloudrun.providers.aws.session import Session
from cloudrun.providers.base import Need
from cloudrun.words import nearest

PROVIDER = "aws"
PLACES_AGE = timedelta(days=1)  # regions and zones change by the month
REHEARSAL = "rehearsal: the price is simulated"

Priced = tuple[Decimal | None, date | None]  # USD an hour, and of which day


@dataclass(frozen=True, slots=True)
class Region:
    """What AWS said of one region; None where it could not be asked."""

    name: str
    zones: Mapping[str, Sequence[str]] | None = None  # by type
    spot: Mapping[str, Mapping[str, Decimal | None]] | None = None  # by type and zone
    limits: Mapping[str, float] | None = None  # vCPUs by quota

    def zones_of(self, type: str) -> Sequence[str] | None:
        """Where the type is to be had, nothing for nowhere, None for unknown."""
        if self.zones is not None:
            return self.zones.get(type, ())
        return sorted((self.spot or {}).get(type, {})) or None


@dataclass(frozen=True, slots=True)
class Prices:
    """On-demand prices as AWS gave them, by type and region, and the catalogue's for what it did not give."""

    live: Mapping[str, tuple[Mapping[str, Decimal], date]]
    shipped: Mapping[tuple[str, str, Market], Offer]  # by region and type
    today: date

    def find(self, region: Region, zone: str, type: str, market: Market) -> Priced:
        """(None, None) where nobody knows."""
        if market is Market.SPOT and zone and region.spot is not None:
            spot = region.spot.get(type, {}).get(zone)
            return (spot, self.today) if spot else (None, None)
        by_region, day = self.live.get(type, ({}, self.today))
        if market is Market.ON_DEMAND and region.name in by_region:
            return by_region[region.name], day
        old = self.shipped.get((region.name, type, market))
        return (old.price_per_hour_usd, old.price_as_of) if old else (None, None)


def find_offers(session: Session, need: Need) -> list[Offer]:
    """What can be had first, cheapest first; equal spot prices by AWS's own guess at where there is room.

    Blocking: a few calls a region, all regions at once, answers kept for minutes to a day. Raises NotFound
    for a region that does not exist.
    """
    _check_regions(need.regions)
    types = catalog.wanted_types(PROVIDER, need.type, need.gpu)
    if not types:
        return []
    try:
        regions = _look_around(session, types, need)
        live = {} if need.market is Market.SPOT else _on_demand(session, types)
    except (ProviderError, ConfigError):  # nobody to ask
        regions, live = [Region(name) for name in need.regions or _shipped_regions(need.type)], {}
    names = [region.name for region in regions]
    shipped = catalog.load_offers(provider=PROVIDER, type=need.type, market=need.market, regions=names)
    by_place = {(offer.region, offer.type, offer.market): offer for offer in shipped}
    prices = Prices(live, by_place, datetime.now(UTC).date())
    offers = [offer for known in types for offer in _offers_of(known, regions, prices, need)]
    if session.simulated:
        offers = [replace(offer, warning=REHEARSAL) for offer in offers]
    scores = _scores(session, need.type, offers) if need.type else {}
    return sorted(offers, key=partial(_order, scores))


def _check_regions(regions: Sequence[str]) -> None:
    """Refuse a slip of the pen: its endpoint would only be searched for in vain."""
    unknown = [name for name in regions if name not in _shipped_regions()]
    if not unknown:
        return
    with mapped(region="", what="regions"):
        boto = boto3.Session()
        partitions = boto.get_available_partitions()
        known = {name for each in partitions for name in boto.get_available_regions("ec2", each)}
    for name in unknown:
        if name not in known:
            raise NotFound(f"AWS has no region {name!r}", hint=nearest(name, sorted(known)))


def _shipped_regions(type: str = "") -> list[str]:
    return sorted({offer.region for offer in catalog.load_offers(provider=PROVIDER, type=type)})


def _look_around(session: Session, types: Sequence[InstanceType], need: Need) -> list[Region]:
    """The regions asked for, or all that the account may use, looked at side by side."""
    session.require_credentials()
    look = partial(_look, session, types, need.markets)
    return side_by_side(look, need.regions or _enabled_regions(session))


def _enabled_regions(session: Session) -> list[str]:
    def ask() -> list[str]:
        with mapped(region=session.home_region, what="regions"):
            return session.regions()

    return [str(name) for name in kept(session, f"regions-{session.home_region}", PLACES_AGE, ask).value]


def _look(session: Session, types: Sequence[InstanceType], markets: Sequence[Market], region: str) -> Region:
    names = [known.type for known in types]
    seen = Region(region)
    try:
        seen = replace(seen, zones=_zones(session, region, names))
    except Credentials:
        pass  # this one question is not allowed; another may be
    except ProviderError:
        return seen  # no line, or throttled: the next question would only wait as well
    if Market.SPOT in markets:
        with suppress(ProviderError):
            seen = replace(seen, spot=spot_prices_now(session, region, names))
    with suppress(ProviderError):
        seen = replace(seen, limits=quota_limits(session, region, types, markets))
    return seen


def _zones(session: Session, region: str, types: Sequence[str]) -> dict[str, list[str]]:
    """The zones that offer each type; one that is offered nowhere there is left out."""

    def ask() -> dict[str, list[str]]:
        with mapped(region=region, what="types offered"):
            pages = session.client("ec2", region).get_paginator("describe_instance_type_offerings")
            found = pages.paginate(
                LocationType="availability-zone",
                Filters=[{"Name": "instance-type", "Values": sorted(types)}],
            )
            zones: dict[str, list[str]] = {}
            for row in (row for page in found for row in page["InstanceTypeOfferings"]):
                zones.setdefault(row["InstanceType"], []).append(row["Location"])
        return {name: sorted(places) for name, places in zones.items()}

    answer: dict[str, list[str]] = kept(session, f"zones-{region}-{digest(types)}", PLACES_AGE, ask).value
    return answer


def _on_demand(
    session: Session, types: Sequence[InstanceType]
) -> dict[str, tuple[Mapping[str, Decimal], date]]:
    """By type and region; a type is left out when its prices cannot be asked for."""

    def ask(known: InstanceType) -> tuple[Mapping[str, Decimal], date] | None:
        with suppress(ProviderError):
            return on_demand_prices(session, known.type)
        return None

    answers = zip(types, side_by_side(ask, types), strict=True)
    return {known.type: answer for known, answer in answers if answer}


def _offers_of(known: InstanceType, regions: Sequence[Region], prices: Prices, need: Need) -> Iterator[Offer]:
    """The offers of one type. Where it is not to be had is said for the regions that the user named, and
    once if that is so everywhere."""
    absent: list[str] = []
    for region in regions:
        zones = region.zones_of(known.type)
        if zones is not None and not zones:
            absent.append(region.name)
        for zone in ("",) if zones is None else zones:
            yield from _offers_at(known, region, zone, prices, need)
    if len(absent) == len(regions) > 1:
        yield from _refusals(known, absent[0], f"any of the {len(absent)} regions asked", need)
    elif need.regions or len(absent) == len(regions):
        for name in absent:
            yield from _refusals(known, name, name, need)


def _offers_at(known: InstanceType, region: Region, zone: str, prices: Prices, need: Need) -> Iterator[Offer]:
    """In one zone; zone "" is a region that could not be asked, as the catalogue knows it."""
    for market in need.markets:
        if not zone and (region.name, known.type, market) not in prices.shipped:
            continue
        price, as_of = prices.find(region, zone, known.type, market)
        why_not = too_small(region.limits or {}, region.name, known, market)
        offer = replace(catalog.make_offer(known, region.name, market), zone=zone, price_per_hour_usd=price)
        yield replace(offer, price_as_of=as_of, fits=not why_not, why_not=why_not)


def _refusals(known: InstanceType, region: str, where: str, need: Need) -> Iterator[Offer]:
    why_not = f"AWS does not offer it in {where}"
    if warning := catalog.type_warning(PROVIDER, known.type):
        why_not += f": {warning}"
    for market in need.markets:
        yield replace(catalog.make_offer(known, region, market), fits=False, why_not=why_not)


def _scores(session: Session, type: str, offers: Sequence[Offer]) -> dict[str, int]:
    """AWS's placement scores by zone, asked only where zones of a region cost the same."""
    spot = [offer for offer in offers if offer.market is Market.SPOT and offer.fits and offer.zone]
    prices = Counter((offer.region, offer.price_per_hour_usd) for offer in spot)
    tied = sorted({region for (region, price), zones in prices.items() if price and zones > 1})
    if tied:
        with suppress(ProviderError, ConfigError):
            return placement_scores(session, type, tied)
    return {}


def _order(scores: Mapping[str, int], offer: Offer) -> tuple[bool, bool, Decimal, int, str, str, str, str]:
    price = offer.price_per_hour_usd
    score = scores.get(offer.zone, 0) if offer.market is Market.SPOT else 0
    place = (offer.region, offer.zone, offer.type, offer.market)
    return not offer.fits, price is None, price or Decimal(0), -score, *place
