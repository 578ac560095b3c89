"""What others have in the account: everything that can cost something and does not carry our tag.

Up to five calls a region that holds something, and as many pages as there are. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from cloudrun.catalog import load_offers
from cloudrun.catalog.prices import HOURS_PER_MONTH
from cloudrun.models import Market
from cloudrun.providers import tags as t
from cloudrun.providers.aws.instances import LIVE, PROVIDER, each_region
from cloudrun.providers.aws.leftovers import Described, address_price, disk_price, snapshot_price
from cloudrun.providers.aws.session import Session
from cloudrun.providers.aws.tags import SHOWN_NAME, tags_of
from cloudrun.providers.base import Leftover

BILLED = ("pending", "running")  # states of an instance


def list_foreign(session: Session) -> list[Leftover]:
    """All of it, in every enabled region."""
    found: list[list[Leftover]] = each_region(session, _region)
    return [each for there in found for each in there]


def _region(session: Session, region: str) -> list[Leftover]:
    ec2 = session.client("ec2", region)
    asked: tuple[Callable[[Any, str], Iterable[Leftover]], ...] = (
        _machines,
        _disks,
        _snapshots,
        _images,
        _addresses,
    )
    return [each for ask in asked for each in ask(ec2, region)]


def _machines(ec2: Any, region: str) -> Iterable[Leftover]:
    live = [{"Name": "instance-state-name", "Values": [*LIVE]}]
    for page in ec2.get_paginator("describe_instances").paginate(Filters=live):
        instances = [each for group in page["Reservations"] for each in group["Instances"]]
        for each in _others(instances):
            yield _found(
                each,
                region,
                "machine",
                each["InstanceId"],
                since=each["LaunchTime"],
                state=each["State"]["Name"],
                price=_machine_price(each, region),
            )


def _disks(ec2: Any, region: str) -> Iterable[Leftover]:
    for page in ec2.get_paginator("describe_volumes").paginate():
        for each in _others(page["Volumes"]):
            price, since = disk_price(each), each["CreateTime"]
            yield _found(
                each, region, "disk", each["VolumeId"], since=since, state=each["State"], price=price
            )


def _snapshots(ec2: Any, region: str) -> Iterable[Leftover]:
    for page in ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"]):
        for each in _others(page["Snapshots"]):
            price, since = snapshot_price(each), each.get("StartTime")
            yield _found(each, region, "snapshot", each["SnapshotId"], since=since, price=price)


def _images(ec2: Any, region: str) -> Iterable[Leftover]:
    """Free of charge themselves; their snapshots are not."""
    for each in _others(ec2.describe_images(Owners=["self"])["Images"]):
        since = datetime.fromisoformat(each["CreationDate"]).astimezone(UTC)
        yield _found(each, region, "image", each["ImageId"], since=since, price=Decimal(0))


def _addresses(ec2: Any, region: str) -> Iterable[Leftover]:
    for each in _others(ec2.describe_addresses()["Addresses"]):
        id_ = each.get("AllocationId", each.get("PublicIp", ""))
        state = "" if each.get("AssociationId") else "idle"
        yield _found(each, region, "address", id_, state=state, price=address_price())


def _others(described: Iterable[Described]) -> Iterable[Described]:
    return (each for each in described if tags_of(each).get(t.OURS) != "1")


def _machine_price(instance: Described, region: str) -> Decimal | None:
    """A month of it at the catalogue's price; its disks and addresses are things of their own."""
    if instance["State"]["Name"] not in BILLED:
        return Decimal(0)
    market = Market.SPOT if instance.get("InstanceLifecycle") == "spot" else Market.ON_DEMAND
    offers = load_offers(provider=PROVIDER, type=instance["InstanceType"], market=market, regions=(region,))
    hourly = next((each.price_per_hour_usd for each in offers), None)
    return None if hourly is None else hourly * HOURS_PER_MONTH


def _found(
    described: Described,
    region: str,
    kind: str,
    id_: str,
    *,
    price: Decimal | None,
    since: datetime | None = None,
    state: str = "",
) -> Leftover:
    return Leftover(
        provider=PROVIDER,
        region=region,
        kind=kind,
        id=id_,
        name=tags_of(described).get(SHOWN_NAME, ""),
        ours=False,
        since=since,
        state=state,
        price_per_month_usd=price,
        in_use=True,
    )
