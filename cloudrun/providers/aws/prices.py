"""What EC2 costs: on demand from the Pricing API, spot from EC2's own price history.

Linux, shared tenancy, no licence: what our images are billed as. A price of zero is no price.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from cloudrun.errors import Credentials
from cloudrun.models import Machine, Market
from cloudrun.providers.answers import digest, kept
from cloudrun.providers.aws.errors import mapped
from cloudrun.providers.aws.session import Session

PRICING_REGION = (
    "us-east-1"  # the API answers in few regions, in each for all (Price List Query API reference)
)
ON_DEMAND_AGE = timedelta(days=1)
SPOT_AGE = timedelta(minutes=5)
ZONES_AGE = timedelta(days=1)
SCORES_AGE = timedelta(hours=1)  # AWS bounds how many different questions it takes in a day
RECENT = timedelta(seconds=5)  # machines that end together are billed by one answer
LINUX = ("Linux/UNIX", "Linux/UNIX (Amazon VPC)")  # the second in accounts from before 2013-12

# Attributes of the one product that is a plain Linux machine of a type.
_PRODUCT = {
    "operatingSystem": "Linux",
    "preInstalledSw": "NA",
    "tenancy": "Shared",
    "capacitystatus": "Used",
}
# Products that the filters above let through and that are something else: local zones, capacity blocks.
_USUAL = {"locationType": "AWS Region", "marketoption": "OnDemand"}


def on_demand_prices(session: Session, type: str) -> tuple[dict[str, Decimal], date]:
    """USD an hour by region, and the day they were asked. One call a day (a type fits one page)."""

    def ask() -> dict[str, str]:
        with mapped(region=PRICING_REGION, type=type, what="prices of"):
            pages = session.client("pricing", PRICING_REGION).get_paginator("get_products")
            asked = {**_PRODUCT, "instanceType": type}
            filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in asked.items()]
            found = pages.paginate(ServiceCode="AmazonEC2", Filters=filters)
            return dict(_by_region(item for page in found for item in page["PriceList"]))

    answer = kept(session, f"on-demand-{type}", ON_DEMAND_AGE, ask)
    prices = {region: price for region, text in answer.value.items() if (price := _price(text))}
    return prices, answer.asked_at.date()


def spot_prices_now(
    session: Session, region: str, types: Collection[str]
) -> dict[str, dict[str, Decimal | None]]:
    """The spot prices of all zones of the region, by type and zone. One call in five minutes."""

    def ask() -> list[list[str]]:
        now = datetime.now(UTC)
        with mapped(region=region, what="spot prices"):
            # As filters: a name that EC2 does not know there is no error, and the others are answered.
            rows = _history(session, region, {"instance-type": sorted(types)}, since=now, until=now)
            newest: dict[tuple[str, str], list[str]] = {}
            for row in sorted(rows, key=lambda row: row["Timestamp"]):
                place = row["InstanceType"], row["AvailabilityZone"]
                newest[place] = [*place, row["SpotPrice"]]
        return list(newest.values())

    found: dict[str, dict[str, Decimal | None]] = {}
    for name, zone, price in kept(session, f"spot-{region}-{digest(types)}", SPOT_AGE, ask).value:
        found.setdefault(name, {})[zone] = _price(price)
    return found


def placement_scores(session: Session, type: str, regions: Sequence[str]) -> dict[str, int]:
    """How likely spot is to be had, 1 to 10, by zone; AWS names the ten best zones of all."""

    def ask() -> dict[str, int]:
        with mapped(region=session.home_region, type=type, what="spot placement scores of"):
            answer = session.client("ec2", session.home_region).get_spot_placement_scores(
                InstanceTypes=[type],
                TargetCapacity=1,
                TargetCapacityUnitType="units",
                SingleAvailabilityZone=True,
                RegionNames=list(regions),
            )
        scores = answer["SpotPlacementScores"]
        return {row["AvailabilityZoneId"]: row["Score"] for row in scores}

    by_id = kept(session, f"scores-{type}-{digest(regions)}", SCORES_AGE, ask).value
    ids = {zone: zone_id for region in regions for zone, zone_id in _zone_ids(session, region).items()}
    return {zone: int(by_id[zone_id]) for zone, zone_id in ids.items() if zone_id in by_id}


@dataclass(frozen=True, slots=True)
class ZonePrices:
    """What a type cost in a zone between two times: (from when, USD an hour), in order."""

    since: datetime
    until: datetime
    changes: list[tuple[datetime, Decimal]]


def spot_prices(
    session: Session, machine: Machine, since: datetime, until: datetime
) -> list[tuple[datetime, Decimal]]:
    """(from when, USD an hour) of the machine's zone by time, the first at or before `since` where AWS
    still knows it (90 days). Empty for a machine that is not spot, and where the account may not ask."""
    if machine.market is not Market.SPOT or not machine.zone:
        return []
    place = machine.region, machine.zone, machine.type
    recent = session.recent_prices.get(place)
    if recent is None or recent.since > since or recent.until < until - RECENT:
        try:
            recent = _zone_history(session, *place, since=since - RECENT, until=until)
        except Credentials:
            return []
        session.recent_prices[place] = recent
    changes = recent.changes
    before = [change for change in changes if change[0] <= since][-1:]
    return before + [change for change in changes if since < change[0] <= until]


def _zone_history(
    session: Session, region: str, zone: str, type: str, *, since: datetime, until: datetime
) -> ZonePrices:
    wanted = {"instance-type": [type], "availability-zone": [zone]}
    with mapped(region=region, type=type, what="spot prices of"):
        rows = list(_history(session, region, wanted, since=since, until=until))
    changes = sorted((row["Timestamp"], price) for row in rows if (price := _price(row["SpotPrice"])))
    return ZonePrices(since, until, changes)


def _zone_ids(session: Session, region: str) -> dict[str, str]:
    """Ids by name: names of zones differ by account, ids do not, and scores are told by id."""

    def ask() -> dict[str, str]:
        with mapped(region=region, what="zones"):
            answer = session.client("ec2", region).describe_availability_zones()
        return {zone["ZoneName"]: zone["ZoneId"] for zone in answer["AvailabilityZones"]}

    found: dict[str, str] = kept(session, f"zone-ids-{region}", ZONES_AGE, ask).value
    return found


def _history(
    session: Session, region: str, wanted: Mapping[str, list[str]], *, since: datetime, until: datetime
) -> Iterator[dict[str, Any]]:
    """Rows of the price history, those in effect at `since` included."""
    filters = {**wanted, "product-description": list(LINUX)}
    pages = session.client("ec2", region).get_paginator("describe_spot_price_history")
    for page in pages.paginate(
        Filters=[{"Name": name, "Values": values} for name, values in filters.items()],
        StartTime=since,
        EndTime=until,
    ):
        yield from page["SpotPriceHistory"]


def _by_region(items: Iterator[str]) -> Iterator[tuple[str, str]]:
    """(region, USD an hour) of each product of the price list, which are JSON texts."""
    for item in items:
        product = json.loads(item)
        attributes = product["product"]["attributes"]
        if all(attributes.get(name, value) == value for name, value in _USUAL.items()):
            for term in product["terms"].get("OnDemand", {}).values():
                for rate in term["priceDimensions"].values():
                    if rate["unit"] == "Hrs" and _price(rate["pricePerUnit"].get("USD", "")):
                        yield attributes["regionCode"], rate["pricePerUnit"]["USD"]


def _price(text: str) -> Decimal | None:
    """Without idle zeros. None for what is no price: empty, not a number, zero."""
    try:
        price = Decimal(text)
    except InvalidOperation:
        return None
    if not price.is_finite() or price <= 0:
        return None
    return price.to_integral() if price == price.to_integral() else price.normalize()
